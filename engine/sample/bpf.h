/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_BPF_H
#define PYSPYD_SAMPLE_BPF_H

#include "pyspyd/err.h"
#include <stddef.h>

/* What all eBPF programs need of user space. */

/* Before the first program is opened: the library's own messages are kept as the reason for a failure, not printed, and
 * kernels before 5.11 are allowed to account for the maps. */
void bpf_prepare(void);

/* Runs a program of the type raw_tp once, here, by hand. Return: 0; negative errno. */
int bpf_run_here(int prog_fd);

/* How many pids there can be: they are less than this. */
unsigned bpf_pids_max(void);

/* Puts what the kernel and the library said last behind "what: ". `r` is a negative errno of the library.
 * Return: PYSPYD_E_DENIED where privileges are missing (CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN);
 * PYSPYD_E_UNSUPPORTED where the kernel cannot. */
int bpf_explain(struct err *err, int r, const char *what);

#endif
