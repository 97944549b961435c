/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_HANDLES_KINDS_H
#define PYSPYD_FINDING_HANDLES_KINDS_H

#include "pyspyd/handles.h"

extern const char *const handles_what_names[PYSPYD_HANDLE_MAPPING + 1]; /* of pyspyd.handles/1 */

/* The groups of one kind, which stand together. */
struct handles_kind {
	enum pyspyd_handle_what what;
	const char *kind;
	const struct pyspyd_handle_group *groups;
	size_t n;
	uint64_t count, bytes;
	int64_t grew, grew_bytes;
};

/* Sums up the kind that begins at groups[at]. Return: where the next one begins; 0 where there is none at `at`. */
size_t handles_kind_at(const struct pyspyd_handles *handles, size_t at, struct handles_kind *ret_kind);

#endif
