/* SPDX-License-Identifier: MIT */
/* Pages kept over bytes: what is read is what is there, as of the first time, also at the edges of what there is. */
#include "engine/mem/mem.h"

#include <criterion/criterion.h>
#include <string.h>

#define BASE UINT64_C(0x7f0000000000)
#define PAGE 4096U
#define PAGES 4U
#define MANY 3000U /* pages: more than are kept */

struct scene {
	uint8_t bytes[PAGES * PAGE];
	struct mem *below, *cache;
};

static void open_scene(struct scene *s, size_t first, size_t len) {
	struct mem_segment segment = { BASE + first, len, s->bytes + first };

	for (size_t i = 0; i < sizeof(s->bytes); i++)
		s->bytes[i] = (uint8_t)(i * 7 + i / PAGE);
	cr_assert_eq(mem_bytes_new(&segment, 1, &s->below), 0);
	cr_assert_eq(mem_cache_new(s->below, &s->cache), 0);
}

static void close_scene(struct scene *s) {
	mem_free(s->cache);
}

static void expect(struct scene *s, size_t at, size_t len) {
	uint8_t got[sizeof(s->bytes)];

	cr_assert_eq(mem_read(s->cache, BASE + at, got, len), 0, "%zu bytes at %zu", len, at);
	cr_assert(!memcmp(got, s->bytes + at, len), "%zu bytes at %zu", len, at);
}

Test(mem_cache, reads_what_is_there) {
	struct scene s;

	open_scene(&s, 0, sizeof(s.bytes));
	expect(&s, 0, 8);
	expect(&s, PAGE - 4, 8);
	expect(&s, PAGE - 1, PAGE + 2);
	expect(&s, 0, sizeof(s.bytes));
	expect(&s, sizeof(s.bytes) - 1, 1);
	expect(&s, 5, 0);
	close_scene(&s);
}

Test(mem_cache, a_page_is_read_once) {
	struct scene s;

	open_scene(&s, 0, sizeof(s.bytes));
	expect(&s, 8, 8);
	expect(&s, 2000, 100);
	cr_assert_eq(s.below->reads, 1);
	expect(&s, PAGE - 4, 8);
	cr_assert_eq(s.below->reads, 2);
	cr_assert_eq(s.cache->reads, 3, "callers count what they ask for");
	close_scene(&s);
}

Test(mem_cache, is_as_old_as_its_last_clear) {
	struct scene s;
	uint8_t byte;

	open_scene(&s, 0, sizeof(s.bytes));
	cr_assert_eq(mem_read(s.cache, BASE, &byte, 1), 0);
	s.bytes[0] = (uint8_t)(byte + 1);
	cr_assert_eq(mem_read(s.cache, BASE, &byte, 1), 0);
	cr_assert_eq(byte, (uint8_t)(s.bytes[0] - 1));
	mem_cache_clear(s.cache);
	cr_assert_eq(mem_read(s.cache, BASE, &byte, 1), 0);
	cr_assert_eq(byte, s.bytes[0]);
	mem_cache_clear(s.cache);
	close_scene(&s);
}

/* As a mapping that begins or ends within a page, of an image or on machines with larger pages. */
Test(mem_cache, reads_parts_of_pages) {
	struct scene s;
	uint8_t got[16];

	open_scene(&s, 100, 2 * PAGE);
	expect(&s, 100, 8);
	expect(&s, 2 * PAGE, 100);
	expect(&s, PAGE - 8, PAGE + 108);
	cr_assert_eq(mem_read(s.cache, BASE + 99, got, 2), MEM_E_FAULT);
	cr_assert_eq(mem_read(s.cache, BASE + 2 * PAGE + 96, got, 8), MEM_E_FAULT);
	expect(&s, 2 * PAGE + 96, 4);
	close_scene(&s);
}

Test(mem_cache, faults_as_the_memory_below) {
	struct scene s;
	uint8_t a[8], b[8], c[8];
	struct mem_range ranges[] = { { BASE, 8, a }, { BASE - 8, 8, b }, { BASE + 8, 8, c } };
	size_t done = 9;

	open_scene(&s, 0, sizeof(s.bytes));
	cr_assert_eq(mem_read_many(s.cache, ranges, 3, &done), MEM_E_FAULT);
	cr_assert_eq(done, 1);
	cr_assert(!memcmp(a, s.bytes, 8));
	cr_assert_eq(mem_read_many(s.cache, ranges, 1, &done), 0);
	cr_assert_eq(done, 1);
	close_scene(&s);
}

Test(mem_cache, the_end_of_the_address_space) {
	static const uint64_t at[] = { UINT64_MAX, UINT64_MAX - 7, UINT64_MAX - 8, UINT64_MAX - PAGE,
		UINT64_MAX - 2 * PAGE };
	struct scene s;
	uint8_t got[64];

	open_scene(&s, 0, sizeof(s.bytes));
	for (size_t i = 0; i < ARRAY_SIZE(at); i++)
		for (size_t len = 1; len <= sizeof(got); len *= 2)
			cr_assert_eq(mem_read(s.cache, at[i], got, len), MEM_E_FAULT, "%zu", len);
	close_scene(&s);
}

Test(mem_cache, keeps_a_bounded_number_of_pages) {
	uint8_t *bytes = calloc(MANY, PAGE), *got = malloc(2 * PAGE);
	struct mem_segment segment = { BASE, (size_t)MANY * PAGE, bytes };
	struct mem *below, *cache;

	cr_assert(bytes && got);
	cr_assert_eq(mem_bytes_new(&segment, 1, &below), 0);
	cr_assert_eq(mem_cache_new(below, &cache), 0);
	for (size_t i = 0; i < MANY; i++)
		bytes[i * PAGE] = bytes[(i + 1) * PAGE - 1] = (uint8_t)(i % 251);
	for (size_t round = 0; round < 2; round++)
		for (size_t i = 0; i + 2 <= MANY; i++) {
			cr_assert_eq(mem_read(cache, BASE + i * PAGE + 1, got, 2 * PAGE - 1), 0);
			cr_assert_eq(got[PAGE - 2], (uint8_t)(i % 251));
			cr_assert_eq(got[PAGE - 1], (uint8_t)((i + 1) % 251));
		}
	cr_assert_gt(below->reads, MANY, "the first ones were let go of");
	mem_free(cache);
	free(bytes);
	free(got);
}

/* A search through a large dictionary: its keys lie anywhere, and hardly any is asked for again. */
Test(mem_cache, many_pages_of_one_call_are_not_brought) {
	enum { N = 100 };
	uint8_t *bytes = calloc(N, PAGE), got[N];
	struct mem_segment segment = { BASE, (size_t)N * PAGE, bytes };
	struct mem_range ranges[N];
	struct mem *below, *cache;
	size_t done = 0;

	cr_assert(bytes);
	cr_assert_eq(mem_bytes_new(&segment, 1, &below), 0);
	cr_assert_eq(mem_cache_new(below, &cache), 0);
	for (size_t i = 0; i < N; i++) {
		bytes[i * PAGE + i] = (uint8_t)(i + 1);
		ranges[i] = (struct mem_range){ BASE + i * PAGE + i, 1, &got[i] };
	}
	cr_assert_eq(mem_read_many(cache, ranges, N, &done), 0);
	cr_assert_eq(done, N);
	cr_assert_eq(below->reads, 1);
	for (size_t i = 0; i < N; i++)
		cr_assert_eq(got[i], i + 1);
	ranges[N - 1].addr = BASE + (size_t)N * PAGE;
	cr_assert_eq(mem_read_many(cache, ranges, N, &done), MEM_E_FAULT);
	cr_assert_eq(done, N - 1);
	cr_assert_eq(mem_read_many(cache, ranges, 4, &done), 0);
	cr_assert_eq(mem_read_many(cache, ranges, 4, &done), 0);
	cr_assert_eq(below->reads, 2 + 4, "a few are brought, and are here then");
	mem_free(cache);
	free(bytes);
}
