/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_CORE_READER_H
#define PYSPYD_DAEMON_CORE_READER_H

#include "daemon/coredump_entry.h"
#include "pyspyd/err.h"
#include <stdbool.h>
#include <stdint.h>

/* Reads cores for the service, in a process of its own that is made before the service gives up making any. The event
 * loop's alone; nothing here waits. */

struct core_reader;

/* Before the capabilities are dropped, and before any thread is made. Return: 0; negative errno. */
int core_reader_new(struct core_reader **ret_reader);
void core_reader_free(struct core_reader *reader); /* ends its process, in the middle of its work too */

/* The descriptor that has to stay open; NULL: -1. */
int core_reader_fd(const struct core_reader *reader);

struct core_reader_bounds {
	const char *folder;   /* where the copy of the core is made */
	uint64_t max_core;    /* bytes, packed */
	uint64_t deadline_ns; /* of the reading itself */
};

/* One at a time. The core is copied from the descriptor; the entry says whose it is. Return: 0: it was begun; -EAGAIN:
 * another one is being read; other negative errno: the reader is gone. */
int core_reader_begin(struct core_reader *reader, int core_fd, const struct coredump_entry *entry,
	const struct core_reader_bounds *bounds);

/* Return: 1: it is done, *ret_json is the finding, the caller's; 0: not yet, or nothing was begun; -ENODATA: it is
 * done, and the core could not be read; other negative errno: the reader is gone. */
int core_reader_take(struct core_reader *reader, char **ret_json, struct err *err);

#endif
