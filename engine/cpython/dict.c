/* SPDX-License-Identifier: MIT */
/* Dictionaries and instance attributes.
 *
 * A dict is a keys object, which holds a hash index and then the entries in the order of insertion: {hash, key, value},
 * or from 3.11 on {key, value} where all keys are str. A split dict shares its keys object with the other instances of
 * the class and has its values in an array of its own. We never hash: the walk goes over the entries, and a lookup
 * compares all keys, many with one read.
 *
 * Where an instance keeps its attributes (CPython Include/internal/pycore_object.h of each version):
 *   to 3.10      a dict, its address at tp_dictoffset
 *   3.11         managed: address of the values at -32, of the dict at -24; one of the two is set
 *   3.12         managed: one word at -24; with the lowest bit set it is the address of the values, less one
 *   3.13+        managed: address of the dict at -24 (free-threaded: -8); inline values behind the object as long as
 *                they are valid, also where a dict was made that shares them
 *   all          classes that are not managed (from a base with its own layout) still use tp_dictoffset */
#include "engine/cpython/object_head.h"

#include "engine/base/limits.h"
#include <errno.h>
#include <string.h>

#define V3_11 0x030b0000
#define V3_12 0x030c0000
#define V3_13 0x030d0000

#define LOG2_SIZE_MAX 40
#define KEYS_HEAD_BYTES 64
#define VAR_ITEMS_MAX (UINT64_C(1) << 40)
#define BATCH 256               /* entries of one read */
#define NAMES_BYTES (16U << 10) /* beginnings of keys of one read */
#define VALUES_HEAD_BYTES 8     /* 3.13+: capacity, size, embedded, valid, padding */
#define VALUES_VALID_BYTE 3
#define KEYS_GENERAL 0
#define KEYS_SPLIT 2

/* Where the entries of one dict are. */
struct entries {
	raddr first;
	raddr values; /* of a split dict; else 0: the values stand with the keys */
	size_t n;
	bool cut;      /* there are more */
	unsigned size; /* of one entry; the value is its last word, the key the one before */
};

struct entry {
	raddr key, value;
};

/* 3.6 to 3.10: the index's width follows from its size; one kind of entries. */
static int keys_sizes_old(uint64_t size, uint64_t *slots, uint64_t *index_bytes) {
	if (size > UINT64_C(1) << LOG2_SIZE_MAX)
		return PY_E_TYPE;
	*slots = size;
	*index_bytes = size * (size <= 0xff ? 1 : size <= 0xffff ? 2 : size <= 0xffffffff ? 4 : 8);
	return 0;
}

static int keys_sizes(uint8_t log2_size, uint8_t log2_index_bytes, uint64_t *slots, uint64_t *index_bytes) {
	if (log2_size > LOG2_SIZE_MAX || log2_index_bytes > LOG2_SIZE_MAX + 3)
		return PY_E_TYPE;
	*slots = UINT64_C(1) << log2_size;
	*index_bytes = UINT64_C(1) << log2_index_bytes;
	return 0;
}

static int entries_of_keys(const struct py_reader *py, raddr keys, raddr values, struct entries *ret) {
	const struct layout *layout = &py->layout;
	uint64_t slots, index_bytes, n;
	uint8_t head[KEYS_HEAD_BYTES];
	size_t len = layout->keys_indices;
	unsigned kind = KEYS_GENERAL;
	int r;

	if (!keys || len > sizeof(head))
		return PY_E_TYPE;
	r = mem_read(py->mem, keys, head, len);
	if (r)
		return r;
	if (layout_has(layout->keys_size)) {
		r = keys_sizes_old(peek_u64(head, len, layout->keys_size), &slots, &index_bytes);
	} else {
		kind = peek_u8(head, len, layout->keys_kind);
		r = keys_sizes(peek_u8(head, len, layout->keys_log2_size),
			peek_u8(head, len, layout->keys_log2_index_bytes), &slots, &index_bytes);
	}
	n = peek_u64(head, len, layout->keys_nentries);
	if (r || kind > KEYS_SPLIT || n > slots)
		return PY_E_TYPE;
	*ret = (struct entries){
		.first = keys + len + index_bytes,
		.values = values,
		.n = min_of(n, (uint64_t)LIMIT_DICT_ENTRIES),
		.cut = n > LIMIT_DICT_ENTRIES,
		.size = kind == KEYS_GENERAL ? 3 * sizeof(uint64_t) : 2 * sizeof(uint64_t),
	};
	return 0;
}

static int entries_of_dict(const struct py_reader *py, raddr dict, struct entries *ret) {
	struct object_head head;
	raddr values;
	int r;

	r = object_head_read_as(py, dict, TYPE_DICT, py->layout.dict_values + sizeof(raddr), &head);
	if (r)
		return r;
	values = object_u64(&head, py->layout.dict_values);
	if (values && py->version >= V3_13)
		values += VALUES_HEAD_BYTES;
	return entries_of_keys(py, object_u64(&head, py->layout.dict_keys), values, ret);
}

/* Copies the live ones of up to BATCH entries from number `from` on. */
static int entries_read(
	const struct py_reader *py, const struct entries *entries, size_t from, struct entry *ret, size_t *ret_live) {
	size_t n = min_of(entries->n - from, (size_t)BATCH), live = 0;
	uint64_t words[BATCH * 3], values[BATCH];
	unsigned step = entries->size / sizeof(words[0]);
	struct mem_range ranges[] = {
		{ entries->first + from * entries->size, n * entries->size, words },
		{ entries->values + from * sizeof(values[0]), n * sizeof(values[0]), values },
	};
	int r;

	r = mem_read_many(py->mem, ranges, entries->values ? 2 : 1, NULL);
	if (r)
		return r;
	for (size_t i = 0; i < n; i++) {
		const uint64_t *entry = &words[i * step];
		raddr value = entries->values ? values[i] : entry[step - 1];

		if (entry[step - 2] && value)
			ret[live++] = (struct entry){ .key = entry[step - 2], .value = value };
	}
	*ret_live = live;
	return 0;
}

static int entries_walk(const struct py_reader *py, const struct entries *entries, py_dict_each each, void *userdata) {
	struct entry batch[BATCH];
	size_t live;
	int r;

	for (size_t from = 0; from < entries->n; from += BATCH) {
		r = entries_read(py, entries, from, batch, &live);
		for (size_t i = 0; !r && i < live; i++)
			r = each(userdata, batch[i].key, batch[i].value);
		if (r)
			return r;
	}
	return entries->cut ? PY_E_TRUNCATED : 0;
}

int py_dict_walk(const struct py_reader *py, raddr dict, py_dict_each each, void *userdata) {
	struct entries entries;
	int r;

	r = entries_of_dict(py, dict, &entries);
	return r ? r : entries_walk(py, &entries, each, userdata);
}

/* What is searched for. */
struct name {
	const char *chars;
	size_t len;
	bool ascii;
};

static struct name name_of(const char *chars) {
	struct name name = { .chars = chars, .len = strlen(chars), .ascii = true };

	for (size_t i = 0; i < name.len; i++)
		name.ascii = name.ascii && !(chars[i] & 0x80);
	return name;
}

/* By a key's first bytes, whatever it is: whether it is worth a closer look. */
static bool name_may_be(const struct py_reader *py, const struct name *name, const uint8_t *key, size_t len) {
	const struct layout *layout = &py->layout;
	bool compact = text_state(layout, key, len, layout->unicode_compact_bit, 1);
	bool ascii = text_state(layout, key, len, layout->unicode_ascii_bit, 1);

	if (!compact || !ascii)
		return !compact || !name->ascii;
	return name->ascii && peek_u64(key, len, layout->unicode_length) == name->len &&
		!memcmp(key + layout->unicode_ascii_size, name->chars, name->len);
}

/* A key that cannot be read is another one. Return: 0; what ends a search: MEM_E_GONE, negative errno. */
static int name_is(const struct py_reader *py, const struct name *name, raddr key, bool *ret_same) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	int r = py_text_read(py, key, name->len, &text);

	*ret_same = !r && text.len == name->len && !memcmp(strbuf_str(&text), name->chars, name->len);
	return r < 0 || r == MEM_E_GONE ? r : 0;
}

/* Copies the beginnings of keys, `len` bytes each. A key may be shorter and lie before a hole: then only a header's
 * length. What cannot be read stays zero. */
static int names_read(const struct py_reader *py, const struct entry *entries, size_t n, uint8_t *buf, size_t len) {
	struct mem_range ranges[BATCH];
	int r = 0;

	memset(buf, 0, n * len);
	for (size_t i = 0; i < n; i++)
		ranges[i] = (struct mem_range){ entries[i].key, len, buf + i * len };
	for (size_t at = 0, done = 0; at < n; at += done + 1) {
		r = mem_read_many(py->mem, ranges + at, n - at, &done);
		if (r != MEM_E_FAULT)
			return r;
		r = mem_read(py->mem, entries[at + done].key, ranges[at + done].buf, py->layout.unicode_ascii_size);
		if (r && r != MEM_E_FAULT)
			return r;
	}
	return 0;
}

/* Return: 0 and *ret_value; PY_E_TYPE not among them. */
static int names_find(
	const struct py_reader *py, const struct name *name, const struct entry *entries, size_t n, raddr *ret_value) {
	size_t len = py->layout.unicode_ascii_size + name->len;
	size_t step = min_of(NAMES_BYTES / len, (size_t)BATCH);
	uint8_t buf[NAMES_BYTES];
	bool same;
	int r;

	for (size_t from = 0; from < n; from += step) {
		size_t some = min_of(step, n - from);

		r = names_read(py, entries + from, some, buf, len);
		for (size_t i = 0; !r && i < some; i++) {
			if (!name_may_be(py, name, buf + i * len, len))
				continue;
			r = name_is(py, name, entries[from + i].key, &same);
			if (!r && same) {
				*ret_value = entries[from + i].value;
				return 0;
			}
		}
		if (r)
			return r;
	}
	return PY_E_TYPE;
}

static int entries_find(const struct py_reader *py, const struct entries *entries, const char *key, raddr *ret_value) {
	struct name name = name_of(key);
	struct entry batch[BATCH];
	size_t live;
	int r;

	if (name.len > LIMIT_NAME_CHARS)
		return PY_E_TYPE;
	for (size_t from = 0; from < entries->n; from += BATCH) {
		r = entries_read(py, entries, from, batch, &live);
		if (!r)
			r = names_find(py, &name, batch, live, ret_value);
		if (r != PY_E_TYPE)
			return r;
	}
	return entries->cut ? PY_E_TRUNCATED : PY_E_TYPE;
}

int py_dict_get(const struct py_reader *py, raddr dict, const char *key, raddr *ret_value) {
	struct entries entries;
	int r;

	r = entries_of_dict(py, dict, &entries);
	return r ? r : entries_find(py, &entries, key, ret_value);
}

/* Finds the instance's values or else its dict, of which one stays 0; both do where it has no attributes. */
static int managed_find(
	const struct py_reader *py, raddr object, const struct type_head *type, raddr *ret_values, raddr *ret_dict) {
	uint8_t head[VALUES_HEAD_BYTES];
	uint64_t words[2]; /* at -32 and -24 */
	raddr behind = object + (uint64_t)type->basicsize;
	int r;

	*ret_values = *ret_dict = 0;
	if (py->version >= V3_13 && type->flags & TYPE_INLINE_VALUES) {
		r = mem_read(py->mem, behind, head, sizeof(head));
		if (!r && head[VALUES_VALID_BYTE])
			*ret_values = behind + VALUES_HEAD_BYTES;
		if (r || *ret_values)
			return r;
	}
	if (py->flavour & LAYOUT_FREE_THREADED)
		return mem_read_u64(py->mem, object - sizeof(raddr), ret_dict);
	r = mem_read(py->mem, object - 4 * sizeof(raddr), words, sizeof(words));
	if (r)
		return r;
	if (py->version < V3_12)
		*ret_values = words[0];
	else if (py->version < V3_13 && words[1] & 1)
		*ret_values = words[1] + 1;
	if (!*ret_values)
		*ret_dict = words[1];
	return 0;
}

static int managed_entries(
	const struct py_reader *py, raddr object, const struct type_head *type, struct entries *ret) {
	raddr values, dict, keys;
	int r;

	r = managed_find(py, object, type, &values, &dict);
	if (r)
		return r;
	if (!values)
		return dict ? entries_of_dict(py, dict, ret) : PY_E_TYPE;
	r = mem_read_u64(py->mem, type->addr + py->layout.heaptype_cached_keys, &keys);
	return r ? r : entries_of_keys(py, keys, values, ret);
}

/* A negative offset counts from the end of an object of variable size. From 3.12 on subclasses of such types are
 * managed, also those of int, whose var_size is none any more. */
static int dict_address(const struct py_reader *py, raddr object, const struct type_head *type, raddr *ret) {
	uint64_t items, size;
	int r;

	if (type->dictoffset >= 0) {
		*ret = object + (uint64_t)type->dictoffset;
		return 0;
	}
	r = mem_read_u64(py->mem, object + py->layout.var_size, &items);
	if (r)
		return r;
	items = (int64_t)items < 0 ? -items : items;
	if (items > VAR_ITEMS_MAX)
		return PY_E_TYPE;
	size = (uint64_t)type->basicsize + items * (uint64_t)type->itemsize;
	size = (size + sizeof(raddr) - 1) & ~(uint64_t)(sizeof(raddr) - 1);
	*ret = object + size + (uint64_t)type->dictoffset;
	return 0;
}

/* Where an instance has its attributes. Return: 0; PY_E_TYPE it has none; as mem_read_many. */
static int entries_of_instance(const struct py_reader *py, raddr object, struct entries *ret) {
	struct type_head type;
	raddr at, dict;
	int r;

	r = py_type_of(py, object, &at);
	if (!r)
		r = type_head_read(py, at, &type);
	if (r)
		return r;
	if (py->version >= V3_11 && type.flags & TYPE_MANAGED_DICT)
		return managed_entries(py, object, &type, ret);
	if (!type.dictoffset)
		return PY_E_TYPE;
	r = dict_address(py, object, &type, &at);
	if (!r)
		r = mem_read_u64(py->mem, at, &dict);
	if (r)
		return r;
	return dict ? entries_of_dict(py, dict, ret) : PY_E_TYPE;
}

int py_attribute(const struct py_reader *py, raddr object, const char *name, raddr *ret_value) {
	struct entries entries;
	int r;

	r = entries_of_instance(py, object, &entries);
	return r ? r : entries_find(py, &entries, name, ret_value);
}

int py_attributes_walk(const struct py_reader *py, raddr object, py_dict_each each, void *userdata) {
	struct entries entries;
	int r;

	r = entries_of_instance(py, object, &entries);
	return r ? r : entries_walk(py, &entries, each, userdata);
}
