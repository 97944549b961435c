/* SPDX-License-Identifier: MIT */
/* A small reader of x86-64 code: how long an instruction is, and what becomes of the registers on a straight way
 * through. Of each register is known that it holds another one's first value, a constant, or what stands at one of
 * these; whatever is not understood makes what it writes unknown, or ends the way.
 *
 * The kernel emulates few instructions at a probe; all others it steps over in a copy of them, which takes two more
 * exceptions, each of many microseconds in a virtual machine. So a probe stands at one of the few.
 *
 * Not read: VEX and EVEX codes, three-byte opcodes, 16-bit addresses. */
#include "engine/sample/alloc_code.h"

#include "engine/base/util.h"
#include <errno.h>
#include <string.h>

#define REGS 16
#define RSP 4
#define WAY_MAX 24 /* instructions of one way */

enum { RAX, RCX, RDX, RBX, RSI = 6, RDI = 7 };

enum value_kind {
	UNKNOWN,
	FIRST,    /* what register `reg` held at first, plus disp */
	CONSTANT, /* disp */
	AT_FIRST, /* the word at FIRST */
	AT_CONSTANT,
};

struct value {
	enum value_kind kind;
	uint8_t reg;
	int64_t disp;
};

struct insn {
	size_t len;
	uint8_t opcode, map; /* map 0, or 0x0f */
	bool wide;           /* 64 bits */
	bool has_modrm;
	uint8_t mod, reg, rm;
	bool memory;  /* the operand of modrm is in memory … */
	bool rip;     /* … relative to the next instruction */
	bool indexed; /* … with an index, or a segment's base */
	uint8_t base; /* ALLOC_NO_REG: none */
	int32_t disp;
	int64_t imm;
	uint8_t rex;
	bool prefix66, prefix_rep, segment;
};

static bool read_le(const uint8_t *code, size_t n, size_t *at, size_t len, int64_t *ret) {
	uint64_t v = 0;

	if (len > n || *at > n - len)
		return false;
	memcpy(&v, code + *at, len);
	*at += len;
	*ret = len == 8 || len == 0 ? (int64_t)v : (int64_t)(v << (64 - 8 * len)) >> (64 - 8 * len);
	return true;
}

static bool in(uint8_t x, uint8_t first, uint8_t last) {
	return x >= first && x <= last;
}

/* Return: bytes of the immediate operand, without modrm's part in that; -1: not known. */
static int shape_one(const struct insn *i, bool *modrm) {
	uint8_t op = i->opcode;
	int word = i->prefix66 ? 2 : 4;

	*modrm = false;
	if (op < 0x40) {
		*modrm = (op & 7) < 4;
		return (op & 7) < 4 ? 0 : (op & 7) == 4 ? 1 : (op & 7) == 5 ? word : -1;
	}
	if (in(op, 0x50, 0x5f) || in(op, 0x90, 0x99) || op == 0xc3 || op == 0xc9 || op == 0xcc)
		return 0;
	if (op == 0x6a || in(op, 0x70, 0x7f) || op == 0xa8 || in(op, 0xb0, 0xb7) || op == 0xeb)
		return 1;
	if (op == 0x68 || op == 0xa9)
		return word;
	if (in(op, 0xb8, 0xbf))
		return i->wide ? 8 : word;
	if (op == 0xe8 || op == 0xe9)
		return 4;
	*modrm = true;
	if (op == 0x63 || in(op, 0x84, 0x8b) || op == 0x8d || op == 0x8f || in(op, 0xd0, 0xd3) || in(op, 0xf6, 0xf7) ||
		in(op, 0xfe, 0xff))
		return 0;
	if (op == 0x6b || op == 0x80 || op == 0x83 || op == 0xc0 || op == 0xc1 || op == 0xc6)
		return 1;
	if (op == 0x69 || op == 0x81 || op == 0xc7)
		return word;
	return -1;
}

static int shape_two(const struct insn *i, bool *modrm) {
	uint8_t op = i->opcode;

	*modrm = false;
	if (op == 0x05 || op == 0x0b || op == 0xa2 || in(op, 0xc8, 0xcf))
		return 0;
	if (in(op, 0x80, 0x8f))
		return 4;
	*modrm = true;
	if (in(op, 0x70, 0x73) || op == 0xa4 || op == 0xac || op == 0xba || op == 0xc2 || in(op, 0xc4, 0xc6))
		return 1;
	if (in(op, 0x10, 0x1f) || in(op, 0x28, 0x2f) || in(op, 0x40, 0x6f) || in(op, 0x74, 0x76) ||
		in(op, 0x7e, 0x7f) || in(op, 0x90, 0x9f) || op == 0xa3 || op == 0xa5 || op == 0xab ||
		in(op, 0xad, 0xb1) || in(op, 0xb3, 0xb3) || in(op, 0xb6, 0xb9) || in(op, 0xbb, 0xc1) || op == 0xc7 ||
		in(op, 0xd0, 0xfe))
		return 0;
	return -1;
}

static bool read_modrm(const uint8_t *code, size_t n, size_t *at, struct insn *i) {
	int64_t disp = 0;
	uint8_t sib;

	if (*at >= n)
		return false;
	i->mod = code[*at] >> 6;
	i->reg = (uint8_t)((code[*at] >> 3 & 7) | (i->rex & 4) << 1);
	i->rm = code[*at] & 7;
	++*at;
	i->memory = i->mod != 3;
	i->base = (uint8_t)(i->rm | (i->rex & 1) << 3);
	if (i->memory && i->rm == 4) {
		if (*at >= n)
			return false;
		sib = code[(*at)++];
		i->indexed = ((sib >> 3 & 7) | (i->rex & 2) << 2) != 4;
		i->base = (uint8_t)((sib & 7) | (i->rex & 1) << 3);
		if ((sib & 7) == 5 && i->mod == 0) {
			i->base = ALLOC_NO_REG;
			if (!read_le(code, n, at, 4, &disp))
				return false;
		}
	} else if (i->memory && i->rm == 5 && i->mod == 0) {
		i->rip = true;
		i->base = ALLOC_NO_REG;
		if (!read_le(code, n, at, 4, &disp))
			return false;
	}
	if ((i->mod == 1 || i->mod == 2) && !read_le(code, n, at, i->mod == 1 ? 1 : 4, &disp))
		return false;
	i->rm = (uint8_t)(i->rm | (i->rex & 1) << 3);
	i->disp = (int32_t)disp;
	i->indexed |= i->memory && i->segment;
	return true;
}

static size_t read_prefixes(const uint8_t *code, size_t n, struct insn *i) {
	size_t at = 0;

	while (at < n && at < 14) {
		uint8_t c = code[at];

		if (c == 0x66)
			i->prefix66 = true;
		else if (c == 0xf2 || c == 0xf3)
			i->prefix_rep = true;
		else if (c == 0x64 || c == 0x65)
			i->segment = true;
		else if (c != 0x2e && c != 0x3e && c != 0x26 && c != 0x36)
			break;
		at++;
	}
	if (at < n && in(code[at], 0x40, 0x4f))
		i->rex = code[at++];
	i->wide = i->rex & 8;
	return at;
}

static bool decode(const uint8_t *code, size_t n, struct insn *ret) {
	struct insn i = { .base = ALLOC_NO_REG };
	size_t at = read_prefixes(code, n, &i);
	int imm;

	if (at >= n)
		return false;
	i.opcode = code[at++];
	if (i.opcode == 0x0f) {
		if (at >= n)
			return false;
		i.map = 0x0f;
		i.opcode = code[at++];
	}
	imm = i.map ? shape_two(&i, &i.has_modrm) : shape_one(&i, &i.has_modrm);
	if (imm < 0 || (i.has_modrm && !read_modrm(code, n, &at, &i)))
		return false;
	if (!i.map && in(i.opcode, 0xf6, 0xf7) && (i.reg & 7) < 2)
		imm = i.opcode == 0xf6 ? 1 : i.prefix66 ? 2 : 4;
	if (!read_le(code, n, &at, (size_t)imm, &i.imm))
		return false;
	i.len = at;
	*ret = i;
	return true;
}

size_t alloc_instruction_bytes(const uint8_t *code, size_t n) {
	struct insn i;

	return decode(code, n, &i) ? i.len : 0;
}

static bool is_jcc(const struct insn *i) {
	return i->map ? in(i->opcode, 0x80, 0x8f) : in(i->opcode, 0x70, 0x7f);
}

static bool is_jmp(const struct insn *i) {
	return !i->map && (i->opcode == 0xeb || i->opcode == 0xe9);
}

/* call or jmp through a pointer */
static bool is_indirect(const struct insn *i) {
	return !i->map && i->opcode == 0xff && ((i->reg & 7) == 2 || (i->reg & 7) == 4);
}

static bool is_cmp(const struct insn *i) {
	return !i->map && ((i->opcode & 0xf8) == 0x38 || (in(i->opcode, 0x80, 0x83) && (i->reg & 7) == 7));
}

static bool is_emulated(const struct insn *i) {
	if (i->prefix66 || i->prefix_rep || i->segment)
		return false;
	if (!i->map && in(i->opcode, 0x50, 0x57))
		return !i->rex || i->rex == 0x41;
	return is_jcc(i) || is_jmp(i) || (!i->map && i->opcode == 0x90 && !i->rex);
}

/* Where the straight way ends. */
static bool ends_way(const struct insn *i) {
	return is_indirect(i) || (!i->map && (i->opcode == 0xc3 || i->opcode == 0xcc || i->opcode == 0xe8)) ||
		(i->map && (i->opcode == 0x0b || i->opcode == 0x05));
}

struct state {
	struct value regs[REGS];
	uint64_t at; /* address of the next instruction */
};

static void state_init(struct state *s, uint64_t at) {
	for (uint8_t r = 0; r < REGS; r++)
		s->regs[r] = (struct value){ .kind = FIRST, .reg = r };
	s->at = at;
}

/* Round the end of the address space, as the processor adds. */
static int64_t plus(int64_t a, int64_t b) {
	return (int64_t)((uint64_t)a + (uint64_t)b);
}

static int64_t minus(int64_t a, int64_t b) {
	return (int64_t)((uint64_t)a - (uint64_t)b);
}

/* Where the memory operand is: FIRST, CONSTANT, or AT_CONSTANT with the rest in *ret_disp. */
static struct value address_of(const struct state *s, const struct insn *i, int32_t *ret_disp) {
	struct value v = { .kind = CONSTANT };

	*ret_disp = 0;
	if (i->indexed)
		return (struct value){ 0 };
	if (i->rip) {
		v.disp = plus((int64_t)(s->at + i->len), i->disp);
		return v;
	}
	if (i->base == ALLOC_NO_REG)
		v.disp = i->disp;
	else if (s->regs[i->base].kind == AT_CONSTANT) {
		v = s->regs[i->base];
		*ret_disp = i->disp;
	} else {
		v = s->regs[i->base];
		v.disp = plus(v.disp, i->disp);
	}
	return v.kind == AT_FIRST ? (struct value){ 0 } : v;
}

static struct value loaded(const struct state *s, const struct insn *i) {
	int32_t rest;
	struct value v = address_of(s, i, &rest);

	if (!i->wide)
		return (struct value){ 0 };
	v.kind = v.kind == FIRST ? AT_FIRST : v.kind == CONSTANT ? AT_CONSTANT : UNKNOWN;
	return v;
}

static struct value source(const struct state *s, const struct insn *i) {
	if (i->memory)
		return loaded(s, i);
	return i->wide ? s->regs[i->rm] : (struct value){ 0 };
}

static struct value lea(const struct state *s, const struct insn *i) {
	int32_t rest;
	struct value v = address_of(s, i, &rest);

	return i->wide && (v.kind == FIRST || v.kind == CONSTANT) ? v : (struct value){ 0 };
}

static void set(struct state *s, uint8_t reg, struct value v) {
	s->regs[reg & (REGS - 1)] = v;
}

static void forget(struct state *s, uint8_t reg) {
	set(s, reg, (struct value){ 0 });
}

static void forget_rm(struct state *s, const struct insn *i) {
	if (!i->memory)
		forget(s, i->rm);
}

/* Instructions of the groups that take an immediate: add and sub keep what is known. */
static void step_group(struct state *s, const struct insn *i) {
	uint8_t what = i->reg & 7;
	struct value *v = &s->regs[i->rm];

	if (i->memory || what == 7)
		return;
	if ((what == 0 || what == 5) && i->wide && (v->kind == FIRST || v->kind == CONSTANT))
		v->disp = what == 0 ? plus(v->disp, i->imm) : minus(v->disp, i->imm);
	else
		forget(s, i->rm);
}

static void step_alu(struct state *s, const struct insn *i) {
	bool same = i->has_modrm && !i->memory && i->reg == i->rm;

	if ((i->opcode & 0xf8) == 0x38)
		return; /* cmp */
	if ((i->opcode & 0xfe) == 0x30 && same)
		set(s, i->rm, (struct value){ .kind = CONSTANT });
	else if (!i->has_modrm)
		forget(s, RAX);
	else if (i->opcode & 2)
		forget(s, i->reg);
	else
		forget_rm(s, i);
}

static void step_unary(struct state *s, const struct insn *i) {
	uint8_t what = i->reg & 7;

	if (in(i->opcode, 0xf6, 0xf7) && what >= 4) {
		forget(s, RAX);
		forget(s, RDX);
	} else if (!in(i->opcode, 0xf6, 0xf7) || what >= 2) {
		forget_rm(s, i);
	}
}

static void step_two(struct state *s, const struct insn *i) {
	if (in(i->opcode, 0x18, 0x1f) || in(i->opcode, 0x80, 0x8f) || !i->has_modrm)
		return; /* nops, jumps; what is without modrm ends the way, or is bswap */
	if (in(i->opcode, 0x90, 0x9f)) {
		forget_rm(s, i);
		return;
	}
	forget(s, i->reg);
	if (!in(i->opcode, 0x40, 0x4f) && i->opcode != 0xaf &&
		(i->opcode & 0xf6) != 0xb6) /* cmov, imul, movzx, movsx */
		forget_rm(s, i);
}

static void step_immediate(struct state *s, const struct insn *i, uint8_t reg) {
	int64_t value = i->wide ? i->imm : (int64_t)(uint32_t)i->imm;

	set(s, reg, (struct value){ .kind = i->prefix66 ? UNKNOWN : CONSTANT, .disp = value });
}

static void step_one(struct state *s, const struct insn *i) {
	uint8_t op = i->opcode, low = (uint8_t)((op & 7) | (i->rex & 1) << 3);

	if (op < 0x40)
		step_alu(s, i);
	else if (in(op, 0x50, 0x57))
		s->regs[RSP].disp = minus(s->regs[RSP].disp, 8);
	else if (in(op, 0x58, 0x5f)) {
		s->regs[RSP].disp = plus(s->regs[RSP].disp, 8);
		forget(s, low);
	} else if (in(op, 0x80, 0x83))
		step_group(s, i);
	else if (op == 0x8b)
		set(s, i->reg, source(s, i));
	else if (op == 0x8d)
		set(s, i->reg, lea(s, i));
	else if (op == 0x89 && !i->memory)
		set(s, i->rm, i->wide ? s->regs[i->reg] : (struct value){ 0 });
	else if (in(op, 0xb8, 0xbf))
		step_immediate(s, i, low);
	else if (op == 0xc7 && !i->memory)
		step_immediate(s, i, i->rm);
	else if (op == 0x63 || op == 0x69 || op == 0x6b || op == 0x8a)
		forget(s, i->reg);
	else if (in(op, 0xf6, 0xf7) || in(op, 0xfe, 0xff))
		step_unary(s, i);
	else if (op == 0x86 || op == 0x87) {
		forget(s, i->reg);
		forget_rm(s, i);
	} else if (in(op, 0x91, 0x97)) {
		forget(s, RAX);
		forget(s, low);
	} else if (in(op, 0x98, 0x99)) {
		forget(s, op == 0x98 ? RAX : RDX);
	} else if (in(op, 0xb0, 0xb7)) {
		forget(s, i->rex ? low : low & 3);
	} else if (op == 0xc9) {
		forget(s, RSP);
		forget(s, 5);
	} else if (i->has_modrm && op != 0x84 && op != 0x85 && op != 0x88 && op != 0x89) {
		forget_rm(s, i);
	} else if (op == 0x88) {
		forget_rm(s, i);
	}
}

static void step(struct state *s, const struct insn *i) {
	if (i->map && in(i->opcode, 0xc8, 0xcf))
		forget(s, (uint8_t)((i->opcode & 7) | (i->rex & 1) << 3));
	else if (i->map)
		step_two(s, i);
	else
		step_one(s, i);
	s->at += i->len;
}

static bool is_size(const struct value *v) {
	return v->kind == FIRST || v->kind == AT_FIRST || v->kind == CONSTANT;
}

/* The size out of what two argument registers hold. `b` NULL: one. */
static bool make_size(const struct value *a, const struct value *b, struct alloc_size *ret) {
	struct alloc_size size = { .a = ALLOC_NO_REG, .b = ALLOC_NO_REG, .load = a->kind == AT_FIRST };

	if (!is_size(a) || a->disp != (int32_t)a->disp)
		return false;
	if (b && b->kind == CONSTANT && a->kind == CONSTANT && b->disp >= 0 && a->disp >= 0 && b->disp <= INT32_MAX &&
		a->disp * b->disp <= INT32_MAX) {
		size.disp = (int32_t)(a->disp * b->disp);
		*ret = size;
		return true;
	}
	if (b && (b->kind != FIRST || b->disp))
		return false;
	if (a->kind != CONSTANT)
		size.a = a->reg;
	size.disp = (int32_t)a->disp;
	if (b)
		size.b = b->reg;
	*ret = size;
	return true;
}

static void arguments(enum alloc_args args, uint8_t *ret_a, uint8_t *ret_b) {
	*ret_b = ALLOC_NO_REG;
	switch (args) {
	case ALLOC_MALLOC: *ret_a = RSI; break;
	case ALLOC_CALLOC:
		*ret_a = RSI;
		*ret_b = RDX;
		break;
	case ALLOC_REALLOC: *ret_a = RDX; break;
	case ALLOC_C_MALLOC: *ret_a = RDI; break;
	case ALLOC_C_CALLOC:
		*ret_a = RDI;
		*ret_b = RSI;
		break;
	case ALLOC_C_REALLOC: *ret_a = RSI; break;
	}
}

/* A register that still holds what this one did at first; ALLOC_NO_REG: none. */
static uint8_t holder_of(const struct state *s, uint8_t reg) {
	for (unsigned i = 0; i < REGS; i++) {
		uint8_t r = (uint8_t)(reg + i) & (REGS - 1); /* itself first */

		if (s->regs[r].kind == FIRST && s->regs[r].reg == reg && !s->regs[r].disp)
			return r;
	}
	return ALLOC_NO_REG;
}

int alloc_place_at_entry(const uint8_t *code, size_t n, enum alloc_args args, struct alloc_place *ret_place) {
	struct state s;
	struct insn i;
	uint8_t a, b;

	arguments(args, &a, &b);
	state_init(&s, 0);
	while (s.at < n && decode(code + s.at, n - s.at, &i)) {
		const struct value *sp = &s.regs[RSP];
		uint8_t in_a = holder_of(&s, a), in_b = b == ALLOC_NO_REG ? b : holder_of(&s, b);

		if (in_a == ALLOC_NO_REG || (b != ALLOC_NO_REG && in_b == ALLOC_NO_REG) || sp->kind != FIRST ||
			sp->reg != RSP)
			return -ENOENT;
		if (is_emulated(&i)) {
			*ret_place = (struct alloc_place){ .at = (uint32_t)s.at,
				.size = { .a = in_a, .b = in_b },
				.sp_up = (int32_t)minus(0, sp->disp) };
			return 0;
		}
		if (ends_way(&i))
			return -ENOENT;
		step(&s, &i);
	}
	return -ENOENT;
}

/* What an indirect call, or a comparison, has as its pointer. */
static bool pointer_value(const struct state *s, const struct insn *i, struct alloc_pointer *ret) {
	struct value v;
	int32_t rest = 0;
	uint8_t reg;

	if (is_indirect(i) && i->memory) {
		v = address_of(s, i, &rest);
		if (v.kind != CONSTANT && v.kind != AT_CONSTANT)
			return false;
		*ret = (struct alloc_pointer){ (uint64_t)v.disp, v.kind == AT_CONSTANT, rest };
		return true;
	}
	reg = i->has_modrm ? i->rm : RAX;
	if (!i->wide && !is_indirect(i))
		return false;
	if (is_cmp(i) && i->has_modrm && i->memory)
		return false;
	if (s->regs[reg].kind != AT_CONSTANT)
		return false;
	*ret = (struct alloc_pointer){ .address = (uint64_t)s->regs[reg].disp };
	return true;
}

int alloc_pointer_of(const uint8_t *code, size_t n, uint64_t at, struct alloc_pointer *ret_pointer) {
	struct state s;
	struct insn i;

	state_init(&s, at);
	for (unsigned steps = 0; steps < WAY_MAX && s.at - at < n; steps++) {
		if (!decode(code + (s.at - at), n - (s.at - at), &i))
			return -ENOENT;
		if ((is_indirect(&i) || is_cmp(&i)) && pointer_value(&s, &i, ret_pointer))
			return 0;
		if (ends_way(&i))
			return -ENOENT;
		step(&s, &i);
		if (is_jmp(&i))
			s.at += (uint64_t)i.imm;
	}
	return -ENOENT;
}

/* The comparison of a register with the callee's address, which is in the instruction, or was put into a register just
 * before. Return: the register; ALLOC_NO_REG: it is another one. */
static uint8_t compared(const uint8_t *code, size_t n, uint64_t at, uint64_t callee, size_t *ret_len) {
	struct state s;
	struct insn i;
	uint8_t other;

	if (!decode(code, n, &i) || !i.wide)
		return ALLOC_NO_REG;
	*ret_len = i.len;
	if (!i.map && (i.opcode == 0x3d || (i.opcode == 0x81 && (i.reg & 7) == 7 && !i.memory)))
		return (uint64_t)i.imm == callee ? (i.opcode == 0x3d ? RAX : i.rm) : ALLOC_NO_REG;
	if (i.map || i.opcode != 0x8d)
		return ALLOC_NO_REG;
	state_init(&s, at);
	step(&s, &i);
	if (s.regs[i.reg].kind != CONSTANT || (uint64_t)s.regs[i.reg].disp != callee)
		return ALLOC_NO_REG;
	other = i.reg;
	for (unsigned steps = 0; steps < 4 && decode(code + *ret_len, n - *ret_len, &i); steps++) {
		*ret_len += i.len;
		if (is_cmp(&i) && i.wide && i.has_modrm && !i.memory && in(i.opcode, 0x38, 0x3b) &&
			(i.rm == other || i.reg == other))
			return i.rm == other ? i.reg : i.rm;
		if (ends_way(&i) || is_jcc(&i) || is_jmp(&i))
			break;
	}
	return ALLOC_NO_REG;
}

/* From where the pointer was another one to where it is called: what its arguments are there. */
static int size_on_way(const uint8_t *code, size_t n, uint64_t at, uint64_t from, uint8_t pointer, enum alloc_args args,
	struct alloc_size *ret) {
	struct state s;
	struct insn i;
	uint8_t a, b;

	arguments(args, &a, &b);
	state_init(&s, from);
	for (unsigned steps = 0; steps < WAY_MAX && s.at - at < n; steps++) {
		if (!decode(code + (s.at - at), n - (s.at - at), &i))
			return -ENOTSUP;
		if (is_indirect(&i)) {
			const struct value *called = i.memory ? NULL : &s.regs[i.rm];

			if (called && (called->kind != FIRST || called->reg != pointer))
				return -ENOTSUP;
			return make_size(&s.regs[a], b == ALLOC_NO_REG ? NULL : &s.regs[b], ret) ? 0 : -ENOTSUP;
		}
		if (!i.map && i.opcode == 0xc3)
			return -ENOENT; /* it only asks which one it is */
		if (ends_way(&i) || is_jcc(&i))
			return -ENOTSUP;
		step(&s, &i);
		if (is_jmp(&i))
			s.at += (uint64_t)i.imm;
	}
	return -ENOTSUP;
}

int alloc_place_inlined(const uint8_t *code, size_t n, uint64_t at, size_t from, uint64_t callee, enum alloc_args args,
	struct alloc_place *ret_place) {
	struct alloc_place place = { 0 };
	size_t len = 0, here;
	uint8_t pointer;
	struct insn i;
	uint64_t way;
	int r;

	if (from >= n)
		return -ENOENT;
	pointer = compared(code + from, n - from, at + from, callee, &len);
	if (pointer == ALLOC_NO_REG)
		return -ENOENT;
	here = from + len;
	if (here >= n || !decode(code + here, n - here, &i) || !is_jcc(&i) || !is_emulated(&i) || (i.opcode & 0xe) != 4)
		return -ENOENT; /* not je, jne: it only asks which one it is */
	way = at + here + i.len + (i.opcode & 1 ? (uint64_t)i.imm : 0);
	r = size_on_way(code, n, at, way, pointer, args, &place.size);
	if (r)
		return r;
	place.at = (uint32_t)here;
	*ret_place = place;
	return 0;
}
