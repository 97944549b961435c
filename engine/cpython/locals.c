/* SPDX-License-Identifier: MIT */
/* Variables of frames. From 3.11 on one tuple names all slots and a bytes object tells cells from plain ones; before,
 * varnames, cellvars and freevars follow each other in the slots. */
#include "engine/cpython/locals.h"

#include "engine/base/cursor.h"
#include "engine/base/limits.h"
#include "engine/cpython/objects.h"
#include <string.h>
#include <strings.h>

#define KIND_CELL 0x40 /* CPython 3.11+ Include/internal/pycore_code.h */
#define KIND_FREE 0x80
#define KIND_HIDDEN 0x10

struct slots {
	const struct py_runtime *rt;
	py_local_each each;
	void *userdata;
	int ended; /* what `each` ended the walk with */
	uint64_t values[LIMIT_LOCALS];
	size_t values_n;
};

/* What py_locals_read makes. */
struct shown {
	const struct py_reader *py;
	bool unmask;
	struct pyspyd_local *locals;
	size_t n;
};

/* What py_local_get looks for. */
struct search {
	const char *wanted;
	bool known; /* the frame has a variable of that name */
	uint64_t found;
};

bool py_local_is_secret(const char *name) {
	static const char *const words[] = { "pass", "secret", "token", "key", "credential", "auth", "cookie",
		"session_id", "private" };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcasestr(name, words[i]))
			return true;
	return false;
}

static char *type_of(const struct py_reader *py, raddr object) {
	struct strbuf text = { 0 };

	if (py_type_describe(py, object, &text)) {
		strbuf_deinit(&text);
		return strdup("?");
	}
	return strbuf_take(&text);
}

static char *value_of(const struct shown *shown, raddr object) {
	struct strbuf text = { 0 };

	(shown->unmask ? py_value_describe : py_value_describe_masked)(shown->py, object, LIMIT_VALUE_CHARS, &text);
	return strbuf_take(&text);
}

static char *tagged_int(uint64_t ref) {
	struct strbuf text = { 0 };

	strbuf_addf(&text, "%lld", (long long)((int64_t)ref >> 2));
	return strbuf_take(&text);
}

static int add_local(void *userdata, const char *name, uint64_t ref) {
	struct shown *shown = userdata;
	struct pyspyd_local *local = &shown->locals[shown->n];
	bool is_int = (ref & 3) == PY_TAG_INT;

	if (!ref || shown->n == LIMIT_LOCALS)
		return 0;
	local->name = strdup(name);
	local->masked = !shown->unmask && py_local_is_secret(name);
	local->type = is_int ? strdup("int") : type_of(shown->py, py_untag(ref));
	local->value = local->masked ? strdup("***") : is_int ? tagged_int(ref) : value_of(shown, py_untag(ref));
	shown->n++; /* half-built ones are freed with the rest */
	return local->name && local->type && local->value ? 0 : -ENOMEM;
}

/* Ends the walk with 1 once it has the value. A variable that is an argument and a cell has two slots to 3.10, of which
 * one is empty. */
static int match_local(void *userdata, const char *name, uint64_t ref) {
	struct search *search = userdata;

	if (strcmp(name, search->wanted))
		return 0;
	search->known = true;
	search->found = ref;
	return ref != 0;
}

/* A cell's contents; 0 where it is empty. */
static uint64_t cell_contents(const struct slots *slots, uint64_t ref) {
	uint64_t contents = 0;

	mem_read_u64(slots->rt->reader.mem, py_untag(ref) + slots->rt->reader.layout.object_size, &contents);
	return contents;
}

static int tell(struct slots *slots, raddr name_object, uint64_t ref) {
	_cleanup_(strbuf_deinit) struct strbuf name = { 0 };
	int r = py_text_read(&slots->rt->reader, name_object, LIMIT_NAME_CHARS, &name);

	if (r && r != PY_E_TRUNCATED)
		return r == PY_E_TYPE ? PY_E_TORN : r;
	if (name.failed)
		return -ENOMEM;
	slots->ended = slots->each(slots->userdata, strbuf_str(&name), ref);
	return slots->ended;
}

static int walk_named(
	struct slots *slots, raddr names, size_t first, const uint8_t *kinds, size_t kinds_n, bool cells) {
	raddr items[LIMIT_LOCALS];
	size_t n = 0;
	int r = names ? py_sequence_read(&slots->rt->reader, names, items, LIMIT_LOCALS, &n) : 0;

	n = min_of(n, (size_t)LIMIT_LOCALS);
	for (size_t i = 0; !r && i < n && first + i < slots->values_n; i++) {
		uint64_t value = slots->values[first + i];
		uint8_t kind = i < kinds_n ? kinds[i] : 0;
		char type[8];

		if (kind & KIND_HIDDEN)
			continue;
		if (py_untag(value) && (cells || kind & (KIND_CELL | KIND_FREE)) &&
			!py_type_name(&slots->rt->reader, py_untag(value), type, sizeof(type)) && !strcmp(type, "cell"))
			value = cell_contents(slots, value);
		if ((value & 3) != PY_TAG_INT)
			value = py_untag(value);
		r = tell(slots, items[i], value);
	}
	return r;
}

static int read_slots(struct slots *slots, const struct py_raw_frame *frame, size_t n) {
	slots->values_n = min_of(n, (size_t)LIMIT_LOCALS);
	return mem_read(slots->rt->reader.mem, frame->frame + slots->rt->reader.layout.frame_localsplus, slots->values,
		slots->values_n * sizeof(slots->values[0]));
}

static int read_code_word(const struct slots *slots, const struct py_raw_frame *frame, uint32_t offset, uint64_t *ret) {
	return mem_read_u64(slots->rt->reader.mem, frame->code + offset, ret);
}

/* 3.11+ */
static int read_localsplus(struct slots *slots, const struct py_raw_frame *frame) {
	const struct layout *l = &slots->rt->reader.layout;
	uint64_t names, kinds_object;
	uint8_t *kinds _free_ = NULL;
	size_t kinds_n = 0;
	int r = read_code_word(slots, frame, l->code_localsplusnames, &names);

	if (!r)
		r = read_code_word(slots, frame, l->code_localspluskinds, &kinds_object);
	if (!r)
		r = py_bytes_read(&slots->rt->reader, kinds_object, 1U << 16, &kinds, &kinds_n);
	if (!r)
		r = read_slots(slots, frame, kinds_n);
	return r ? r : walk_named(slots, names, 0, kinds, kinds_n, false);
}

static size_t length_of(const struct slots *slots, raddr tuple) {
	raddr unused;
	size_t n = 0;
	int r = py_sequence_read(&slots->rt->reader, tuple, &unused, 1, &n);

	return r && r != PY_E_TRUNCATED ? 0 : n;
}

/* To 3.10 */
static int read_three_tuples(struct slots *slots, const struct py_raw_frame *frame) {
	const struct layout *l = &slots->rt->reader.layout;
	uint64_t vars, cells, frees;
	size_t vars_n, cells_n;
	int r = read_code_word(slots, frame, l->code_varnames, &vars);

	if (!r)
		r = read_code_word(slots, frame, l->code_cellvars, &cells);
	if (!r)
		r = read_code_word(slots, frame, l->code_freevars, &frees);
	if (r)
		return r;
	vars_n = length_of(slots, vars);
	cells_n = length_of(slots, cells);
	r = read_slots(slots, frame, vars_n + cells_n + length_of(slots, frees));
	if (!r)
		r = walk_named(slots, vars, 0, NULL, 0, false);
	if (!r)
		r = walk_named(slots, cells, vars_n, NULL, 0, true);
	return r ? r : walk_named(slots, frees, vars_n + cells_n, NULL, 0, true);
}

static void free_locals(struct pyspyd_local *locals, size_t n) {
	for (size_t i = 0; i < n; i++) {
		free(locals[i].name);
		free(locals[i].type);
		free(locals[i].value);
	}
	free(locals);
}

int py_locals_walk(const struct py_runtime *rt, const struct py_raw_frame *frame, py_local_each each, void *userdata) {
	struct slots slots = { .rt = rt, .each = each, .userdata = userdata };
	int r = layout_has(rt->reader.layout.code_localsplusnames) ? read_localsplus(&slots, frame)
								   : read_three_tuples(&slots, frame);

	if (slots.ended)
		return slots.ended;
	return r == PY_E_TYPE || r == PY_E_TRUNCATED ? PY_E_TORN : r;
}

int py_local_get(const struct py_runtime *rt, const struct py_raw_frame *frame, const char *name, uint64_t *ret_ref) {
	struct search search = { .wanted = name };
	int r = py_locals_walk(rt, frame, match_local, &search);

	if (r && !search.found)
		return r;
	if (!search.known)
		return PY_E_TYPE;
	*ret_ref = search.found;
	return 0;
}

int py_locals_read(const struct py_runtime *rt, const struct py_raw_frame *frame, bool unmask,
	struct pyspyd_local **ret_locals, size_t *ret_n) {
	struct shown shown = { .py = &rt->reader, .unmask = unmask };
	int r;

	shown.locals = calloc(LIMIT_LOCALS, sizeof(*shown.locals));
	if (!shown.locals)
		return -ENOMEM;
	r = py_locals_walk(rt, frame, add_local, &shown);
	if (r) {
		free_locals(shown.locals, shown.n);
		return r;
	}
	*ret_locals = shown.locals;
	*ret_n = shown.n;
	return 0;
}
