/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_MERGE_H
#define PYSPYD_NATIVE_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One stack out of a native and a Python one. Sees plain arrays, so that whatever made them (a read, a stop, eBPF, a
 * core) goes the same way.
 *
 * The C function that runs Python code stands on the native stack once for one or many Python frames: up to 3.10 for
 * each one, later for all from the newest down to the next "entry" frame. Where it stands, those Python frames are put,
 * in its place. */

/* What a native frame is to the interpreter. */
enum merge_native {
	MERGE_OTHER,
	MERGE_EVAL,      /* the evaluation loop: Python frames belong here */
	MERGE_EVAL_PART, /* an instruction of an interpreter made of tail calls (3.14+): stands above the loop, or in
			    its place */
};

/* By the function's name as the file has it (native_place.symbol; NULL: not known). */
enum merge_native merge_native_of(const char *symbol);

enum merge_kind {
	MERGE_NATIVE,
	MERGE_PYTHON,
};

struct merge_frame {
	uint8_t kind;   /* enum merge_kind */
	bool unmatched; /* an evaluation loop without a Python frame, or a Python frame without a loop: their place
			   among each other is a guess */
	uint32_t index; /* in the array that it came from */
};

struct merge_input {
	const uint8_t *native; /* enum merge_native each, most recent call first */
	size_t native_n;
	bool native_complete; /* it goes to the thread's first function */
	const bool *entry;    /* of each Python frame, most recent call first */
	size_t python_n;
	bool python_complete;
};

/* Merges; `out` has room for native_n + python_n. A stack that is not complete lacks its oldest frames. Nothing is
 * dropped but matched evaluation loops. Return: the number of frames. *ret_unmatched: how many of them are marked. */
size_t merge_stacks(const struct merge_input *in, struct merge_frame *out, size_t *ret_unmatched);

#endif
