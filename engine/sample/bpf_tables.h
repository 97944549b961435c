/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_BPF_TABLES_H
#define PYSPYD_SAMPLE_BPF_TABLES_H

#include "bpf/sample.h"
#include "engine/native/modules.h"

/* What the sampling program unwinds native stacks with: the code of each process, and its files' tables. All calls from
 * one thread at a time. */
struct bpf_tables;

#define BPF_TABLES_BYTES (16U << 20) /* of all tables; a file that has no room is unwound in user space */

/* The program's maps; borrowed. */
struct bpf_tables_maps {
	int tables_fd, rules_fd, codes_fd;
	size_t tables_bytes;
};

/* Return: 0; -ENOMEM; negative errno. */
int bpf_tables_new(const struct bpf_tables_maps *maps, struct bpf_tables **ret_tables);
void bpf_tables_free(struct bpf_tables *tables);

/* A process as of one reading of its mappings. */
struct bpf_tables_process {
	pid_t pid;
	uint64_t serial;  /* another one for another program at the same pid */
	uint64_t read_ns; /* when its mappings were read */
	const struct native_modules *modules;
};

/* Tells the program of a process: of its mappings, and of the tables of the files that are loaded. Does nothing where
 * it knows all that. Return: 0; -E2BIG: too many processes; -ENOMEM; negative errno: it knows nothing of the process.
 */
int bpf_tables_tell(struct bpf_tables *tables, const struct bpf_tables_process *process, uint64_t now_ns);

/* Whether what the program did with this telling (pyb_native.telling) was done with one of this process. */
bool bpf_tables_holds(const struct bpf_tables *tables, pid_t pid, uint64_t serial, uint32_t telling);

void bpf_tables_remove(struct bpf_tables *tables, pid_t pid, uint64_t now_ns);

/* How many bytes the tables in use have. */
size_t bpf_tables_used(const struct bpf_tables *tables);

#endif
