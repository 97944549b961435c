/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_OPCODES_H
#define PYSPYD_CPYTHON_OPCODES_H

#include "engine/cpython/code.h"

/* What kind of instruction a frame stands at: says whether its thread is in native code that Python called. */

enum opcode_kind {
	OPCODE_OTHER,
	OPCODE_CALL,  /* the innermost frame stands at a call: what was called is native, since a Python function would
			 have its own frame */
	OPCODE_LIGHT, /* jumps, loads and stores: never long in native code */
};

/* What instructions do, as far as somebody who walks over bytecode needs to know. */
enum opcode_operation {
	OPCODE_DO_UNKNOWN, /* no instruction of this version, or one that stands in for another (a tracer's, a
			      compiler's): where the next one begins is not known */
	OPCODE_DO_OTHER,
	OPCODE_DO_EXTEND,          /* EXTENDED_ARG: higher bits of the next one's argument */
	OPCODE_DO_LOAD_FAST,       /* variable */
	OPCODE_DO_LOAD_FAST_PAIR,  /* two variables, the upper one's number in the low four bits */
	OPCODE_DO_STORE_FAST,      /* or deletes */
	OPCODE_DO_STORE_FAST_PAIR, /* two */
	OPCODE_DO_STORE_LOAD_FAST, /* stores the variable of the high bits, loads that of the low four */
	OPCODE_DO_LOAD_DEREF,
	OPCODE_DO_LOAD_NAME, /* global, or of a class body's or a module's namespace */
	OPCODE_DO_LOAD_ATTR,
	OPCODE_DO_LOAD_METHOD, /* an attribute that is called: two slots of the stack */
	OPCODE_DO_PUSH_NULL,
	OPCODE_DO_CALL, /* that takes callable and arguments off the stack */
	OPCODE_DO_GET_AWAITABLE,
	OPCODE_DO_AWAIT, /* those that follow it until the awaited thing is done */
	OPCODE_DO_LEAVE, /* never goes on to the next one: jumps, returns, raises */
};
enum opcode_jump { OPCODE_JUMP_NONE, OPCODE_JUMP_FORWARD, OPCODE_JUMP_TO }; /* backward ones are not told */
struct opcode_step {
	uint8_t operation; /* enum opcode_operation */
	uint8_t caches;    /* code units after it that are none */
	uint8_t jump;      /* enum opcode_jump */
	bool effect_known; /* on the depth of the stack, where it does not jump: effect + effect_each * argument +
			      effect_low_bit * lowest bit of the argument */
	int8_t effect, effect_each;
	int8_t effect_low_bit; /* of a load other than 0: the lowest bit says something else, the number is in the
				  others */
};
extern const struct opcode_step opcode_steps[];

/* One minor version, specialised and instrumented forms included. */
struct opcode_row {
	uint32_t minor;             /* version >> 16 */
	uint8_t jump_bytes;         /* unit of a jump's argument */
	uint64_t call[4], light[4]; /* bitmaps of opcode numbers */
	uint8_t step[256];          /* of each opcode: index into opcode_steps */
};
extern const struct opcode_row opcode_rows[];
extern const size_t opcode_rows_n;

/* Pure. The row of a version; NULL where there is none. */
const struct opcode_row *opcode_row_of(uint32_t version);

/* Pure. */
enum opcode_kind opcode_kind_of(uint32_t version, uint8_t opcode);

/* The kind of the instruction that a frame stands at; OPCODE_OTHER where it cannot be read. */
enum opcode_kind opcode_kind_read(const struct py_runtime *rt, const struct py_raw_frame *frame);

#endif
