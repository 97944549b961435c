/* SPDX-License-Identifier: MIT */
/* Kinds of instructions, from a generated table. */
#include "engine/cpython/opcodes.h"

static bool is_set(const uint64_t *bitmap, uint8_t opcode) {
	return bitmap[opcode / 64] >> opcode % 64 & 1;
}

const struct opcode_row *opcode_row_of(uint32_t version) {
	for (size_t i = 0; i < opcode_rows_n; i++)
		if (opcode_rows[i].minor == PY_MINOR(version))
			return &opcode_rows[i];
	return NULL;
}

enum opcode_kind opcode_kind_of(uint32_t version, uint8_t opcode) {
	const struct opcode_row *row = opcode_row_of(version);

	if (!row)
		return OPCODE_OTHER;
	return is_set(row->call, opcode) ? OPCODE_CALL : is_set(row->light, opcode) ? OPCODE_LIGHT : OPCODE_OTHER;
}

/* Where the instruction lies in memory; 0 where it has not begun. */
static raddr instruction_addr(const struct py_runtime *rt, const struct py_raw_frame *frame) {
	const struct layout *l = &rt->reader.layout;
	uint64_t bytecode;

	if (!layout_has(l->frame_lasti))
		return (raddr)frame->instr;
	if (frame->instr < 0 || mem_read_u64(rt->reader.mem, frame->code + l->code_code, &bytecode))
		return 0;
	return bytecode + l->bytes_data + (uint64_t)frame->instr;
}

enum opcode_kind opcode_kind_read(const struct py_runtime *rt, const struct py_raw_frame *frame) {
	raddr addr = instruction_addr(rt, frame);
	uint8_t opcode;

	if (!addr || mem_read(rt->reader.mem, addr, &opcode, 1))
		return OPCODE_OTHER;
	return opcode_kind_of(rt->reader.version, opcode);
}
