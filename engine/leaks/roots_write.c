/* SPDX-License-Identifier: MIT */
/* Steps as Python writes them. Names are read only here, from the keys' addresses: a key that is no more is "?". */
#include "engine/leaks/roots_map.h"

#include "engine/base/limits.h"
#include "engine/cpython/objects.h"
#include <string.h>

#define KEY_CHARS 60
#define NAME_CHARS 200
#define STEPS_MAX 256  /* of one path, hidden ones among them */
#define SLOTS_MAX 4096 /* names of one code object */
#define KIND_FREE 0x80 /* CPython 3.11+ Include/internal/pycore_code.h */

static const char *const texts[] = {
	[TEXT_NOTHING] = "",
	[TEXT_CACHE] = ".<cache>",
	[TEXT_RESULT] = ".<result>",
	[TEXT_CLASS] = ".__class__",
	[TEXT_BASE] = ".__base__",
	[TEXT_SELF] = ".__self__",
	[TEXT_CONTENTS] = ".cell_contents",
	[TEXT_AWAITS] = ".<awaited>",
	[TEXT_CORO] = ".<coroutine>",
	[TEXT_ARGS] = ".args",
	[TEXT_TRACEBACK] = ".__traceback__",
	[TEXT_CONTEXT] = ".__context__",
	[TEXT_CAUSE] = ".__cause__",
	[TEXT_NEXT] = ".tb_next",
};

/* What the program chose: cut, printable, and in quotes as a literal would need it. */
static void add_literal(struct strbuf *out, const struct strbuf *text, bool cut) {
	_cleanup_(strbuf_deinit) struct strbuf escaped = { 0 };

	for (size_t i = 0; i < text->len; i++) {
		if (text->data[i] == '\'' || text->data[i] == '\\')
			strbuf_add(&escaped, "\\", 1);
		strbuf_add(&escaped, text->data + i, 1);
	}
	strbuf_adds(out, "['");
	strbuf_add_printable(out, strbuf_str(&escaped), escaped.len);
	strbuf_adds(out, cut ? "…']" : "']");
	out->failed |= escaped.failed;
}

static int add_name(const struct py_reader *py, raddr object, struct strbuf *out) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	int r = py_text_read(py, object, NAME_CHARS, &text);

	if (root_is_final(r))
		return r;
	if (r && r != PY_E_TRUNCATED)
		strbuf_adds(out, "?");
	else
		strbuf_add_printable(out, strbuf_str(&text), text.len);
	return 0;
}

static int add_key(const struct py_reader *py, raddr key, struct strbuf *out) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	int64_t number;
	int r = py_text_read(py, key, KEY_CHARS, &text);

	if (!r || r == PY_E_TRUNCATED) {
		add_literal(out, &text, r == PY_E_TRUNCATED);
		return 0;
	}
	if (!root_is_final(r))
		r = py_long_read(py, key, &number);
	if (!r)
		strbuf_addf(out, "[%lld]", (long long)number);
	else if (!root_is_final(r))
		strbuf_adds(out, "[…]");
	return root_is_final(r) ? r : 0;
}

/* Names of a function's variables */

static int read_code_word(const struct py_reader *py, raddr function, uint32_t offset, uint64_t *ret) {
	raddr code;
	int r = mem_read_u64(py->mem, function + py->layout.function_code, &code);

	return r ? r : mem_read_u64(py->mem, code + offset, ret);
}

static int name_at(const struct py_reader *py, raddr tuple, uint64_t index, raddr *ret_name) {
	raddr names[LIMIT_LOCALS];
	size_t n;
	int r = py_sequence_read(py, tuple, names, ARRAY_SIZE(names), &n);

	if (!r || r == PY_E_TRUNCATED)
		r = index < min_of(n, ARRAY_SIZE(names)) ? 0 : PY_E_TYPE;
	if (!r)
		*ret_name = names[index];
	return r;
}

/* 3.11+: free variables stand among the others, in the order of the cells. */
static int free_slot(const struct py_reader *py, raddr function, uint64_t cell, uint64_t *ret_slot) {
	uint8_t *kinds _free_ = NULL;
	size_t n = 0;
	raddr bytes;
	int r = read_code_word(py, function, py->layout.code_localspluskinds, &bytes);

	if (!r)
		r = py_bytes_read(py, bytes, SLOTS_MAX, &kinds, &n);
	if (r)
		return r;
	for (size_t i = 0; i < n; i++)
		if (kinds[i] & KIND_FREE && !cell--) {
			*ret_slot = i;
			return 0;
		}
	return PY_E_TYPE;
}

static int add_variable(const struct py_reader *py, int r, raddr tuple, uint64_t index, struct strbuf *out) {
	raddr name = 0;

	if (!r)
		r = name_at(py, tuple, index, &name);
	if (!r)
		return add_name(py, name, out);
	if (!root_is_final(r))
		strbuf_adds(out, "?");
	return root_is_final(r) ? r : 0;
}

static int add_free_name(const struct py_reader *py, raddr function, uint64_t cell, struct strbuf *out) {
	const struct layout *l = &py->layout;
	bool old = !layout_has(l->code_localsplusnames);
	raddr names = 0;
	int r = read_code_word(py, function, old ? l->code_freevars : l->code_localsplusnames, &names);

	if (!r && !old)
		r = free_slot(py, function, cell, &cell);
	return add_variable(py, r, names, cell, out);
}

/* Defaults are those of the last of the arguments that may be given by position. */
static int add_default_name(
	const struct py_reader *py, raddr function, raddr defaults, uint64_t index, struct strbuf *out) {
	const struct layout *l = &py->layout;
	bool old = !layout_has(l->code_localsplusnames);
	uint64_t count = 0, names = 0;
	raddr unused;
	size_t n = 0;
	int r = read_code_word(py, function, l->code_argcount, &count);

	if (!r)
		r = read_code_word(py, function, old ? l->code_varnames : l->code_localsplusnames, &names);
	if (!r) {
		r = py_sequence_read(py, defaults, &unused, 1, &n);
		r = r == PY_E_TRUNCATED ? 0 : r;
	}
	count = (uint32_t)count;
	if (!r && n > count)
		r = PY_E_TYPE;
	return add_variable(py, r, names, count - n + index, out);
}

/* Steps */

static const struct root_entry *parent_of(const struct root_map *map, const struct root_entry *entry) {
	static const struct root_entry none;

	return entry->parent == ROOT_NONE ? &none : &map->entries.items[entry->parent];
}

static int write_hidden(const struct root_map *map, const struct root_entry *entry, bool last, struct strbuf *out) {
	static const char *const names[] = {
		[EDGE_NAMESPACE] = ".__dict__",
		[EDGE_CLOSURE] = ".__closure__",
		[EDGE_DEFAULTS] = ".__defaults__",
		[EDGE_KWDEFAULTS] = ".__kwdefaults__",
		[EDGE_THREADS] = ".<threads>",
	};

	if (entry->edge == EDGE_CELL) {
		strbuf_adds(out, ".<closure>.");
		return add_free_name(&map->rt->reader, parent_of(map, parent_of(map, entry))->object, entry->key, out);
	}
	if (last)
		strbuf_adds(out, names[entry->edge]);
	return 0;
}

static int write_step(const struct root_map *map, const struct root_entry *entry, bool last, struct strbuf *out) {
	const struct py_reader *py = &map->rt->reader;
	const struct root_entry *parent = parent_of(map, entry);
	char name[NAME_CHARS];
	int r;

	if (entry->hidden)
		return write_hidden(map, entry, last, out);
	switch ((enum root_edge)entry->edge) {
	case EDGE_MODULE:
	case EDGE_FRAME: strbuf_adds(out, intern_str(&map->strings, (uint32_t)entry->key)); return 0;
	case EDGE_ATTRIBUTE: strbuf_adds(out, "."); return add_name(py, entry->key, out);
	case EDGE_KEY: return add_key(py, entry->key, out);
	case EDGE_INDEX: strbuf_addf(out, "[%llu]", (unsigned long long)entry->key); return 0;
	case EDGE_ITEM: strbuf_adds(out, "[…]"); return 0;
	case EDGE_MEMBER:
		r = mem_read_cstr(py->mem, entry->key, name, sizeof(name));
		if (root_is_final(r))
			return r;
		strbuf_adds(out, ".");
		strbuf_add_printable(out, r ? "?" : name, r ? 1 : strlen(name));
		return 0;
	case EDGE_DEFAULT:
		strbuf_adds(out, ".<defaults>.");
		return add_default_name(py, parent_of(map, parent)->object, parent->object, entry->key, out);
	case EDGE_KWDEFAULT: strbuf_adds(out, ".<defaults>."); return add_name(py, entry->key, out);
	case EDGE_LOCAL: strbuf_addf(out, ".<locals>.%s", intern_str(&map->strings, (uint32_t)entry->key)); return 0;
	case EDGE_TEXT: strbuf_adds(out, texts[entry->key]); return 0;
	default: return 0;
	}
}

int root_write(const struct root_map *map, uint32_t entry, struct strbuf *out) {
	uint32_t chain[STEPS_MAX];
	size_t n = 0;
	int r = 0;

	for (; entry != ROOT_NONE && n < STEPS_MAX; entry = map->entries.items[entry].parent)
		chain[n++] = entry;
	for (size_t i = n; !r && i > 0; i--)
		r = write_step(map, &map->entries.items[chain[i - 1]], i == 1, out);
	return r ? r : out->failed ? -ENOMEM : 0;
}
