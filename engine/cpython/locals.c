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
	const char *wanted; /* only this one is looked for, and `locals` stays as it is */
	bool known;         /* the frame has a variable of that name */
	uint64_t found;
	bool unmask;
	uint64_t values[LIMIT_LOCALS];
	size_t values_n;
	struct pyspyd_local *locals;
	size_t n;
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

static char *value_of(const struct py_reader *py, raddr object) {
	struct strbuf text = { 0 };

	py_value_describe(py, object, LIMIT_VALUE_CHARS, &text);
	return strbuf_take(&text);
}

static char *tagged_int(uint64_t ref) {
	struct strbuf text = { 0 };

	strbuf_addf(&text, "%lld", (long long)((int64_t)ref >> 2));
	return strbuf_take(&text);
}

static int add_local(struct slots *slots, raddr name_object, uint64_t ref) {
	const struct py_reader *py = &slots->rt->reader;
	struct strbuf name = { 0 };
	struct pyspyd_local *local = &slots->locals[slots->n];
	bool is_int = (ref & 3) == PY_TAG_INT;
	int r = py_text_read(py, name_object, LIMIT_NAME_CHARS, &name);

	if (r && r != PY_E_TRUNCATED) {
		strbuf_deinit(&name);
		return r == PY_E_TYPE ? PY_E_TORN : r;
	}
	local->name = strbuf_take(&name);
	local->masked = local->name && !slots->unmask && py_local_is_secret(local->name);
	local->type = is_int ? strdup("int") : type_of(py, py_untag(ref));
	local->value = local->masked ? strdup("***") : is_int ? tagged_int(ref) : value_of(py, py_untag(ref));
	slots->n++; /* half-built ones are freed with the rest */
	return local->name && local->type && local->value ? 0 : -ENOMEM;
}

/* Return: 0, also where the name is another one. A variable that is an argument and a cell has two slots to 3.10, of
 * which one is empty. */
static int match_local(struct slots *slots, raddr name_object, uint64_t ref) {
	_cleanup_(strbuf_deinit) struct strbuf name = { 0 };
	int r = py_text_read(&slots->rt->reader, name_object, LIMIT_NAME_CHARS, &name);

	if (r)
		return r == PY_E_TYPE ? PY_E_TORN : r;
	if (strcmp(strbuf_str(&name), slots->wanted))
		return 0;
	slots->known = true;
	if (ref)
		slots->found = ref;
	return 0;
}

/* A cell's contents; 0 where it is empty. */
static uint64_t cell_contents(const struct slots *slots, uint64_t ref) {
	uint64_t contents = 0;

	mem_read_u64(slots->rt->reader.mem, py_untag(ref) + slots->rt->reader.layout.object_size, &contents);
	return contents;
}

static int add_named(struct slots *slots, raddr names, size_t first, const uint8_t *kinds, size_t kinds_n, bool cells) {
	raddr items[LIMIT_LOCALS];
	size_t n = 0;
	int r = names ? py_sequence_read(&slots->rt->reader, names, items, LIMIT_LOCALS, &n) : 0;

	n = min_of(n, (size_t)LIMIT_LOCALS);
	for (size_t i = 0; (!r || r == PY_E_TRUNCATED) && i < n && first + i < slots->values_n &&
		slots->n < LIMIT_LOCALS && !slots->found;
		i++) {
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
		if (slots->wanted)
			r = match_local(slots, items[i], value);
		else if (value)
			r = add_local(slots, items[i], value);
	}
	return r == PY_E_TRUNCATED ? 0 : r;
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
	return r ? r : add_named(slots, names, 0, kinds, kinds_n, false);
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
		r = add_named(slots, vars, 0, NULL, 0, false);
	if (!r)
		r = add_named(slots, cells, vars_n, NULL, 0, true);
	return r ? r : add_named(slots, frees, vars_n + cells_n, NULL, 0, true);
}

static void free_locals(struct pyspyd_local *locals, size_t n) {
	for (size_t i = 0; i < n; i++) {
		free(locals[i].name);
		free(locals[i].type);
		free(locals[i].value);
	}
	free(locals);
}

static int read_slots_of_version(struct slots *slots, const struct py_raw_frame *frame) {
	int r = layout_has(slots->rt->reader.layout.code_localsplusnames) ? read_localsplus(slots, frame)
									  : read_three_tuples(slots, frame);

	return r == PY_E_TYPE || r == PY_E_TRUNCATED ? PY_E_TORN : r;
}

int py_local_get(const struct py_runtime *rt, const struct py_raw_frame *frame, const char *name, uint64_t *ret_ref) {
	struct slots slots = { .rt = rt, .wanted = name };
	int r = read_slots_of_version(&slots, frame);

	if (r)
		return r;
	if (!slots.known)
		return PY_E_TYPE;
	*ret_ref = slots.found;
	return 0;
}

int py_locals_read(const struct py_runtime *rt, const struct py_raw_frame *frame, bool unmask,
	struct pyspyd_local **ret_locals, size_t *ret_n) {
	struct slots slots = { .rt = rt, .unmask = unmask };
	int r;

	slots.locals = calloc(LIMIT_LOCALS, sizeof(*slots.locals));
	if (!slots.locals)
		return -ENOMEM;
	r = read_slots_of_version(&slots, frame);
	if (r) {
		free_locals(slots.locals, slots.n);
		return r;
	}
	*ret_locals = slots.locals;
	*ret_n = slots.n;
	return 0;
}
