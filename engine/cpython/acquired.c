/* SPDX-License-Identifier: MIT */
/* Which acquire() calls a frame has behind it, by one walk over its bytecode from the start to where it stands.
 *
 * The walk knows the depth of the value stack at each instruction (opcodes.h), and with it which call takes the method
 * that a LOAD_ATTR acquire has put there:
 *
 *     LOAD_FAST self; LOAD_ATTR guard; LOAD_ATTR acquire + self; LOAD_CONST 3; CALL 1        self.guard.acquire(3)
 *
 * Jumps forward hand on what is held, and the depth, to where they lead; so do the beginnings of try blocks to their
 * handlers. Instructions that nothing leads to otherwise (loops that are entered below) go on from the one above.
 * Jumps backward are not followed. */
#include "engine/cpython/acquired.h"

#include "engine/base/cursor.h"
#include "engine/base/limits.h"
#include "engine/cpython/names.h"
#include "engine/cpython/object_head.h"
#include "engine/cpython/opcodes.h"
#include <assert.h>
#include <errno.h>

#define V3_11 0x030b /* minor versions */
#define V3_12 0x030c

#define BYTECODE_MAX (64U << 10) /* bytes that are walked over */
#define NAMES_MAX 1024           /* names of one kind of one code object */
#define CALLS_MAX 64             /* of acquire; bits of a word */
#define PENDING_MAX 8            /* methods on the stack that wait for their call */
#define JUMPS_MAX 256
#define HANDLERS_MAX 256
#define HANDLER_BYTES_MAX (16U << 10)
#define CHAIN_MAX 8 /* attributes of one expression */
#define NONE UINT32_MAX

struct names {
	raddr items[NAMES_MAX];
	size_t n;
};

/* A name and its attributes, by their numbers; the lowest parts of the stack's top that are known. */
struct chain {
	uint8_t root; /* enum opcode_operation: what loads it; 0: no such expression */
	uint8_t n;
	uint32_t index;
	uint32_t attributes[CHAIN_MAX];
};

struct pending {
	struct chain chain;
	bool release;
	bool arguments;
	int64_t slot;   /* of the method */
	int64_t result; /* where its call will leave the result */
};

struct call {
	struct chain chain;
	int64_t offset;
	bool arguments;
	bool assigned; /* the variable it begins with was assigned to after it */
};

/* What is true at an instruction further on. */
struct jump {
	int64_t target;
	uint64_t held;
	int64_t depth;
};

struct handler {
	int64_t start, target;
};

struct walk {
	const struct py_runtime *rt;
	const struct opcode_row *row;
	struct names names, fast, deref; /* from 3.11 on the last two are one */
	uint32_t acquire, release;       /* their numbers in names */
	bool null_below;                 /* the empty slot of a plain call is below the callable: 3.11, 3.12 */
	struct chain chain;
	struct pending pending[PENDING_MAX];
	size_t pending_n;
	struct call calls[CALLS_MAX];
	size_t calls_n;
	uint64_t held; /* bits of calls */
	struct jump jumps[JUMPS_MAX];
	size_t jumps_n;
	struct handler handlers[HANDLERS_MAX];
	size_t handlers_n;
	int64_t depth;
	bool left; /* the instruction above never goes on to this one */
	enum { AWAIT_NONE, AWAIT_BEGUN, AWAIT_WAITS } await;
	uint64_t awaited; /* the bit of the call whose result the await is about; before: that has just been made */
};

/* One instruction. */
struct instruction {
	const struct opcode_step *step;
	uint32_t arg;
	int64_t offset, end;
};

/* What the code object says */

static int add_names(const struct py_reader *py, raddr code, uint32_t field, struct names *names) {
	raddr tuple;
	size_t n, room = NAMES_MAX - names->n;
	int r = mem_read_u64(py->mem, code + field, &tuple);

	if (!r)
		r = py_sequence_read(py, tuple, names->items + names->n, room, &n);
	if (r)
		return r == PY_E_TYPE ? PY_E_TORN : r;
	names->n += min_of(n, room);
	return 0;
}

static int read_variable_names(struct walk *w, raddr code) {
	const struct py_reader *py = &w->rt->reader;
	int r;

	if (layout_has(py->layout.code_localsplusnames)) {
		r = add_names(py, code, py->layout.code_localsplusnames, &w->fast);
		w->deref = w->fast;
		return r;
	}
	r = add_names(py, code, py->layout.code_varnames, &w->fast);
	if (!r)
		r = add_names(py, code, py->layout.code_cellvars, &w->deref);
	return r ? r : add_names(py, code, py->layout.code_freevars, &w->deref);
}

/* By a name's first bytes. */
static bool is_text(const struct layout *layout, const uint8_t *bytes, size_t len, const char *text) {
	return text_state(layout, bytes, len, layout->unicode_compact_bit, 1) &&
		text_state(layout, bytes, len, layout->unicode_ascii_bit, 1) &&
		peek_u64(bytes, len, layout->unicode_length) == strlen(text) &&
		!memcmp(bytes + layout->unicode_ascii_size, text, strlen(text));
}

/* Most code has neither name and is done with here: all are looked at with one read. */
static int find_verbs(struct walk *w) {
	const struct layout *layout = &w->rt->reader.layout;
	size_t len = layout->unicode_ascii_size + sizeof("acquire");
	uint8_t *bytes _free_ = calloc(NAMES_MAX, len);
	struct mem_range ranges[NAMES_MAX];
	size_t done;
	int r = 0;

	static_assert(sizeof("acquire") == sizeof("release"), "one length serves both");
	static_assert(NAMES_MAX <= MEM_RANGES_MAX, "one read");
	if (!bytes)
		return -ENOMEM;
	for (size_t i = 0; i < w->names.n; i++)
		ranges[i] = (struct mem_range){ w->names.items[i], len, bytes + i * len };
	/* What cannot be read is shorter, or no name. */
	for (size_t at = 0; at < w->names.n; at += done + 1) {
		r = mem_read_many(w->rt->reader.mem, ranges + at, w->names.n - at, &done);
		if (r != MEM_E_FAULT)
			break;
	}
	if (r && r != MEM_E_FAULT)
		return r;
	w->acquire = w->release = NONE;
	for (size_t i = 0; i < w->names.n; i++) {
		if (is_text(layout, bytes + i * len, len, "acquire"))
			w->acquire = (uint32_t)i;
		else if (is_text(layout, bytes + i * len, len, "release"))
			w->release = (uint32_t)i;
	}
	return 0;
}

/* A number of an exception table: six bits a byte, high ones first (CPython 3.11 Objects/exception_handling_notes.txt).
 */
static bool handler_number(struct cursor *c, int64_t *ret) {
	uint8_t byte = 0x40;
	int64_t value = 0;

	while (byte & 0x40) {
		if (!cursor_u8(c, &byte) || value > INT32_MAX)
			return false;
		value = value << 6 | (byte & 0x3f);
	}
	*ret = value;
	return true;
}

/* 3.11+. Before, instructions say where the handlers are. */
static int read_handlers(struct walk *w, raddr code) {
	const struct py_reader *py = &w->rt->reader;
	uint8_t *table _free_ = NULL;
	int64_t start, length, target, depth;
	struct cursor c;
	size_t len = 0;
	raddr object;
	int r;

	if (!layout_has(py->layout.code_exceptiontable))
		return 0;
	r = mem_read_u64(py->mem, code + py->layout.code_exceptiontable, &object);
	if (!r)
		r = py_bytes_read(py, object, HANDLER_BYTES_MAX, &table, &len);
	if (r)
		return r == PY_E_TYPE || r == PY_E_TRUNCATED ? 0 : r;
	c = cursor_of(table, len);
	while (w->handlers_n < HANDLERS_MAX && handler_number(&c, &start) && handler_number(&c, &length) &&
		handler_number(&c, &target) && handler_number(&c, &depth))
		w->handlers[w->handlers_n++] = (struct handler){ start * 2, target * 2 };
	return 0;
}

/* Copies the bytecode that the frame runs, up to where it stands. */
static int read_bytecode(const struct walk *w, const struct py_code_cache *codes, const struct py_code *code,
	const struct py_raw_frame *frame, uint8_t *bytes, size_t len) {
	const struct layout *layout = &w->rt->reader.layout;
	raddr base;
	int r;

	if (code->bytecode)
		base = (raddr)frame->instr - (uint64_t)py_code_offset(codes, code, frame);
	else {
		r = mem_read_u64(w->rt->reader.mem, code->addr + layout->code_code, &base);
		if (r)
			return r;
		base += layout->bytes_data;
	}
	return mem_read(w->rt->reader.mem, base, bytes, len);
}

/* Ways through the code */

static void hand_on(struct walk *w, int64_t target) {
	for (size_t i = 0; i < w->jumps_n; i++) {
		if (w->jumps[i].target != target)
			continue;
		w->jumps[i].held &= w->held;
		return;
	}
	if (w->jumps_n < JUMPS_MAX)
		w->jumps[w->jumps_n++] = (struct jump){ target, w->held, w->depth };
}

/* What is held at an instruction is what every way there has. */
static void arrive(struct walk *w, int64_t offset) {
	size_t i = 0;

	while (i < w->jumps_n && w->jumps[i].target != offset)
		i++;
	if (i < w->jumps_n) {
		w->held = w->jumps[i].held & (w->left ? UINT64_MAX : w->held);
		w->depth = w->left ? w->jumps[i].depth : w->depth;
		w->jumps[i] = w->jumps[--w->jumps_n];
	} else if (w->left) {
		w->pending_n = 0;
	}
	w->left = false;
	for (i = 0; i < w->handlers_n; i++)
		if (w->handlers[i].start == offset)
			hand_on(w, w->handlers[i].target);
}

/* Calls */

static bool same_chain(const struct chain *a, const struct chain *b) {
	return a->root == b->root && a->index == b->index && a->n == b->n &&
		!memcmp(a->attributes, b->attributes, a->n * sizeof(a->attributes[0]));
}

static void acquired(struct walk *w, const struct pending *p, int64_t offset) {
	uint64_t bit;

	if (w->calls_n == CALLS_MAX)
		return;
	bit = UINT64_C(1) << w->calls_n;
	w->calls[w->calls_n++] = (struct call){ .chain = p->chain, .offset = offset, .arguments = p->arguments };
	w->held |= bit;
	w->awaited = bit;
}

static void released(struct walk *w, const struct chain *chain) {
	for (size_t i = w->calls_n; i-- > 0;) {
		uint64_t bit = UINT64_C(1) << i;

		if (!(w->held & bit) || !same_chain(&w->calls[i].chain, chain))
			continue;
		w->held &= ~bit;
		return;
	}
}

static void begin_pending(struct walk *w, bool release, bool method) {
	int64_t slot = w->depth - (method ? 2 : 1);

	if (w->pending_n == PENDING_MAX)
		return;
	w->pending[w->pending_n++] = (struct pending){
		.chain = w->chain,
		.release = release,
		.slot = slot,
		.result = slot - (!method && w->null_below),
	};
}

/* After an instruction that changed the stack: what became of the methods on it. */
static void settle_pending(struct walk *w, const struct instruction *in, int64_t before) {
	unsigned operation = in->step->operation;

	while (w->pending_n) {
		struct pending *p = &w->pending[w->pending_n - 1];

		if (operation == OPCODE_DO_CALL && w->depth - 1 == p->result) {
			w->pending_n--;
			if (p->release)
				released(w, &p->chain);
			else
				acquired(w, p, in->offset);
			return;
		}
		if (w->depth > p->slot) {
			p->arguments |= w->depth > before && operation != OPCODE_DO_PUSH_NULL;
			return;
		}
		w->pending_n--;
	}
}

/* Expressions */

static void assigned(struct walk *w, uint32_t variable) {
	for (size_t i = 0; i < w->calls_n; i++)
		if (w->calls[i].chain.root == OPCODE_DO_LOAD_FAST && w->calls[i].chain.index == variable)
			w->calls[i].assigned = true;
}

static void begin_chain(struct walk *w, enum opcode_operation root, uint32_t index) {
	w->chain = (struct chain){ .root = (uint8_t)root, .index = index };
}

/* Return: whether an acquire or release was loaded. */
static bool load_attribute(struct walk *w, uint32_t index) {
	if (!w->chain.root)
		return false;
	if (index == w->acquire || index == w->release)
		return true;
	if (w->chain.n == CHAIN_MAX)
		w->chain.root = 0;
	else
		w->chain.attributes[w->chain.n++] = index;
	return false;
}

/* What the top of the stack is after an instruction. Return: whether it is an acquire or release of w->chain. */
static bool follow_expression(struct walk *w, const struct instruction *in) {
	uint32_t index = in->step->effect_low_bit ? in->arg >> 1 : in->arg;

	switch ((enum opcode_operation)in->step->operation) {
	case OPCODE_DO_LOAD_FAST: begin_chain(w, OPCODE_DO_LOAD_FAST, in->arg); return false;
	case OPCODE_DO_STORE_LOAD_FAST:
		assigned(w, in->arg >> 4);
		begin_chain(w, OPCODE_DO_LOAD_FAST, in->arg & 15);
		return false;
	case OPCODE_DO_LOAD_FAST_PAIR: begin_chain(w, OPCODE_DO_LOAD_FAST, in->arg & 15); return false;
	case OPCODE_DO_LOAD_DEREF:
	case OPCODE_DO_LOAD_NAME: begin_chain(w, in->step->operation, index); return false;
	case OPCODE_DO_LOAD_ATTR:
	case OPCODE_DO_LOAD_METHOD: return load_attribute(w, index);
	case OPCODE_DO_STORE_FAST_PAIR:
		assigned(w, in->arg >> 4);
		assigned(w, in->arg & 15);
		break;
	case OPCODE_DO_STORE_FAST: assigned(w, in->arg); break;
	default: break;
	}
	w->chain.root = 0;
	return false;
}

/* The walk */

/* While a coroutine waits for the lock it has not got it. Behind GET_AWAITABLE None is loaded, from 3.15 on
 * after an empty slot. */
static void follow_await(struct walk *w, unsigned operation) {
	if (operation == OPCODE_DO_GET_AWAITABLE && w->await == AWAIT_NONE) {
		w->held &= ~w->awaited;
		w->await = AWAIT_BEGUN;
	} else if (w->await == AWAIT_BEGUN) {
		w->await = operation == OPCODE_DO_AWAIT ? AWAIT_WAITS : AWAIT_BEGUN;
	} else if (w->await == AWAIT_WAITS && operation != OPCODE_DO_AWAIT) {
		w->held |= w->awaited;
		w->await = AWAIT_NONE;
	}
	if (w->await == AWAIT_NONE)
		w->awaited = 0;
}

static void follow_jump(struct walk *w, const struct instruction *in) {
	int64_t distance = (int64_t)in->arg * w->row->jump_bytes;
	int64_t target = in->step->jump == OPCODE_JUMP_TO ? distance : in->end + distance;

	if (in->step->jump && target > in->offset)
		hand_on(w, target);
	w->left = in->step->operation == OPCODE_DO_LEAVE;
}

static void execute(struct walk *w, const struct instruction *in) {
	const struct opcode_step *step = in->step;
	bool low_bit = in->arg & 1, verb;
	int64_t before = w->depth;

	if (step->effect_known)
		w->depth += step->effect + step->effect_each * (int64_t)in->arg + step->effect_low_bit * low_bit;
	else
		w->pending_n = 0;
	verb = follow_expression(w, in);
	settle_pending(w, in, before);
	if (verb) {
		begin_pending(w, in->arg >> (step->effect_low_bit != 0) == w->release,
			step->operation == OPCODE_DO_LOAD_METHOD || (step->effect_low_bit && low_bit));
		w->chain.root = 0;
	}
	follow_jump(w, in);
}

/* Up to the instruction that the frame stands at. Return: 0; PY_E_TYPE. */
static int walk_code(struct walk *w, const uint8_t *bytes, size_t len, int64_t here) {
	struct instruction in = { .end = 0 };
	uint32_t high = 0;

	for (int64_t at = 0; at + 2 <= (int64_t)len; at = in.end) {
		in.step = &opcode_steps[w->row->step[bytes[at]]];
		if (in.step->operation == OPCODE_DO_UNKNOWN)
			return PY_E_TYPE;
		in.arg = high << 8 | bytes[at + 1];
		in.offset = at;
		in.end = at + 2 * (1 + in.step->caches);
		arrive(w, at);
		follow_await(w, in.step->operation);
		if (in.end > here)
			break;
		high = in.step->operation == OPCODE_DO_EXTEND ? in.arg : 0;
		if (in.step->operation != OPCODE_DO_EXTEND)
			execute(w, &in);
	}
	return 0;
}

/* Results */

static int add_name(const struct walk *w, const struct names *names, uint32_t index, struct strbuf *out) {
	int r;

	if (index >= names->n)
		return PY_E_TORN;
	r = py_text_read(&w->rt->reader, names->items[index], LIMIT_NAME_CHARS, out);
	return r == PY_E_TYPE || r == PY_E_TRUNCATED ? PY_E_TORN : r;
}

static int chain_text(const struct walk *w, const struct chain *chain, struct strbuf *out) {
	const struct names *names = chain->root == OPCODE_DO_LOAD_FAST ? &w->fast
		: chain->root == OPCODE_DO_LOAD_DEREF                  ? &w->deref
								       : &w->names;
	int r = add_name(w, names, chain->index, out);

	for (size_t i = 0; !r && i < chain->n; i++) {
		strbuf_adds(out, ".");
		r = add_name(w, &w->names, chain->attributes[i], out);
	}
	return !r && out->failed ? -ENOMEM : r;
}

/* Cuts between characters. */
static void copy_cut(char *buf, size_t size, const struct strbuf *text) {
	const char *from = strbuf_str(text);
	size_t len = min_of(text->len, size - 1);

	while (len && len < text->len && ((unsigned char)from[len] & 0xc0) == 0x80)
		len--;
	memcpy(buf, from, len);
	buf[len] = '\0';
}

static int tell_call(const struct walk *w, const struct py_code_cache *codes, const struct py_code *code,
	const struct py_raw_frame *frame, const struct call *call, struct py_acquired *ret) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 }, printable = { 0 };
	raddr object = 0;
	int r = chain_text(w, &call->chain, &text);

	if (r)
		return r;
	strbuf_add_printable(&printable, strbuf_str(&text), text.len);
	if (printable.failed)
		return -ENOMEM;
	if (!call->assigned)
		r = py_name_evaluate(w->rt, frame, strbuf_str(&text), &object);
	if (r < 0 || r == MEM_E_GONE)
		return r;
	*ret = (struct py_acquired){
		.object = object,
		.line = py_code_line(codes, code, call->offset),
		.offset = call->offset,
		.timed_or_nonblocking = call->arguments,
	};
	copy_cut(ret->expression, sizeof(ret->expression), &printable);
	return 0;
}

static int read_and_walk(struct walk *w, const struct py_code_cache *codes, const struct py_code *code,
	const struct py_raw_frame *frame, int64_t offset) {
	/* The instruction that it stands at too: what leads there counts. */
	size_t len = (size_t)offset + 2;
	uint8_t *bytes _free_ = malloc(len);
	int r;

	if (!bytes)
		return -ENOMEM;
	r = read_variable_names(w, code->addr);
	if (!r)
		r = read_handlers(w, code->addr);
	if (!r)
		r = read_bytecode(w, codes, code, frame, bytes, len);
	return r ? r : walk_code(w, bytes, len, offset);
}

int py_acquired_read(const struct py_runtime *rt, const struct py_code_cache *codes, const struct py_code *code,
	const struct py_raw_frame *frame, int64_t offset, struct py_acquired *ret, size_t max, size_t *ret_n) {
	uint32_t minor = PY_MINOR(rt->reader.version);
	struct walk *w _free_ = calloc(1, sizeof(*w));
	size_t n = 0;
	int r;

	if (!w)
		return -ENOMEM;
	w->rt = rt;
	w->row = opcode_row_of(rt->reader.version);
	w->null_below = minor == V3_11 || minor == V3_12;
	if (!w->row)
		return PY_E_TYPE;
	r = add_names(&rt->reader, code->addr, rt->reader.layout.code_names, &w->names);
	if (!r)
		r = find_verbs(w);
	if (!r && offset > BYTECODE_MAX)
		r = PY_E_TRUNCATED;
	if (!r && offset > 0 && w->acquire != NONE)
		r = read_and_walk(w, codes, code, frame, offset);
	for (size_t i = 0; !r && i < w->calls_n && n < max; i++)
		if (w->held >> i & 1)
			r = tell_call(w, codes, code, frame, &w->calls[i], &ret[n++]);
	if (r)
		return r;
	*ret_n = n;
	return 0;
}
