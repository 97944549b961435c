/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_BLOCKS_H
#define PYSPYD_CPYTHON_BLOCKS_H

#include "engine/cpython/frames.h"

/* What a frame is inside of: its `with` blocks, exactly, by the slots of the value stack that are live at its
 * instruction; and what else lies on that stack.
 *
 * A `with` statement keeps the manager's __exit__ on the value stack while its body runs. Which slots are live the
 * exception table tells (3.11+: the depth of the entry that covers the instruction), before that the stack of blocks
 * (b_level). A manager whose __enter__ has not returned yet, or whose __exit__ was called, is not among them; nor is
 * one whose __exit__ is neither a method nor a function. */

#define PY_BLOCKS_MAX 64 /* with blocks of one frame that are told */

struct py_block {
	raddr manager; /* the object whose __exit__ or __aexit__ it is */
	bool is_async;
};

/* Cached by code object (exception tables are read once). One per target. */
struct py_block_cache;
int py_block_cache_new(const struct py_runtime *rt, struct py_block_cache **ret_cache); /* Return: 0; -ENOMEM */
void py_block_cache_free(struct py_block_cache *cache);

/* The with blocks that a frame is in, outermost first; at most PY_BLOCKS_MAX into ret_blocks. `code_serial` and
 * `offset` (bytes) as code.h tells them. The frame must stand still, or be suspended. Return: 0; PY_E_TORN; MEM_E_*;
 * -ENOMEM. */
int py_blocks_read(struct py_block_cache *cache, const struct py_raw_frame *frame, uint64_t code_serial, int64_t offset,
	struct py_block *ret_blocks, size_t *ret_n);

/* References on the value stack of a frame: every slot up to the code's stack size that looks like a pointer to an
 * object, live or left over, topmost last; for looking up an object whose identity something else proves. Return: 0;
 * MEM_E_*. */
int py_stack_references(
	const struct py_runtime *rt, const struct py_raw_frame *frame, raddr *ret_objects, size_t max, size_t *ret_n);

/* Generators, coroutines and asynchronous generators. */
enum py_gen_state { PY_GEN_CREATED, PY_GEN_SUSPENDED, PY_GEN_RUNNING, PY_GEN_DONE };
struct py_gen {
	enum py_gen_state state;
	struct py_raw_frame frame; /* not with DONE */
	raddr awaits;         /* the object that it is suspended in `await` or `yield from` of; 0 none, or not told */
	uint32_t depth_limit; /* slots of its value stack */
};

/* Return: 0; PY_E_TYPE: none of these; PY_E_TORN; MEM_E_*. */
int py_gen_read(const struct py_runtime *rt, raddr object, struct py_gen *ret_gen);

/* What a bound method, a built-in method or a partial application is about. Return: 0 with *ret_self (0 none) and the
 * function's name; PY_E_TYPE; MEM_E_*. */
int py_callable_read(const struct py_reader *py, raddr object, raddr *ret_self, char *name, size_t name_size);

#endif
