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

/* Bitmaps of opcode numbers of one minor version, specialised and instrumented forms included. */
struct opcode_row {
	uint32_t minor; /* version >> 16 */
	uint64_t call[4], light[4];
};
extern const struct opcode_row opcode_rows[];
extern const size_t opcode_rows_n;

/* Pure. */
enum opcode_kind opcode_kind_of(uint32_t version, uint8_t opcode);

/* The kind of the instruction that a frame stands at; OPCODE_OTHER where it cannot be read. */
enum opcode_kind opcode_kind_read(const struct py_runtime *rt, const struct py_raw_frame *frame);

#endif
