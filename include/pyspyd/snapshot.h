/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SNAPSHOT_H
#define PYSPYD_SNAPSHOT_H

#include "pyspyd/dump.h"
#include "pyspyd/flight.h"
#include "pyspyd/handles.h"
#include "pyspyd/heap.h"
#include "pyspyd/modules.h"
#include "pyspyd/waits.h"

/* Everything about a process in one file, to be read elsewhere and later (docs/snapshot.md). */

/* What a file is made of, by the name of its section. */
#define PYSPYD_SNAPSHOT_DUMP "dump"
#define PYSPYD_SNAPSHOT_WAITS "waits"
#define PYSPYD_SNAPSHOT_HANDLES "handles"
#define PYSPYD_SNAPSHOT_MODULES "modules"
#define PYSPYD_SNAPSHOT_HEAP "heap"
#define PYSPYD_SNAPSHOT_COUNTERS "counters" /* pyspyd.ps/1, with one row */
#define PYSPYD_SNAPSHOT_MAPS "maps"
#define PYSPYD_SNAPSHOT_OBJECTS "objects"
#define PYSPYD_SNAPSHOT_META "meta"

struct pyspyd_snapshot_options {
	bool unmask;                    /* show values that are masked by name */
	bool blocking;                  /* stop the threads while their stacks are read; never longer than 100 ms */
	struct pyspyd_core_source core; /* with a file: the process in it, and `pid` does not matter */
	/* Called before each part; true: enough, the rest is left out. NULL: nobody asks. */
	bool (*progress)(void *userdata, const char *part);
	/* Called for each part that could not be taken. NULL: nobody asks. */
	void (*missing)(void *userdata, const char *part, const struct err *err);
	void *userdata;
};

/* Looks at a process and writes what it sees to fd, part by part, the longest look last. A part that could not be
 * taken is in the file with the reason; what a core cannot have (counters, handles) is not. Return: 0; what the first
 * part gave that could not be taken, where others could: the file is whole; with *ret_taken false where none could be
 * taken: there is no file. */
int pyspyd_snapshot_take(
	pid_t pid, const struct pyspyd_snapshot_options *options, int fd, bool *ret_taken, struct err *err);

struct pyspyd_snapshot;

/* Return: 0; -EBADMSG: it is none, damaged or cut off; -EPROTO: of a newer version; negative errno; all with a text. */
int pyspyd_snapshot_open(const char *file_name, struct pyspyd_snapshot **ret_snapshot, struct err *err);
void pyspyd_snapshot_close(struct pyspyd_snapshot *snapshot);

/* A section as it stands in the file, its bytes checked. Return: 0, the caller's to free(); for a part that could not
 * be taken what taking it gave, with that text; -ENOENT: the file has no such section; -EBADMSG; -ENOMEM. */
int pyspyd_snapshot_section(
	struct pyspyd_snapshot *snapshot, const char *name, char **ret_json, size_t *ret_len, struct err *err);

/* What the file holds: pyspyd.snapshot/1, and text for people. NULL when out of memory. */
char *pyspyd_snapshot_json(const struct pyspyd_snapshot *snapshot);
char *pyspyd_snapshot_text(const struct pyspyd_snapshot *snapshot);

/* The parts as the functions that look at a live process give them. Options that only a look can fulfil do not matter;
 * the others leave out what was not asked for. Return: as pyspyd_snapshot_section. */
int pyspyd_snapshot_dump(struct pyspyd_snapshot *snapshot, const struct pyspyd_dump_options *options,
	struct pyspyd_dump **ret_dump, struct err *err);
int pyspyd_snapshot_waits(struct pyspyd_snapshot *snapshot, const struct pyspyd_waits_options *options,
	struct pyspyd_waits **ret_waits, struct err *err);
int pyspyd_snapshot_heap(struct pyspyd_snapshot *snapshot, const struct pyspyd_heap_options *options,
	struct pyspyd_heap **ret_heap, struct err *err);
int pyspyd_snapshot_modules(struct pyspyd_snapshot *snapshot, const struct pyspyd_modules_options *options,
	struct pyspyd_modules **ret_modules, struct err *err);
int pyspyd_snapshot_handles(struct pyspyd_snapshot *snapshot, struct pyspyd_handles **ret_handles, struct err *err);

/* The stacks of all threads as a profile of one sample each, with native frames where `native`. Return: as
 * pyspyd_snapshot_section; PYSPYD_E_USAGE (format). */
int pyspyd_snapshot_profile(struct pyspyd_snapshot *snapshot, bool native, const struct pyspyd_flight_options *options,
	int fd, struct err *err);

/* Documents of the schemas dump/1, waits/1, heap/1, modules/1 and handles/1 back into what they were made of: written
 * again they are the same bytes. Return: 0; -EBADMSG, with the member that is missing or not what it should be;
 * -EPROTO: of a newer schema; -ENOMEM. */
int pyspyd_dump_of_json(const char *json, size_t len, struct pyspyd_dump **ret_dump, struct err *err);
int pyspyd_waits_of_json(const char *json, size_t len, struct pyspyd_waits **ret_waits, struct err *err);
int pyspyd_heap_of_json(const char *json, size_t len, struct pyspyd_heap **ret_heap, struct err *err);
int pyspyd_modules_of_json(const char *json, size_t len, struct pyspyd_modules **ret_modules, struct err *err);
int pyspyd_handles_of_json(const char *json, size_t len, struct pyspyd_handles **ret_handles, struct err *err);

#endif
