/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_LEAKS_CREATED_H
#define PYSPYD_LEAKS_CREATED_H

#include "engine/base/vec.h"
#include "pyspyd/handles.h"

/* Things that were seen to be made, grouped by where. Pure. */

#define CREATED_NO_STACK SIZE_MAX

struct created_thing {
	enum pyspyd_handle_what what;
	const char *kind, *call; /* static */
	uint64_t id, bytes, age_ns;
	size_t stack;  /* of the caller's; CREATED_NO_STACK */
	size_t origin; /* set by created_places */
};
typedef VEC(struct created_thing) created_things;

/* Mappings that lie in each other, as those of a library do, are cut so that no address counts twice. */
void created_cut_mappings(created_things *things);

/* Sorts the things by what and id, and makes places of them; frames are the caller's to fill in, from the stack of the
 * place, (*ret_stacks)[i]. Return: 0; -ENOMEM. *ret_places is the caller's to pyspyd_origin_places_free, *ret_stacks to
 * free. */
int created_places(created_things *things, struct pyspyd_origin **ret_places, size_t **ret_stacks, size_t *ret_n);

/* Index of the innermost frame that is not the standard library's; 0 where all are. */
size_t created_own_frame(const struct pyspyd_frame *frames, size_t n);

/* The kind of what a call makes, where nobody has looked at it: "socket". */
const char *created_kind_of_call(const char *call);

#endif
