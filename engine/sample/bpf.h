/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_BPF_H
#define PYSPYD_SAMPLE_BPF_H

#include "pyspyd/err.h"
#include <stdbool.h>
#include <stddef.h>

/* What all eBPF programs need of user space. */

/* Before programs are opened, and before they are once more: the library's own messages are kept as the reason for a
 * failure, not printed, and kernels before 5.11 are allowed to account for the maps. */
void bpf_prepare(void);

/* Runs a program of the type raw_tp once, here, by hand. Return: 0; negative errno. */
int bpf_run_here(int prog_fd);

/* How many pids there can be: they are less than this. */
unsigned bpf_pids_max(void);

/* What the kernel's verifier complains of, in a message of the library that has its log: the last line before its sums.
 * Return: whether there is such a line; then it is in `buf`, cut off where it is longer. */
bool bpf_complaint(const char *message, char *buf, size_t size);

/* Puts what the kernel and the library said last behind "what: ". `r` is a negative errno of the library.
 * Return: PYSPYD_E_DENIED where privileges are missing (CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN);
 * PYSPYD_E_UNSUPPORTED where the kernel cannot. */
int bpf_explain(struct err *err, int r, const char *what);

#endif
