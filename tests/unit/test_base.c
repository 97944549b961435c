/* SPDX-License-Identifier: MIT */
/* The foundations: maps, interned strings, printable text, strict numbers, cursors, vectors, tick times. */
#include "engine/base/cursor.h"
#include "engine/base/intern.h"
#include "engine/base/map.h"
#include "engine/base/strbuf.h"
#include "engine/base/util.h"
#include "engine/base/vec.h"
#include "engine/sample/schedule.h"
#include "pyspyd/err.h"
#include "pyspyd/parse.h"
#include "pyspyd/text.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define SECOND UINT64_C(1000000000)

Test(map, keeps_what_was_put) {
	struct map map = { 0 };
	uint64_t value = 5;

	cr_assert_not(map_get(&map, 0, &value));
	for (uint64_t k = 0; k < 10000; k++)
		cr_assert_eq(map_put(&map, k << 40 | k % 7, k), 0);
	cr_assert_eq(map.n, 10000);
	for (uint64_t k = 0; k < 10000; k++) {
		cr_assert(map_get(&map, k << 40 | k % 7, &value));
		cr_assert_eq(value, k);
	}
	cr_assert_not(map_get(&map, 12345, &value));
	cr_assert_eq(map_put(&map, 0, 77), 0);
	cr_assert_eq(map.n, 10000, "replaced");
	cr_assert(map_get(&map, 0, &value));
	cr_assert_eq(value, 77);
	map_clear(&map);
	cr_assert_eq(map.n, 0);
	cr_assert_not(map_get(&map, 0, &value));
	cr_assert_eq(map_put(&map, 3, 4), 0);
	cr_assert(map_get(&map, 3, &value));
	map_deinit(&map);
	map_clear(&map);
	map_deinit(&map);
}

Test(map, the_one_key_that_cannot_be) {
	struct map map = { 0 };
	uint64_t value;

	cr_assert_eq(map_put(&map, UINT64_MAX, 1), -EINVAL);
	cr_assert_eq(map_put(&map, 1, UINT64_MAX), 0);
	cr_assert_not(map_get(&map, UINT64_MAX, &value));
	cr_assert(map_get(&map, 1, &value));
	cr_assert_eq(value, UINT64_MAX);
	map_deinit(&map);
}

Test(map, hashes_tell_lengths_and_seeds_apart) {
	static const uint8_t zeros[32] = { 0 };

	for (size_t n = 0; n < sizeof(zeros); n++)
		cr_assert_neq(hash_bytes(zeros, n, 0), hash_bytes(zeros, n + 1, 0));
	cr_assert_neq(hash_bytes(zeros, 9, 0), hash_bytes(zeros, 9, 1));
	cr_assert_neq(hash_bytes("12345678a", 9, 0), hash_bytes("12345678b", 9, 0));
}

Test(intern, one_id_for_one_string) {
	struct intern intern;
	uint32_t ids[3000];
	const char *first;
	char name[32];

	cr_assert_eq(intern_init(&intern), 0);
	cr_assert_eq(intern_add(&intern, "", 0), 0);
	cr_assert_eq(intern_add(&intern, "name", 0), 0);
	for (int i = 0; i < 3000; i++) {
		ids[i] = intern_add(&intern, name, (size_t)snprintf(name, sizeof(name), "name %d", i));
		cr_assert_neq(ids[i], 0);
	}
	first = intern_str(&intern, ids[0]);
	for (int i = 0; i < 3000; i++) {
		size_t n = (size_t)snprintf(name, sizeof(name), "name %d", i);

		cr_assert_eq(intern_add(&intern, name, n), ids[i]);
		cr_assert_str_eq(intern_str(&intern, ids[i]), name);
	}
	cr_assert_eq(intern_str(&intern, ids[0]), first, "strings never move");
	cr_assert_eq(intern.strings.n, 3001);
	cr_assert_eq(intern_add(&intern, "name 1\0tail", 11), ids[1], "ends at the first NUL");
	cr_assert_eq(intern_add(&intern, "name 12345", 6), ids[1], "no more than was asked for");
	cr_assert_neq(intern_add(&intern, "name", 4), intern_add(&intern, "nam", 3));
	cr_assert_str_eq(intern_str(&intern, UINT32_MAX), "");
	cr_assert_str_eq(intern_str(&intern, (uint32_t)intern.strings.n), "");
	intern_deinit(&intern);
}

static void expect_printable(const char *bytes, size_t n, const char *expected) {
	struct strbuf sb = { 0 };

	strbuf_add_printable(&sb, bytes, n);
	cr_assert_str_eq(strbuf_str(&sb), expected);
	strbuf_deinit(&sb);
}

#define PRINTABLE(bytes, expected) expect_printable(bytes, sizeof(bytes) - 1, expected)
#define BROKEN "\xef\xbf\xbd"

Test(strbuf, nothing_steers_the_terminal) {
	PRINTABLE("", "");
	PRINTABLE("plain café \U0001f40d", "plain café \U0001f40d");
	PRINTABLE("a\033[31mred\033[0m", "a\\x1b[31mred\\x1b[0m");
	PRINTABLE("\033]0;title\007", "\\x1b]0;title\\x07");
	PRINTABLE("line\nline\r\t\b", "line\\x0aline\\x0d\\x09\\x08");
	PRINTABLE("nul\0nul", "nul\\x00nul");
	PRINTABLE("\x7f", "\\x7f");
	PRINTABLE("\xc2\x9b"
		  "31m",
		"\\x9b31m");
	PRINTABLE("\xc2\xa0", "\xc2\xa0");
	PRINTABLE("\u2028\u2029", "\\u2028\\u2029");
	PRINTABLE("a\u202egnp.exe", "a\\u202egnp.exe");
	PRINTABLE("\u2066\u2069\u200e\u200f", "\\u2066\\u2069\\u200e\\u200f");
	PRINTABLE("\ufeffx", "\\ufeffx");
}

Test(strbuf, broken_utf8_is_marked) {
	PRINTABLE("\xff", BROKEN);
	PRINTABLE("\x80", BROKEN);
	PRINTABLE("\xc3", BROKEN);
	PRINTABLE("a\xc3(", "a" BROKEN "(");
	PRINTABLE("\xc0\x9b", BROKEN BROKEN);            /* overlong escape */
	PRINTABLE("\xe0\x80\x9b", BROKEN BROKEN BROKEN); /* … in three bytes */
	PRINTABLE("\xf0\x80\x80\x9b", BROKEN BROKEN BROKEN BROKEN);
	PRINTABLE("\xed\xa0\x80", BROKEN BROKEN BROKEN);            /* a surrogate */
	PRINTABLE("\xf4\x90\x80\x80", BROKEN BROKEN BROKEN BROKEN); /* above U+10FFFF */
	PRINTABLE("\xf0\x9f\x90", BROKEN BROKEN BROKEN);
	PRINTABLE("\xf0\x9f\x90\033", BROKEN BROKEN BROKEN "\\x1b");
}

/* Whatever goes in: what comes out has no control character, and is UTF-8 (so that it passes itself unchanged). */
Test(strbuf, random_bytes_become_printable) {
	srandom(7);
	for (int round = 0; round < 20000; round++) {
		struct strbuf once = { 0 }, twice = { 0 };
		char bytes[16];
		size_t n = (size_t)random() % sizeof(bytes);

		for (size_t i = 0; i < n; i++)
			bytes[i] = (char)(random() % 3 ? 0x80 | random() : random());
		strbuf_add_printable(&once, bytes, n);
		for (size_t i = 0; i < once.len; i++)
			cr_assert((uint8_t)once.data[i] >= 0x20 && once.data[i] != 0x7f);
		strbuf_add_printable(&twice, strbuf_str(&once), once.len);
		cr_assert_str_eq(strbuf_str(&twice), strbuf_str(&once));
		strbuf_deinit(&once);
		strbuf_deinit(&twice);
	}
}

Test(strbuf, grows_and_is_taken) {
	struct strbuf sb = { 0 };
	char *text;

	cr_assert_str_eq(strbuf_str(&sb), "");
	text = strbuf_take(&sb);
	cr_assert_str_eq(text, "");
	free(text);
	for (int i = 0; i < 1000; i++)
		strbuf_addf(&sb, "%03d", i);
	strbuf_add(&sb, NULL, 0);
	cr_assert_eq(sb.len, 3000);
	text = strbuf_take(&sb);
	cr_assert_eq(strlen(text), 3000);
	cr_assert_str_eq(text + 2994, "998999");
	cr_assert_null(sb.data);
	free(text);
	sb.failed = true;
	strbuf_adds(&sb, "lost");
	cr_assert_eq(sb.len, 0);
	cr_assert_null(strbuf_take(&sb));
	cr_assert_not(sb.failed);
}

Test(strbuf, characters) {
	static const uint32_t chars[] = { 'a', 0x7ff, 0x800, 0xffff, 0x10000, 0x10ffff, 0xd800, 0xdfff, 0x110000,
		UINT32_MAX };
	struct strbuf sb = { 0 };
	char *text;

	for (size_t i = 0; i < ARRAY_SIZE(chars); i++)
		strbuf_add_char(&sb, chars[i]);
	cr_assert_str_eq(strbuf_str(&sb),
		"a\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf" BROKEN BROKEN BROKEN BROKEN);
	strbuf_deinit(&sb);
	strbuf_add_utf8(&sb, "\033\xff\n", 3);
	cr_assert_str_eq(strbuf_str(&sb), "\033" BROKEN "\n");
	strbuf_deinit(&sb);
	text = pyspyd_printable("\033c");
	cr_assert_str_eq(text, "\\x1bc");
	free(text);
}

static const char *const no_numbers[] = { "", " ", "-1", "+1", " 1", "1 ", "0x10", "1e3", "1,5", "a", ".", "-", "1\n",
	"\xd9\xa1", "nan", "inf", "1-", "--1" };

Test(parse, whole_numbers) {
	uint64_t n = 7;
	pid_t pid = 7;

	for (size_t i = 0; i < ARRAY_SIZE(no_numbers); i++) {
		cr_assert_eq(parse_u64(no_numbers[i], &n), -EINVAL, "'%s'", no_numbers[i]);
		cr_assert_eq(parse_pid(no_numbers[i], &pid), -EINVAL, "'%s'", no_numbers[i]);
	}
	cr_assert_eq(parse_u64("1.0", &n), -EINVAL);
	cr_assert_eq(parse_u64("18446744073709551616", &n), -ERANGE);
	cr_assert_eq(parse_u64("99999999999999999999999", &n), -ERANGE);
	cr_assert_eq(n, 7, "untouched on failure");
	cr_assert_eq(parse_u64("18446744073709551615", &n), 0);
	cr_assert_eq(n, UINT64_MAX);
	cr_assert_eq(parse_u64("007", &n), 0);
	cr_assert_eq(n, 7);
	cr_assert_eq(parse_pid("0", &pid), -ERANGE);
	cr_assert_eq(parse_pid("2147483648", &pid), -ERANGE);
	cr_assert_eq(pid, 7);
	cr_assert_eq(parse_pid("2147483647", &pid), 0);
	cr_assert_eq(pid, 2147483647);
}

static void expect_duration(const char *s, int result, uint64_t expected) {
	uint64_t ns = 7;

	cr_assert_eq(parse_duration(s, &ns), result, "'%s'", s);
	cr_assert_eq(ns, result ? 7 : expected, "'%s' is %llu", s, (unsigned long long)ns);
}

Test(parse, durations) {
	static const char *const bad[] = { "1d", "1S", "1 s", "1sec", "s", "1.s", ".5s", "1..5", "1.5.1", "1ss", "1m2s",
		"ms", "1us", "1,5s", "1s\n" };

	expect_duration("0", 0, 0);
	expect_duration("10", 0, 10 * SECOND);
	expect_duration("250ms", 0, SECOND / 4);
	expect_duration("1.5m", 0, 90 * SECOND);
	expect_duration("0.5", 0, SECOND / 2);
	expect_duration("2h", 0, 7200 * SECOND);
	expect_duration("0.000000001s", 0, 1);
	for (size_t i = 0; i < ARRAY_SIZE(no_numbers); i++)
		expect_duration(no_numbers[i], -EINVAL, 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		expect_duration(bad[i], -EINVAL, 0);
	expect_duration("9300000000", -ERANGE, 0);
	expect_duration("99999999999999999999999999999999999999h", -ERANGE, 0);
}

Test(parse, sizes_and_decimals) {
	char digits[1200];
	uint64_t bytes = 7;
	double value = 7;

	cr_assert_eq(parse_size("64K", &bytes), 0);
	cr_assert_eq(bytes, 65536);
	cr_assert_eq(parse_size("1.5G", &bytes), 0);
	cr_assert_eq(bytes, 3ULL << 29);
	cr_assert_eq(parse_size("12", &bytes), 0);
	cr_assert_eq(bytes, 12);
	cr_assert_eq(parse_size("1k", &bytes), -EINVAL);
	cr_assert_eq(parse_size("1KB", &bytes), -EINVAL);
	cr_assert_eq(parse_size("9000000000G", &bytes), -ERANGE);
	cr_assert_eq(bytes, 12, "untouched on failure");
	cr_assert_eq(parse_decimal("99.5", &value), 0);
	cr_assert_float_eq(value, 99.5, 1e-9);
	cr_assert_eq(parse_decimal("99.5%", &value), -EINVAL);
	cr_assert_eq(parse_decimal("1e9", &value), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(no_numbers); i++)
		cr_assert_eq(parse_decimal(no_numbers[i], &value), -EINVAL);
	memset(digits, '9', sizeof(digits) - 1);
	digits[sizeof(digits) - 1] = '\0';
	cr_assert_eq(parse_size(digits, &bytes), -ERANGE);
	cr_assert_eq(parse_duration(digits, &bytes), -ERANGE);
	cr_assert_eq(parse_decimal(digits, &value), -ERANGE);
	cr_assert_float_eq(value, 99.5, 1e-9, "untouched on failure");
}

Test(cursor, moves_whole_or_not_at_all) {
	static const uint8_t bytes[] = { 1, 2, 3, 4, 5, 6, 7, 8, 0xff };
	struct cursor c = cursor_of(bytes, sizeof(bytes));
	uint64_t word;
	uint8_t byte;
	int8_t small;

	cr_assert(cursor_u64(&c, &word));
	cr_assert_eq(word, UINT64_C(0x0807060504030201));
	cr_assert_not(cursor_u64(&c, &word));
	cr_assert_not(cursor_skip(&c, 2));
	cr_assert_not(cursor_skip(&c, SIZE_MAX));
	cr_assert_eq(cursor_left(&c), 1);
	cr_assert(cursor_i8(&c, &small));
	cr_assert_eq(small, -1);
	cr_assert_not(cursor_u8(&c, &byte));
	cr_assert(cursor_skip(&c, 0));
	cr_assert_eq(cursor_left(&c), 0);
}

Test(cursor, peeks_are_zero_outside) {
	static const uint8_t bytes[] = { 1, 1, 1, 1, 1, 1, 1, 1, 1 };

	cr_assert_eq(peek_u64(bytes, 9, 1), UINT64_C(0x0101010101010101));
	cr_assert_eq(peek_u64(bytes, 9, 2), 0);
	cr_assert_eq(peek_u64(bytes, 9, 9), 0);
	cr_assert_eq(peek_u64(bytes, 9, UINT64_MAX), 0);
	cr_assert_eq(peek_u64(bytes, 9, UINT64_MAX - 7), 0);
	cr_assert_eq(peek_u32(bytes, 9, 5), 0x01010101);
	cr_assert_eq(peek_u32(bytes, 9, 6), 0);
	cr_assert_eq(peek_u16(bytes, 9, 7), 0x0101);
	cr_assert_eq(peek_u16(bytes, 9, 8), 0);
	cr_assert_eq(peek_u8(bytes, 9, 8), 1);
	cr_assert_eq(peek_u8(bytes, 9, 9), 0);
	cr_assert_eq(peek_u64(bytes, 3, 0), 0);
}

Test(vec, grows_and_refuses) {
	VEC(uint64_t) v = { 0 };
	uint64_t sum = 0;

	vec_foreach (item, &v)
		cr_assert_fail("empty");
	for (uint64_t i = 0; i < 1000; i++)
		cr_assert_eq(vec_push(&v, i), 0);
	vec_foreach (item, &v)
		sum += *item;
	cr_assert_eq(sum, 499500);
	cr_assert_eq(vec_reserve(&v, SIZE_MAX / 8), -ENOMEM);
	cr_assert_eq(vec_reserve(&v, SIZE_MAX), -ENOMEM);
	cr_assert_eq(v.n, 1000);
	cr_assert_eq(v.items[999], 999);
	vec_free(&v);
	cr_assert_eq(vec_push(&v, 1), 0);
	vec_free(&v);
}

Test(err, gains_context) {
	struct err err = { 0 };
	char longest[2 * ERR_TEXT_MAX];

	cr_assert_eq(err_set(&err, 3, "no %s", "pid"), 3);
	cr_assert_eq(err_wrap(&err, 4, "pid %d", 7), 4);
	cr_assert_str_eq(err.text, "pid 7: no pid");
	cr_assert_eq(err.code, 4);
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	err_set(&err, 1, "%s", longest);
	err_wrap(&err, 1, "%s", longest);
	cr_assert_eq(strlen(err.text), ERR_TEXT_MAX - 1);
	cr_assert_eq(err_set(NULL, -5, "x"), -5);
	cr_assert_eq(err_wrap(NULL, -5, "x"), -5);
}

Test(schedule, one_tick_in_each_period) {
	const struct schedule s = { .start_ns = 12345, .period_ns = 1000000, .seed = 42 };
	uint64_t last = 0, quarters[4] = { 0 };

	for (uint64_t k = 0; k < 10000; k++) {
		uint64_t at = schedule_time(&s, k), phase = at - s.start_ns - k * s.period_ns;

		cr_assert_lt(phase, s.period_ns);
		cr_assert(k == 0 || at > last);
		last = at;
		quarters[phase / (s.period_ns / 4)]++;
	}
	for (int i = 0; i < 4; i++)
		cr_assert(quarters[i] > 2300 && quarters[i] < 2700, "%d: %d", i, (int)quarters[i]);
}

Test(schedule, seeds_differ_and_repeat) {
	struct schedule a = { .period_ns = 1000000, .seed = 1 }, b = { .period_ns = 1000000, .seed = 2 };
	size_t same = 0;

	for (uint64_t k = 0; k < 1000; k++) {
		same += schedule_time(&a, k) == schedule_time(&b, k);
		cr_assert_eq(schedule_time(&a, k), schedule_time(&a, k));
	}
	cr_assert_leq(same, 2);
	a.period_ns = 1;
	cr_assert_eq(schedule_time(&a, 99), 99);
}

Test(schedule, the_next_tick_lies_ahead) {
	const struct schedule s = { .start_ns = 1000, .period_ns = 100, .seed = 3 };

	cr_assert_eq(schedule_next(&s, 0), 0);
	cr_assert_eq(schedule_next(&s, 999), 0);
	cr_assert_eq(schedule_next(&s, 1000), 1);
	cr_assert_eq(schedule_next(&s, 1099), 1);
	cr_assert_eq(schedule_next(&s, 1100), 2);
	for (uint64_t now = 1000; now < 3000; now += 7)
		cr_assert_gt(s.start_ns + schedule_next(&s, now) * s.period_ns, now);
}
