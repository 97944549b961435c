/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_OBJECTS_H
#define PYSPYD_OBJECTS_H

#include "pyspyd/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The objects near the frames, as a snapshot has them: pyspyd.objects/1. */

/* A variable, an attribute, an item. */
struct pyspyd_object_entry {
	char *name; /* of an item its key or index */
	char *type, *value;
	bool masked;
	uint64_t object; /* that stands among the objects; 0: it is not told further */
};

struct pyspyd_object {
	uint64_t address;
	char *type;
	struct pyspyd_object_entry *attributes, *items;
	size_t attributes_n, items_n;
	bool more; /* it has more of them */
};

struct pyspyd_object_frame {
	char *function; /* co_qualname */
	struct pyspyd_object_entry *variables;
	size_t variables_n;
};

struct pyspyd_object_thread {
	pid_t tid;
	struct pyspyd_object_frame *frames; /* those of Python, the innermost first */
	size_t frames_n;
};

struct pyspyd_objects {
	struct pyspyd_object_thread *threads;
	size_t threads_n;
	struct pyspyd_object *objects; /* by address */
	size_t objects_n;
	bool truncated;
};

/* Return: 0; -EBADMSG, with the member that is missing or not what it should be; -EPROTO: of a newer schema; -ENOMEM.
 */
int pyspyd_objects_of_json(const char *json, size_t len, struct pyspyd_objects **ret_objects, struct err *err);
void pyspyd_objects_free(struct pyspyd_objects *objects);

#endif
