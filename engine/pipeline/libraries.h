/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_LIBRARIES_H
#define PYSPYD_PIPELINE_LIBRARIES_H

#include "engine/base/vec.h"
#include "engine/elf/elf_image.h"
#include "engine/proc/proc.h"
#include "pyspyd/modules.h"

#define LIBRARIES_MAX 2048

typedef VEC(struct pyspyd_library) library_vec;

/* The files of which a process has code mapped, by path, with those marked that double others. *ret_incomplete is set
 * where there are more than LIBRARIES_MAX. Return: 0; PROC_E_GONE; negative errno. */
int libraries_read(const struct proc *proc, library_vec *ret_libraries, bool *ret_incomplete);
void libraries_free(struct pyspyd_library *libraries, size_t n);

/* Pure: marks those of one build id with several paths, and those of one name ("libssl" of libssl.so.3 and
 * libssl-3e69114b.so.1.1) with different contents. */
int libraries_mark(struct pyspyd_library *libraries, size_t n);

/* DT_SONAME. Return: 0, the caller's; -ENOENT; -ENOMEM. */
int library_soname(const struct elf_image *img, uint64_t dynamic, uint64_t size, char **ret_soname);

#endif
