/* SPDX-License-Identifier: MIT */
/* Where unwind tables lie in the map that the sampling program reads: shared by processes, freed behind the last one,
 * at rest before their place is used again, and none where there is no room. */
#include "engine/base/clock.h"
#include "engine/sample/bpf_tables.h"

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>

#define ROOM_BYTES 4096 /* 1,024 words */
#define FILES 4
#define NOW (10 * NS_PER_SEC)

struct world {
	struct native_cache *cache;
	struct bpf_tables *tables;
	struct bpf_tables_maps maps;
	struct native_file files[FILES];
	struct native_module items[FILES];
	struct native_modules modules;
	uint32_t *words; /* the program's view */
};

static int memory(size_t bytes) {
	int fd = memfd_create("map", MFD_CLOEXEC);

	cr_assert(fd >= 0 && !ftruncate(fd, (off_t)bytes));
	return fd;
}

/* Each file has a table of 400 words, whose first is its number. */
static void add_file(struct world *w, uint32_t i) {
	struct unwind_table *table = calloc(1, sizeof(*table));

	*table = (struct unwind_table){ .pages = 1, .words_n = 400, .words = calloc(400, sizeof(uint32_t)) };
	table->words[0] = 100 + i;
	w->files[i] = (struct native_file){ .table = table, .id = 1 + i };
	w->items[i] = (struct native_module){ .start = 0x10000 * (1 + (raddr)i),
		.end = 0x10000 * (1 + (raddr)i) + 0x1000,
		.loaded = true,
		.bias = 0x10000 * (1 + (raddr)i),
		.file = &w->files[i] };
}

static void open_world(struct world *w) {
	*w = (struct world){ .maps = { .tables_fd = memory(ROOM_BYTES),
				     .rules_fd = memory(UNWIND_RULES_MAX * sizeof(struct unwind_rule)),
				     .tables_bytes = ROOM_BYTES } };
	w->maps.codes_fd =
		bpf_map_create(BPF_MAP_TYPE_HASH, "codes", sizeof(uint32_t), sizeof(struct pyb_codes), 3, NULL);
	if (w->maps.codes_fd < 0)
		cr_skip_test("no eBPF maps here");
	cr_assert_eq(native_cache_new(0, &w->cache), 0);
	for (uint32_t i = 0; i < FILES; i++)
		add_file(w, i);
	w->modules.cache = w->cache;
	w->modules.items.items = w->items;
	cr_assert_eq(bpf_tables_new(&w->maps, &w->tables), 0);
	w->words = mmap(NULL, ROOM_BYTES, PROT_READ, MAP_SHARED, w->maps.tables_fd, 0);
	cr_assert_neq(w->words, MAP_FAILED);
}

static void close_world(struct world *w) {
	bpf_tables_free(w->tables);
	for (uint32_t i = 0; i < FILES; i++)
		unwind_table_free(w->files[i].table);
	native_cache_free(w->cache);
	munmap(w->words, ROOM_BYTES);
	close(w->maps.tables_fd);
	close(w->maps.rules_fd);
	close(w->maps.codes_fd);
}

/* A process with the first n files. */
static int tell(struct world *w, pid_t pid, uint64_t serial, uint32_t n, uint64_t now_ns) {
	const struct bpf_tables_process process = {
		.pid = pid, .serial = serial, .read_ns = n, .modules = &w->modules
	};

	w->modules.items.n = n;
	return bpf_tables_tell(w->tables, &process, now_ns);
}

static struct pyb_codes codes_of(const struct world *w, uint32_t pid) {
	struct pyb_codes codes = { 0 };

	bpf_map_lookup_elem(w->maps.codes_fd, &pid, &codes);
	return codes;
}

Test(bpf_tables, a_table_is_shared_and_freed) {
	struct pyb_codes one, two;
	struct world w;

	open_world(&w);
	cr_assert_eq(tell(&w, 11, 1, 2, NOW), 0);
	cr_assert_eq(tell(&w, 12, 2, 1, NOW), 0);
	one = codes_of(&w, 11);
	two = codes_of(&w, 12);
	cr_expect(one.n == 2 && two.n == 1);
	cr_expect_eq(one.codes[0].table, two.codes[0].table);
	cr_expect_eq(w.words[one.codes[0].table], 100);
	cr_expect_eq(w.words[one.codes[1].table], 101);
	cr_expect(one.codes[1].start == 0x20000 && one.codes[1].base == 0x20000 && one.codes[1].pages == 1);
	cr_expect_eq(bpf_tables_used(w.tables), 2 * 400 * sizeof(uint32_t));
	bpf_tables_remove(w.tables, 11, NOW);
	cr_expect_eq(codes_of(&w, 11).n, 0);
	cr_expect_eq(bpf_tables_used(w.tables), 400 * sizeof(uint32_t));
	bpf_tables_remove(w.tables, 12, NOW);
	bpf_tables_remove(w.tables, 12, NOW);
	cr_expect_eq(bpf_tables_used(w.tables), 0);
	close_world(&w);
}

Test(bpf_tables, what_has_no_room_is_told_later) {
	struct world w;

	open_world(&w);
	cr_assert_eq(tell(&w, 11, 1, 3, NOW), 0);
	cr_expect_neq(codes_of(&w, 11).codes[1].table, PYB_TABLE_LATER);
	cr_expect_eq(codes_of(&w, 11).codes[2].table, PYB_TABLE_LATER);
	bpf_tables_remove(w.tables, 11, NOW);
	w.items[0].loaded = w.items[1].loaded = false;
	cr_assert_eq(tell(&w, 12, 2, 4, NOW + NS_PER_MS), 0); /* what was freed rests */
	cr_expect_eq(codes_of(&w, 12).codes[2].table, PYB_TABLE_LATER);
	cr_assert_eq(tell(&w, 12, 3, 4, NOW + 2 * NS_PER_SEC), 0);
	cr_expect_eq(codes_of(&w, 12).codes[0].table, PYB_TABLE_LATER);
	cr_expect_eq(w.words[codes_of(&w, 12).codes[2].table], 102);
	cr_expect_eq(w.words[codes_of(&w, 12).codes[3].table], 103);
	close_world(&w);
}

Test(bpf_tables, knows_whose_telling_it_was) {
	uint32_t first, second;
	struct world w;

	open_world(&w);
	cr_expect(!bpf_tables_holds(w.tables, 11, 1, 1));
	cr_assert_eq(tell(&w, 11, 1, 1, NOW), 0);
	first = codes_of(&w, 11).telling;
	cr_assert_eq(tell(&w, 11, 1, 1, NOW), 0);
	cr_expect_eq(codes_of(&w, 11).telling, first, "nothing new");
	cr_assert_eq(tell(&w, 11, 1, 2, NOW), 0);
	cr_expect_neq(codes_of(&w, 11).telling, first);
	cr_expect(bpf_tables_holds(w.tables, 11, 1, first));
	cr_assert_eq(tell(&w, 11, 2, 2, NOW), 0); /* another program at this pid */
	second = codes_of(&w, 11).telling;
	cr_expect(!bpf_tables_holds(w.tables, 11, 2, first) && bpf_tables_holds(w.tables, 11, 2, second));
	cr_expect(!bpf_tables_holds(w.tables, 11, 1, second));
	cr_expect_eq(bpf_tables_used(w.tables), 2 * 400 * sizeof(uint32_t));
	close_world(&w);
}

Test(bpf_tables, too_many_processes) {
	struct world w;

	open_world(&w);
	for (pid_t pid = 1; pid <= 3; pid++)
		cr_assert_eq(tell(&w, pid, 1, 1, NOW), 0);
	cr_expect_lt(tell(&w, 4, 1, 2, NOW), 0);
	cr_expect(!bpf_tables_holds(w.tables, 4, 1, UINT32_MAX));
	cr_expect_eq(bpf_tables_used(w.tables), 400 * sizeof(uint32_t), "it holds nothing");
	close_world(&w);
}
