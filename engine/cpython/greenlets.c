/* SPDX-License-Identifier: MIT */
/* Greenlets: objects whose type is greenlet.greenlet or is derived from it, found on the lists of the garbage
 * collector.
 *
 * The module's structures carry no version. From its 2.0 on an object is a weak reference list, a dict and a pointer to
 * the implementation, and nothing else: the size of the type tells that. The implementation holds, at a place that
 * depends on how it was built, the suspended frame object (measured with 2.0.2: word 12), and from CPython 3.11 on the
 * interpreter's frame too (word 16): a word is only taken for the frame when the other one is there and agrees. One
 * that runs, has not begun or has ended holds no frame and is left out.
 *
 * The lists change while they are walked: a walk that leaves them ends there, and says so. */
#include "engine/cpython/greenlets.h"

#include "engine/base/cursor.h"
#include "engine/base/limits.h"
#include "engine/cpython/asyncio.h"
#include "engine/cpython/object_head.h"
#include <errno.h>
#include <string.h>

#define OBJECTS_MAX (1U << 22)
#define BASES_MAX 16
#define GENERATIONS 3       /* young, and two old ones: that they are called otherwise in 3.14 changes nothing */
#define GENERATION_BYTES 24 /* CPython 3.8+ Include/internal/pycore_gc.h, struct gc_generation */
#define GC_HEAD_BYTES 16    /* 3.8+: PyGC_Head, two words */
#define OBJECT_WORDS 3      /* after the head: weak references, dict, implementation */
#define IMPLEMENTATION_WORDS 24
#define FRAME_BYTES_MAX 512
#define FIRST_HIDDEN_OWNER 3 /* as in frames.c */

struct walk {
	const struct py_runtime *rt;
	raddr greenlet_type;
	raddr frame_type; /* 0: none was met yet */
	struct map types; /* type → whether it is derived from greenlet_type */
	py_greenlet_vec *greenlets;
	size_t objects, met; /* of all types; greenlets */
};

static bool is_derived(const struct py_reader *py, raddr type, raddr from) {
	for (int i = 0; i < BASES_MAX && type; i++) {
		if (type == from)
			return true;
		/* CPython Include/cpython/object.h: tp_base stands right before tp_dict */
		if (mem_read_u64(py->mem, type + py->layout.type_dict - sizeof(raddr), &type))
			return false;
	}
	return false;
}

static bool is_greenlet_type(struct walk *walk, raddr type) {
	uint64_t known;

	if (map_get(&walk->types, type, &known))
		return known;
	known = is_derived(&walk->rt->reader, type, walk->greenlet_type);
	(void)!map_put(&walk->types, type, known); /* then it is looked at once more */
	return known;
}

/* frames */

static int read_frame(
	const struct py_reader *py, raddr at, struct py_raw_frame *ret, raddr *ret_previous, bool *ret_own) {
	const struct layout *l = &py->layout;
	uint8_t bytes[FRAME_BYTES_MAX];
	size_t len = l->frame_localsplus;
	uint8_t owner;
	int r;

	if (len > sizeof(bytes))
		return PY_E_TORN;
	r = mem_read(py->mem, at, bytes, len);
	if (r)
		return r;
	*ret = (struct py_raw_frame){
		.frame = at,
		.code = py_untag(peek_u64(bytes, len, l->frame_code)),
		.globals = py_untag(peek_u64(bytes, len, l->frame_globals)),
	};
	if (layout_has(l->frame_lasti))
		ret->instr = (int64_t)(int32_t)peek_u32(bytes, len, l->frame_lasti) *
			(PY_MINOR(py->version) == 0x030a ? 2 : 1); /* 3.10 counts code units, the others bytes */
	else
		ret->instr = (int64_t)peek_u64(bytes, len, l->frame_instr);
	owner = layout_has(l->frame_owner) ? peek_u8(bytes, len, l->frame_owner) : 0;
	*ret_own = owner < FIRST_HIDDEN_OWNER;
	*ret_previous = peek_u64(bytes, len, l->frame_previous);
	return *ret_own && (!ret->code || ret->code & 7) ? PY_E_TORN : 0;
}

static void read_frames(const struct py_reader *py, raddr at, struct py_greenlet *greenlet) {
	for (int i = 0; at && i < LIMIT_FRAMES && greenlet->frames_n < PY_GREENLET_FRAMES_MAX; i++) {
		struct py_raw_frame frame;
		bool own;

		if (read_frame(py, at, &frame, &at, &own))
			return;
		if (own)
			greenlet->frames[greenlet->frames_n++] = frame;
	}
}

static bool is_frame_object(struct walk *walk, raddr object) {
	char name[16];
	raddr type;

	if (!object || object & 7 || py_type_of(&walk->rt->reader, object, &type))
		return false;
	if (walk->frame_type)
		return type == walk->frame_type;
	if (type & 7 || py_type_name(&walk->rt->reader, object, name, sizeof(name)) || strcmp(name, "frame") != 0)
		return false;
	walk->frame_type = type;
	return true;
}

/* The interpreter's frame behind a frame object, which must be among the words too; to 3.10 they are one. */
static raddr frame_behind(const struct walk *walk, raddr object, const uint64_t *words) {
	const struct py_reader *py = &walk->rt->reader;
	raddr frame;

	if (!layout_has(py->layout.frameobj_frame))
		return object;
	if (mem_read_u64(py->mem, object + py->layout.frameobj_frame, &frame))
		return 0;
	for (size_t i = 0; i < IMPLEMENTATION_WORDS; i++)
		if (words[i] == frame)
			return frame;
	return 0;
}

static int add_greenlet(struct walk *walk, raddr object) {
	const struct py_reader *py = &walk->rt->reader;
	struct py_greenlet greenlet = { .object = object };
	uint64_t words[IMPLEMENTATION_WORDS], implementation;
	raddr frame = 0;

	walk->met++;
	if (mem_read_u64(
		    py->mem, object + py->layout.object_size + (OBJECT_WORDS - 1) * sizeof(raddr), &implementation) ||
		mem_read(py->mem, implementation, words, sizeof(words)))
		return 0;
	for (size_t i = 0; i < IMPLEMENTATION_WORDS && !frame; i++)
		if (is_frame_object(walk, words[i]))
			frame = frame_behind(walk, words[i], words);
	if (!frame)
		return 0;
	read_frames(py, frame, &greenlet);
	if (py_type_name(py, object, greenlet.type, sizeof(greenlet.type)))
		strcpy(greenlet.type, "greenlet");
	if (walk->greenlets->n == PY_GREENLETS_MAX)
		return PY_E_TRUNCATED;
	return vec_push(walk->greenlets, greenlet);
}

/* lists */

static int walk_list(struct walk *walk, raddr head) {
	const struct py_reader *py = &walk->rt->reader;
	raddr at;
	int r = mem_read_u64(py->mem, head, &at);

	while (!r && (at = py_untag(at)) && at != head) {
		uint64_t words[2], type;

		if (walk->objects++ == OBJECTS_MAX)
			return PY_E_TRUNCATED;
		r = mem_read(py->mem, at, words, sizeof(words));
		if (!r)
			r = mem_read_u64(py->mem, at + GC_HEAD_BYTES + py->layout.object_type, &type);
		if (!r && is_greenlet_type(walk, type))
			r = add_greenlet(walk, at + GC_HEAD_BYTES);
		at = words[0];
	}
	return r == MEM_E_FAULT || (!r && !at) ? PY_E_TRUNCATED : r;
}

static bool is_readable(const struct py_reader *py, raddr type) {
	struct type_head head;

	return layout_has(py->layout.gc_generations) && layout_has(py->layout.interp_gc) &&
		PY_MINOR(py->version) >= 0x0308 && !type_head_read(py, type, &head) &&
		head.basicsize == (int64_t)(py->layout.object_size + OBJECT_WORDS * sizeof(raddr));
}

int py_greenlets_read(const struct py_runtime *rt, raddr interp, py_greenlet_vec *ret_greenlets) {
	const struct layout *l = &rt->reader.layout;
	struct walk walk = { .rt = rt, .greenlets = ret_greenlets };
	int r = asyncio_global(rt, interp, "greenlet", "greenlet", &walk.greenlet_type), worst = 0;

	if (!r && !is_readable(&rt->reader, walk.greenlet_type))
		r = PY_E_TORN;
	for (int i = 0; !r && i < GENERATIONS; i++) {
		r = walk_list(&walk, interp + l->interp_gc + l->gc_generations + (raddr)i * GENERATION_BYTES);
		if (r == PY_E_TRUNCATED) {
			worst = r;
			r = 0;
		}
	}
	map_deinit(&walk.types);
	if (!r && walk.met > 1 && !ret_greenlets->n)
		r = PY_E_TORN; /* one of a thread's greenlets runs, and all others may have ended; more likely not */
	return r ? r : worst;
}
