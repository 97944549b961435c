/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_OBJECTS_TEXT_H
#define PYSPYD_FINDING_OBJECTS_TEXT_H

#include "engine/base/strbuf.h"
#include "pyspyd/objects.h"
#include "pyspyd/stack.h"

/* What the variables of a frame refer to, for people. */

struct objects_text {
	const struct pyspyd_objects *objects;
	bool *told; /* each object is shown once; NULL: out of memory */
	bool colour;
};

/* `objects` is borrowed, and may be NULL: nothing is shown then. */
void objects_text_init(struct objects_text *text, const struct pyspyd_objects *objects, bool colour);
void objects_text_deinit(struct objects_text *text);

/* What was seen of a thread, where it was the same stack. NULL: nothing. */
const struct pyspyd_object_thread *objects_text_thread(
	const struct objects_text *text, const struct pyspyd_thread *thread);

/* What a variable of that name leads to, below its own line: at most so many lines, which are taken off *lines_left. */
void objects_text_add(struct objects_text *text, struct strbuf *sb, const struct pyspyd_object_frame *frame,
	const char *name, size_t *lines_left);

#endif
