/* SPDX-License-Identifier: MIT */
/* Python frames into a native stack.
 *
 * Both stacks are cut into groups: the Python one behind each entry frame, the native one at each evaluation loop. When
 * both stacks are whole and have as many groups, they go together one by one. A difference of one is ordinary at the
 * newest end: a loop that has been entered and has not linked its frame yet, or that has unlinked it. So whole stacks
 * are matched from the oldest end on, and what is left over at the newest end is marked. Where one of them lacks its
 * oldest frames, the newest ends are what is known to belong together. */
#include "engine/native/merge.h"

#include <string.h>

enum merge_native merge_native_of(const char *symbol) {
	static const char eval[] = "_PyEval_EvalFrameDefault", part[] = "_TAIL_CALL_";
	size_t len = sizeof(eval) - 1;

	if (!symbol)
		return MERGE_OTHER;
	if (!strncmp(symbol, part, sizeof(part) - 1))
		return MERGE_EVAL_PART;
	/* ".cold", ".lto_priv.0" and the like are the same function */
	return !strncmp(symbol, eval, len) && (!symbol[len] || symbol[len] == '.') ? MERGE_EVAL : MERGE_OTHER;
}

struct merging {
	const struct merge_input *in;
	struct merge_frame *out;
	size_t n, unmatched;
	size_t python; /* the next one */
};

static void push(struct merging *m, enum merge_kind kind, size_t index, bool unmatched) {
	m->out[m->n++] =
		(struct merge_frame){ .kind = (uint8_t)kind, .unmatched = unmatched, .index = (uint32_t)index };
	m->unmatched += unmatched;
}

/* Python frames up to the next entry frame. */
static void push_group(struct merging *m, bool unmatched) {
	while (m->python < m->in->python_n) {
		size_t i = m->python++;

		push(m, MERGE_PYTHON, i, unmatched);
		if (m->in->entry[i])
			return;
	}
}

/* Frames of the interpreter's loop that stand for one call of it: parts, and the loop that they are parts of. Return:
 * how many from `at` on; 0: none. */
static size_t loop_at(const struct merge_input *in, size_t at) {
	size_t i = at;

	while (i < in->native_n && in->native[i] == MERGE_EVAL_PART)
		i++;
	return i < in->native_n && in->native[i] == MERGE_EVAL ? i + 1 - at : i - at;
}

static size_t count_loops(const struct merge_input *in) {
	size_t n = 0;

	for (size_t i = 0; i < in->native_n;) {
		size_t loop = loop_at(in, i);

		n += loop != 0;
		i += loop ? loop : 1;
	}
	return n;
}

static size_t count_groups(const struct merge_input *in) {
	size_t n = 0;

	for (size_t i = 0; i < in->python_n; i++)
		n += in->entry[i] || i + 1 == in->python_n;
	return n;
}

size_t merge_stacks(const struct merge_input *in, struct merge_frame *out, size_t *ret_unmatched) {
	struct merging m = { .in = in, .out = out };
	bool whole = in->native_complete && in->python_complete;
	size_t loops = count_loops(in), groups = count_groups(in), spare;

	for (spare = loops; whole && spare < groups; spare++)
		push_group(&m, true);
	spare = whole && loops > groups ? loops - groups : 0;
	for (size_t i = 0; i < in->native_n;) {
		size_t loop = loop_at(in, i);

		if (loop && !spare && m.python < in->python_n) {
			push_group(&m, false);
			i += loop;
			continue;
		}
		spare -= loop && spare;
		for (size_t end = i + (loop ? loop : 1); i < end; i++)
			push(&m, MERGE_NATIVE, i, loop != 0);
	}
	while (m.python < in->python_n)
		push_group(&m, true);
	*ret_unmatched = m.unmatched;
	return m.n;
}
