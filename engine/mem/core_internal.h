/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_MEM_CORE_INTERNAL_H
#define PYSPYD_MEM_CORE_INTERNAL_H

#include "engine/mem/core.h"

/* Between the files core*.c. */

/* Reads all of [offset, offset + len) of the core. Return: 0; -ENODATA: the core ends before; negative errno. */
int core_pread(const struct core *core, uint64_t offset, void *buf, size_t len);

/* The segment with that address, or NULL. */
const struct core_segment *core_segment_at(const struct core *core, raddr addr);

/* The mapping of a file with that address, or NULL. */
const struct core_mapping *core_mapping_at(const struct core *core, raddr addr);

/* Of memory that is in the core itself. Return: 0; MEM_E_FAULT; negative errno. */
int core_read_dumped(const struct core *core, raddr addr, void *buf, size_t len);

/* Takes in what the notes in [offset, offset + len) of the core say. One that is broken or cut off ends them. Return:
 * 0; -ENOMEM; -E2BIG; negative errno of reading. */
int core_read_notes(struct core *core, uint64_t offset, uint64_t len);

/* The command line as /proc has it, each argument with its NUL. Return: its length, at most `size`; 0: it cannot be
 * had.
 */
size_t core_cmdline(const struct core *core, struct mem *mem, char *buf, size_t size);

/* Opens a file's place for reading, if it is still the one that was found. Return: 0; negative errno. */
int core_file_open(const struct core *core, const struct core_file *file, int *ret_fd);

/* `fd` is a core, or one that is packed: then *fd becomes a temporary file without a name that has it unpacked. `name`
 * is for the text. Return: 0; -EFBIG, -ENOSPC, -EBADMSG; -ENOMEM; negative errno. */
int core_unpack(int *fd, const char *name, struct err *err);

#endif
