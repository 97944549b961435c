/* SPDX-License-Identifier: MIT */
/* Objects by hand in two layouts, one with the dicts and ints of 3.8, one with those of 3.13, and what a hostile target
 * could put in their place. Real objects are compared by tests/live/objects_oracle.sh. */
#include "engine/base/limits.h"
#include "engine/cpython/objects.h"

#include <criterion/criterion.h>
#include <string.h>

#define BASE UINT64_C(0x7f0000000000)
#define IMAGE_BYTES (64U << 10)
#define V3_8 0x030812f0
#define V3_13 0x030d00f0

#define FLAG_LONG (1U << 24)
#define FLAG_LIST (1U << 25)
#define FLAG_TUPLE (1U << 26)
#define FLAG_BYTES (1U << 27)
#define FLAG_UNICODE (1U << 28)
#define FLAG_DICT (1U << 29)
#define FLAG_MANAGED ((1U << 4) | (1U << 2))

/* The types of the image, in its first pages: 1 KiB each. */
enum type { T_LONG, T_LIST, T_TUPLE, T_BYTES, T_STR, T_DICT, T_FLOAT, T_NONE, T_PLAIN, TYPES_N };

static const struct {
	const char *name;
	uint64_t flags;
} types[] = {
	[T_LONG] = { "int", FLAG_LONG },
	[T_LIST] = { "list", FLAG_LIST },
	[T_TUPLE] = { "tuple", FLAG_TUPLE },
	[T_BYTES] = { "bytes", FLAG_BYTES },
	[T_STR] = { "str", FLAG_UNICODE },
	[T_DICT] = { "dict", FLAG_DICT },
	[T_FLOAT] = { "float", 0 },
	[T_NONE] = { "NoneType", 0 },
	[T_PLAIN] = { "queue.Queue", 0 },
};

static uint8_t image[IMAGE_BYTES];
static size_t used;
static struct py_reader py;

static raddr take(size_t bytes) {
	raddr at = BASE + used;

	used += (bytes + 15) & ~(size_t)15;
	cr_assert_leq(used, sizeof(image));
	return at;
}

static void put(raddr at, const void *bytes, size_t n) {
	memcpy(image + (at - BASE), bytes, n);
}

static void put_u64(raddr at, uint64_t value) {
	put(at, &value, sizeof(value));
}

static void put_u8(raddr at, uint8_t value) {
	put(at, &value, sizeof(value));
}

static raddr type_at(enum type type) {
	return BASE + (uint64_t)type * 1024;
}

static void put_types(void) {
	take(TYPES_N * 1024);
	for (enum type t = 0; t < TYPES_N; t++) {
		raddr name = take(32);

		put(name, types[t].name, strlen(types[t].name) + 1);
		put_u64(type_at(t) + py.layout.type_name, name);
		put_u64(type_at(t) + py.layout.type_flags, types[t].flags);
		put_u64(type_at(t) + py.layout.type_basicsize, py.layout.object_size);
	}
}

static void open_image(uint32_t version) {
	const struct layout_row *row = layout_find(version, LAYOUT_RELEASE);
	struct mem_segment segment = { BASE, sizeof(image), image };

	cr_assert_not_null(row);
	py = (struct py_reader){ .layout = row->layout, .version = version };
	memset(image, 0, sizeof(image));
	used = 0;
	cr_assert_eq(mem_bytes_new(&segment, 1, &py.mem), 0);
	put_types();
}

static void close_image(void) {
	mem_free(py.mem);
}

static raddr new_object(enum type type, size_t bytes) {
	raddr at = take(max_of(bytes, (size_t)64));

	put_u64(at + py.layout.object_type, type_at(type));
	return at;
}

/* `kind`: bytes a character. */
static raddr new_text(const void *chars, size_t n, unsigned kind, bool ascii) {
	uint32_t data = ascii ? py.layout.unicode_ascii_size : py.layout.unicode_compact_size;
	raddr at = new_object(T_STR, data + (n + 1) * kind);

	put_u64(at + py.layout.unicode_length, n);
	put_u64(at + py.layout.unicode_state,
		kind << py.layout.unicode_kind_bit | 1U << py.layout.unicode_compact_bit |
			(unsigned)ascii << py.layout.unicode_ascii_bit);
	put(at + data, chars, n * kind);
	return at;
}

static raddr new_ascii(const char *chars) {
	return new_text(chars, strlen(chars), 1, true);
}

static raddr new_long(uint32_t digit) {
	raddr at = new_object(T_LONG, 32);

	if (layout_has(py.layout.long_tag))
		put_u64(at + py.layout.long_tag, digit ? 1 << 3 : 1);
	else
		put_u64(at + py.layout.var_size, digit != 0);
	put(at + py.layout.long_digits, &digit, sizeof(digit));
	return at;
}

static raddr new_sequence(enum type type, const raddr *items, size_t n) {
	raddr at = new_object(type, 64 + n * sizeof(*items)), first = at + py.layout.tuple_items;

	put_u64(at + py.layout.var_size, n);
	if (type == T_LIST) {
		first = take(n * sizeof(*items));
		put_u64(at + py.layout.list_items, first);
	}
	put(first, items, n * sizeof(*items));
	return at;
}

/* A keys object of eight slots; on 3.13 with keys that are all str. */
static raddr new_keys(const raddr *keys, const raddr *values, size_t n) {
	bool old = layout_has(py.layout.keys_size);
	unsigned words = old ? 3 : 2;
	raddr at = take(512), entry = at + py.layout.keys_indices + 8;

	if (old) {
		put_u64(at + py.layout.keys_size, 8);
	} else {
		put_u8(at + py.layout.keys_log2_size, 3);
		put_u8(at + py.layout.keys_log2_index_bytes, 3);
		put_u8(at + py.layout.keys_kind, values ? 1 : 2);
	}
	put_u64(at + py.layout.keys_nentries, n);
	for (size_t i = 0; i < n; i++, entry += words * 8) {
		put_u64(entry + (words - 2) * 8, keys[i]);
		put_u64(entry + (words - 1) * 8, values ? values[i] : 0);
	}
	return at;
}

static raddr new_dict(raddr keys, raddr values, size_t n) {
	raddr at = new_object(T_DICT, 48);

	put_u64(at + py.layout.dict_used, n);
	put_u64(at + py.layout.dict_keys, keys);
	put_u64(at + py.layout.dict_values, values);
	return at;
}

#define LAYOUTS_TEST(name) \
	static void check_##name(void); \
	Test(objects, name##_in_3_8) { \
		open_image(V3_8); \
		check_##name(); \
		close_image(); \
	} \
	Test(objects, name##_in_3_13) { \
		open_image(V3_13); \
		check_##name(); \
		close_image(); \
	} \
	static void check_##name(void)

static void expect_text(raddr object, size_t max, const char *expected, int result) {
	struct strbuf sb = { 0 };

	cr_assert_eq(py_text_read(&py, object, max, &sb), result);
	cr_assert_str_eq(strbuf_str(&sb), expected);
	strbuf_deinit(&sb);
}

static void expect_value(raddr object, const char *expected) {
	struct strbuf sb = { 0 };

	py_value_describe(&py, object, LIMIT_VALUE_CHARS, &sb);
	cr_assert_str_eq(strbuf_str(&sb), expected);
	strbuf_deinit(&sb);
}

LAYOUTS_TEST(text_of_all_widths) {
	static const uint16_t two[] = { 0x416, 0xd800, 'x' };
	static const uint32_t four[] = { 0x1f40d, 0x110000, '!' };

	expect_text(new_ascii("plain"), 10, "plain", 0);
	expect_text(new_ascii(""), 10, "", 0);
	expect_text(new_ascii("plain"), 3, "pla", PY_E_TRUNCATED);
	expect_text(new_text("caf\xe9", 4, 1, false), 10, "café", 0);
	expect_text(new_text(two, 3, 2, false), 10, "Ж\xef\xbf\xbdx", 0);
	expect_text(new_text(four, 3, 4, false), 10, "\U0001f40d\xef\xbf\xbd!", 0);
	expect_text(new_text("\xff", 1, 1, true), 10, "ÿ", 0); /* not ASCII, whatever the flag says: still UTF-8 */
}

LAYOUTS_TEST(text_that_lies) {
	raddr text = new_ascii("plain");
	struct strbuf sb = { 0 };

	put_u64(text + py.layout.unicode_length, UINT64_MAX);
	cr_assert_eq(py_text_read(&py, text, 100, &sb), PY_E_TYPE);
	put_u64(text + py.layout.unicode_length, INT64_MAX);
	cr_assert_eq(py_text_read(&py, text, SIZE_MAX, &sb), PY_E_TYPE);
	put_u64(text + py.layout.unicode_length, UINT64_C(1) << 40);
	cr_assert_eq(py_text_read(&py, text, SIZE_MAX, &sb), MEM_E_FAULT);
	put_u64(text + py.layout.unicode_length, 5);
	put_u64(text + py.layout.unicode_state, 3U << py.layout.unicode_kind_bit | 1U << py.layout.unicode_compact_bit);
	cr_assert_eq(py_text_read(&py, text, 100, &sb), PY_E_TYPE);
	put_u64(text + py.layout.unicode_state, 1U << py.layout.unicode_kind_bit);
	put_u64(text + py.layout.unicode_data, 0xdead0000);
	cr_assert_eq(py_text_read(&py, text, 100, &sb), MEM_E_FAULT);
	cr_assert_eq(py_text_read(&py, new_long(1), 100, &sb), PY_E_TYPE);
	cr_assert_eq(py_text_read(&py, 0, 100, &sb), PY_E_TYPE);
	cr_assert_eq(py_text_read(&py, BASE - 8, 100, &sb), MEM_E_FAULT);
	cr_assert_eq(py_text_read(&py, UINT64_MAX - 3, 100, &sb), MEM_E_FAULT);
	strbuf_deinit(&sb);
}

LAYOUTS_TEST(text_at_the_end_of_memory) {
	raddr text;

	used = sizeof(image) - 64;
	text = new_ascii("0123456789");
	expect_text(text, 100, "0123456789", 0);
}

LAYOUTS_TEST(bytes) {
	raddr object = new_object(T_BYTES, 128);
	uint8_t *data = NULL;
	size_t len = 7;

	put(object + py.layout.bytes_data, "a\0b", 3);
	put_u64(object + py.layout.var_size, 3);
	cr_assert_eq(py_bytes_read(&py, object, 3, &data, &len), 0);
	cr_assert_eq(len, 3);
	cr_assert_eq(memcmp(data, "a\0b", 3), 0);
	free(data);
	data = NULL;
	cr_assert_eq(py_bytes_read(&py, object, 2, &data, &len), PY_E_TRUNCATED);
	put_u64(object + py.layout.var_size, (uint64_t)-3);
	cr_assert_eq(py_bytes_read(&py, object, 100, &data, &len), PY_E_TYPE);
	put_u64(object + py.layout.var_size, 1U << 20);
	cr_assert_eq(py_bytes_read(&py, object, 1U << 20, &data, &len), MEM_E_FAULT);
	cr_assert_null(data);
	cr_assert_eq(len, 3, "untouched on failure");
	expect_value(new_ascii("text"), "'text'");
}

static void put_digits(raddr at, bool negative, size_t n, uint32_t digit) {
	if (layout_has(py.layout.long_tag))
		put_u64(at + py.layout.long_tag, n << 3 | (negative ? 2 : n ? 0 : 1));
	else
		put_u64(at + py.layout.var_size, negative ? -n : n);
	for (size_t i = 0; i < n && i < 8; i++)
		put(at + py.layout.long_digits + i * 4, &digit, sizeof(digit));
}

LAYOUTS_TEST(longs) {
	raddr at = new_object(T_LONG, 64);
	int64_t number = 0;

	put_digits(at, false, 0, 0);
	cr_assert_eq(py_long_read(&py, at, &number), 0);
	cr_assert_eq(number, 0);
	put_digits(at, true, 2, 1);
	cr_assert_eq(py_long_read(&py, at, &number), 0);
	cr_assert_eq(number, -((INT64_C(1) << 30) + 1));
	put_digits(at, true, 3, 0);
	put(at + py.layout.long_digits + 8, &(uint32_t){ 8 }, 4);
	cr_assert_eq(py_long_read(&py, at, &number), 0);
	cr_assert_eq(number, INT64_MIN);
	put_digits(at, false, 3, 0);
	put(at + py.layout.long_digits + 8, &(uint32_t){ 8 }, 4);
	cr_assert_eq(py_long_read(&py, at, &number), PY_E_TRUNCATED);
	put_digits(at, false, 3, UINT32_MAX); /* more than 30 bits */
	cr_assert_eq(py_long_read(&py, at, &number), PY_E_TRUNCATED);
	put_digits(at, true, SIZE_MAX >> 4, 1);
	cr_assert_eq(py_long_read(&py, at, &number), PY_E_TRUNCATED);
	cr_assert_eq(number, INT64_MIN, "untouched on failure");
	cr_assert_eq(py_long_read(&py, new_ascii("1"), &number), PY_E_TYPE);
}

LAYOUTS_TEST(sequences) {
	raddr items[] = { new_long(1), new_ascii("two"), 0x1234 }, got[4];
	raddr tuple = new_sequence(T_TUPLE, items, 3), list = new_sequence(T_LIST, items, 3);
	size_t n = 0;

	cr_assert_eq(py_sequence_read(&py, tuple, got, 2, &n), 0);
	cr_assert_eq(n, 3);
	cr_assert_eq(got[1], items[1]);
	cr_assert_eq(py_sequence_read(&py, list, got, 4, &n), 0);
	cr_assert_eq(got[2], items[2]);
	expect_value(tuple, "(1, 'two', ?)");
	expect_value(list, "[1, 'two', ?]");
	put_u64(list + py.layout.var_size, (uint64_t)-1);
	cr_assert_eq(py_sequence_read(&py, list, got, 4, &n), PY_E_TYPE);
	put_u64(list + py.layout.var_size, 1U << 20);
	put_u64(list + py.layout.list_items, 0);
	cr_assert_eq(py_sequence_read(&py, list, got, 4, &n), MEM_E_FAULT);
	expect_value(list, "?");
	cr_assert_eq(py_sequence_read(&py, items[0], got, 4, &n), PY_E_TYPE);
}

static int count_entries(void *userdata, raddr key, raddr value) {
	cr_assert(key && value);
	++*(size_t *)userdata;
	return 0;
}

static int stop_at_once(void *userdata, raddr key, raddr value) {
	(void)userdata;
	(void)key;
	(void)value;
	return 77;
}

LAYOUTS_TEST(dicts) {
	raddr keys[] = { new_ascii("one"), new_ascii("two"), new_ascii("three"), new_text("caf\xe9", 4, 1, false) };
	raddr values[] = { new_long(1), 0, new_long(3), new_long(4) }; /* "two" was deleted */
	raddr dict = new_dict(new_keys(keys, values, 4), 0, 3), value = 5;
	size_t n = 0;

	cr_assert_eq(py_dict_walk(&py, dict, count_entries, &n), 0);
	cr_assert_eq(n, 3);
	cr_assert_eq(py_dict_walk(&py, dict, stop_at_once, NULL), 77);
	cr_assert_eq(py_dict_get(&py, dict, "two", &value), PY_E_TYPE);
	cr_assert_eq(py_dict_get(&py, dict, "", &value), PY_E_TYPE);
	cr_assert_eq(value, 5, "untouched on failure");
	cr_assert_eq(py_dict_get(&py, dict, "three", &value), 0);
	cr_assert_eq(value, values[2]);
	cr_assert_eq(py_dict_get(&py, dict, "café", &value), 0);
	cr_assert_eq(value, values[3]);
	cr_assert_eq(py_dict_get(&py, keys[0], "three", &value), PY_E_TYPE);
	expect_value(dict, "{'one': 1, 'three': 3, 'café': 4}");
}

LAYOUTS_TEST(split_dicts) {
	raddr keys[] = { new_ascii("one"), new_ascii("two") };
	raddr array = take(64), values = new_long(2), value;
	raddr dict = new_dict(new_keys(keys, NULL, 2), array, 1);

	put_u64(array + (py.version == V3_13 ? 16 : 8), values);
	cr_assert_eq(py_dict_get(&py, dict, "two", &value), 0);
	cr_assert_eq(value, values);
	cr_assert_eq(py_dict_get(&py, dict, "one", &value), PY_E_TYPE);
	expect_value(dict, "{'two': 2}");
}

LAYOUTS_TEST(keys_that_lie) {
	raddr keys[] = { new_ascii("one") }, values[] = { new_long(1) }, at = new_keys(keys, values, 1), value;
	raddr dict = new_dict(at, 0, 1);
	size_t n = 0;

	put_u64(at + py.layout.keys_nentries, UINT64_MAX);
	cr_assert_eq(py_dict_walk(&py, dict, count_entries, &n), PY_E_TYPE);
	put_u64(at + py.layout.keys_nentries, 9);
	cr_assert_eq(py_dict_get(&py, dict, "one", &value), PY_E_TYPE);
	if (layout_has(py.layout.keys_size)) {
		put_u64(at + py.layout.keys_size, UINT64_MAX);
		cr_assert_eq(py_dict_walk(&py, dict, count_entries, &n), PY_E_TYPE);
		put_u64(at + py.layout.keys_size, UINT64_C(1) << 40);
	} else {
		put_u8(at + py.layout.keys_log2_size, 255);
		cr_assert_eq(py_dict_walk(&py, dict, count_entries, &n), PY_E_TYPE);
		put_u8(at + py.layout.keys_log2_size, 40);
		put_u8(at + py.layout.keys_kind, 3);
		cr_assert_eq(py_dict_walk(&py, dict, count_entries, &n), PY_E_TYPE);
		put_u8(at + py.layout.keys_kind, 0);
		put_u8(at + py.layout.keys_log2_index_bytes, 43);
	}
	put_u64(at + py.layout.keys_nentries, UINT64_C(1) << 39);
	cr_assert_eq(py_dict_walk(&py, dict, count_entries, &n), MEM_E_FAULT);
	put_u64(dict + py.layout.dict_keys, dict); /* itself */
	py_dict_walk(&py, dict, count_entries, &n);
	put_u64(dict + py.layout.dict_keys, 0);
	cr_assert_eq(py_dict_walk(&py, dict, count_entries, &n), PY_E_TYPE);
	expect_value(dict, "?");
}

LAYOUTS_TEST(containers_that_hold_themselves) {
	raddr name = new_ascii("self"), list = new_sequence(T_LIST, (raddr[]){ 0 }, 1);
	raddr dict = new_dict(new_keys(&name, (raddr[]){ list }, 1), 0, 1);

	put_u64(list + py.layout.list_items, list + 64 + 16); /* where its one item is */
	put_u64(list + 64 + 16, dict);
	expect_value(dict, "{'self': [dict of 1]}");
	put_u64(list + 64 + 16, list);
	expect_value(list, "[[list of 1]]");
	dict = new_dict(0, 0, 1);
	put_u64(dict + py.layout.dict_keys, new_keys(&dict, &dict, 1)); /* as its own key */
	expect_value(dict, "{{dict of 1: dict of 1}: {dict of 1: dict of 1}}");
}

LAYOUTS_TEST(a_type_that_is_its_own) {
	raddr at = take(1024);
	struct strbuf sb = { 0 };
	char name[16];

	put_u64(at + py.layout.object_type, at);
	put_u64(at + py.layout.type_flags, UINT64_MAX);
	put_u64(at + py.layout.type_name, at + 512);
	put_u64(at + py.layout.type_dict, at);
	put_u64(at + py.layout.type_dictoffset, (uint64_t)INT64_MIN);
	py_value_describe(&py, at, 100, &sb);
	strbuf_deinit(&sb);
	cr_assert_eq(py_type_name(&py, at, name, sizeof(name)), 0);
	cr_assert_neq(py_attribute(&py, at, "x", &at), 0);
}

LAYOUTS_TEST(values) {
	raddr number = new_object(T_FLOAT, 24), plain = new_object(T_PLAIN, 16);
	char expected[64];
	double half = 0.5;

	put(number + py.layout.float_value, &half, sizeof(half));
	expect_value(number, "0.5");
	expect_value(new_object(T_NONE, 16), "None");
	snprintf(expected, sizeof(expected), "<queue.Queue at 0x%llx>", (unsigned long long)plain);
	expect_value(plain, expected);
	expect_value(0, "?");
	expect_value(BASE + 1, "?");
}

static void expect_masked(raddr object, const char *expected) {
	struct strbuf sb = { 0 };

	py_value_describe_masked(&py, object, LIMIT_VALUE_CHARS, &sb);
	cr_assert_str_eq(strbuf_str(&sb), expected);
	strbuf_deinit(&sb);
}

LAYOUTS_TEST(secrets_in_dicts) {
	raddr keys[] = { new_ascii("user"), new_ascii("db_Password") },
	      values[] = { new_long(1), new_ascii("hunter2") };
	raddr inner = new_dict(new_keys(keys, values, 2), 0, 2), name = new_ascii("settings"), outer;

	outer = new_dict(new_keys(&name, &inner, 1), 0, 1);
	expect_masked(inner, "{'user': 1, 'db_Password': ***}");
	expect_masked(outer, "{'settings': {'user': 1, 'db_Password': ***}}");
	expect_value(inner, "{'user': 1, 'db_Password': 'hunter2'}");
	expect_masked(new_ascii("hunter2"), "'hunter2'");
}

LAYOUTS_TEST(attributes_in_a_dict) {
	raddr object = new_object(T_PLAIN, 48), name = new_ascii("colour"), red = new_ascii("red"), value;
	raddr dict = new_dict(new_keys(&name, &red, 1), 0, 1);

	cr_assert_eq(py_attribute(&py, object, "colour", &value), PY_E_TYPE, "no attributes at all");
	put_u64(type_at(T_PLAIN) + py.layout.type_dictoffset, 16);
	cr_assert_eq(py_attribute(&py, object, "colour", &value), PY_E_TYPE, "none yet");
	put_u64(object + 16, dict);
	cr_assert_eq(py_attribute(&py, object, "colour", &value), 0);
	cr_assert_eq(value, red);
	put_u64(type_at(T_PLAIN) + py.layout.type_dictoffset, (uint64_t)-8); /* from the end: 24 + 2 * 4, rounded up */
	put_u64(type_at(T_PLAIN) + py.layout.type_basicsize, 28);
	put_u64(type_at(T_PLAIN) + py.layout.type_itemsize, 4);
	put_u64(object + py.layout.var_size, (uint64_t)-2);
	put_u64(object + 32, dict);
	cr_assert_eq(py_attribute(&py, object, "colour", &value), 0);
	put_u64(object + py.layout.var_size, UINT64_C(1) << 39);
	cr_assert_eq(py_attribute(&py, object, "colour", &value), MEM_E_FAULT);
	put_u64(object + py.layout.var_size, UINT64_C(1) << 62);
	cr_assert_eq(py_attribute(&py, object, "colour", &value), PY_E_TYPE);
}

Test(objects, inline_values_in_3_13) {
	raddr object, name, red, value, dict;

	open_image(V3_13);
	take(64);
	object = new_object(T_PLAIN, 64);
	name = new_ascii("colour");
	red = new_ascii("red");
	put_u64(type_at(T_PLAIN) + py.layout.type_flags, FLAG_MANAGED);
	put_u64(type_at(T_PLAIN) + py.layout.heaptype_cached_keys, new_keys(&name, NULL, 1));
	put_u64(object + 24, red);
	put_u8(object + 16 + 3, 1);
	cr_assert_eq(py_attribute(&py, object, "colour", &value), 0);
	cr_assert_eq(value, red);
	put_u8(object + 16 + 3, 0); /* not valid any more, and no dict */
	cr_assert_eq(py_attribute(&py, object, "colour", &value), PY_E_TYPE);
	dict = new_dict(new_keys(&name, &name, 1), 0, 1);
	put_u64(object - 24, dict);
	cr_assert_eq(py_attribute(&py, object, "colour", &value), 0);
	cr_assert_eq(value, name);
	close_image();
}

/* Random words that often look like addresses of the image. */
static void scramble(void) {
	for (size_t at = 0; at < sizeof(image); at += 8) {
		uint64_t word = (uint64_t)random() << 33 ^ (uint64_t)random();

		if (random() % 4)
			word = BASE + (uint64_t)random() % sizeof(image) / 8 * 8;
		memcpy(image + at, &word, sizeof(word));
	}
}

LAYOUTS_TEST(random_images) {
	srandom(20240229);
	for (int round = 0; round < 300; round++) {
		scramble();
		put_types();
		for (int i = 0; i < 50; i++) {
			raddr object = BASE + (uint64_t)random() % sizeof(image), value;
			struct strbuf sb = { 0 };
			size_t n = 0;

			put_u64((object & ~UINT64_C(7)) % (sizeof(image) - 64) + BASE + py.layout.object_type,
				type_at((enum type)(random() % TYPES_N)));
			py_value_describe(&py, object & ~UINT64_C(7), LIMIT_VALUE_CHARS, &sb);
			cr_assert_leq(sb.len, 16384);
			py_dict_walk(&py, object & ~UINT64_C(7), count_entries, &n);
			py_attribute(&py, object & ~UINT64_C(7), "name", &value);
			strbuf_deinit(&sb);
		}
		used = 0;
	}
}
