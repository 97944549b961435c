/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PS_H
#define PYSPYD_PS_H

#include "pyspyd/err.h"
#include "pyspyd/stack.h"

/* The Python processes of this host. */

struct pyspyd_ps_row {
	struct pyspyd_process process;
	char *user;                       /* name of the uid, or its number */
	double cpu_percent;               /* over its life */
	uint64_t rss_bytes, threads, fds; /* UINT64_MAX: not known */
	uint64_t findings_open;           /* as the service says; UINT64_MAX: there is none to ask */
	bool attachable;
	char *why_not; /* one line, "" where attachable */
};

/* Lists processes that are Python, or that look like it and may not be read; findings_open is the caller's to fill.
 * Return: 0; negative errno. The rows are the caller's. */
int pyspyd_ps(struct pyspyd_ps_row **ret_rows, size_t *ret_n, struct err *err);
void pyspyd_ps_free(struct pyspyd_ps_row *rows, size_t n);

/* pyspyd.ps/1, one line; the caller's to free(). */
char *pyspyd_ps_json(const struct pyspyd_ps_row *rows, size_t n);

#endif
