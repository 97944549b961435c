/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_MODULES_H
#define PYSPYD_NATIVE_MODULES_H

#include "engine/mem/mem.h"
#include "engine/native/symbol_table.h"
#include "engine/native/unwind_table.h"
#include "engine/proc/proc.h"

/* What code a process has mapped, from which files, and how to unwind it.
 *
 * Files are shared between processes by device, inode, size and times, through a cache that several
 * native_modules use. Neither is for several threads at once. */

#define NATIVE_BUILD_ID_MAX 64

/* A file, for as long as somebody holds it. */
struct native_file {
	char *path; /* as the process that had it first shows it; "[vdso]" */
	uint8_t build_id[NATIVE_BUILD_ID_MAX];
	size_t build_id_len;        /* 0: none */
	struct unwind_table *table; /* NULL: the file says nothing about its frames, or nothing readable: table_error */
	int table_error;
	struct symbol_table *symbols; /* NULL: not asked for yet */
	uint64_t id;                  /* of this file among all that its cache has seen; never used again */
	uint32_t refs;
};

struct native_cache;

/* At most idle_bytes are kept of files that nobody holds. Return: 0; -ENOMEM. */
int native_cache_new(size_t idle_bytes, struct native_cache **ret_cache);
/* All native_modules must be gone. */
void native_cache_free(struct native_cache *cache);

/* The rules of all tables: they only grow. */
const struct unwind_rules *native_cache_rules(const struct native_cache *cache);

enum native_kind {
	NATIVE_FILE,
	NATIVE_VDSO,
	NATIVE_ANONYMOUS, /* code made at run time, or copied there */
	NATIVE_OTHER,     /* [vsyscall], a file that cannot be had */
};

/* One executable mapping. */
struct native_module {
	raddr start, end;
	enum native_kind kind;
	bool loaded;              /* whether what follows was looked for */
	uint64_t bias;            /* address in the process = address in the file + bias, modulo 2^64 */
	struct native_file *file; /* NULL: none, or it cannot be had */
	size_t map;               /* index of its mapping */
};

struct native_modules {
	VEC(struct native_module) items; /* ascending */
	proc_map_vec maps;
	const struct proc *proc;
	struct mem *mem;
	struct native_cache *cache;
	struct symbol_table *perf_map; /* NULL: not asked for yet */
};

/* The process's executable mappings of now. Files are opened when they are first asked for. `proc`, `mem` and `cache`
 * stay the caller's and must outlive the result. Return: 0; PROC_E_GONE; -ENOMEM; negative errno of reading maps. */
int native_modules_new(
	const struct proc *proc, struct mem *mem, struct native_cache *cache, struct native_modules **ret_modules);
void native_modules_free(struct native_modules *modules);

/* The module at an address, with its file and table where they can be had. NULL: no code is mapped there (as far as was
 * known when the mappings were read: a library may have been loaded since). */
const struct native_module *native_modules_find(struct native_modules *modules, raddr at);

/* Opens the file of items[i], as native_modules_find does. */
const struct native_module *native_modules_load(struct native_modules *modules, size_t i);

/* The module's path as the kernel shows it. */
static inline const char *native_module_path(const struct native_modules *modules, const struct native_module *module) {
	return modules->maps.items[module->map].path;
}

/* Opens a module's file (of the vdso: a copy in memory) for reading. Return: 0 and *ret_fd the caller's; as
 * proc_map_open. */
int native_module_open(const struct native_modules *modules, const struct native_module *module, int *ret_fd);

#endif
