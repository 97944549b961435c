/* SPDX-License-Identifier: MIT */
/* Starts an interpreter on mimalloc_oracle.py and looks for the objects that it tells in the blocks in use of its
 * heaps. usage: mimalloc_driver ORACLE COMMAND… — the lines are described in mimalloc_oracle.py. Ends with 77 where the
 * interpreter's memory is not mimalloc's.
 *
 * What the oracle needs to tell its lines is there too, or was and has gone: a few objects and blocks may differ. */
#include "engine/base/clock.h"
#include "engine/base/cursor.h"
#include "engine/cpython/runtime.h"
#include "engine/leaks/mimalloc.h"
#include "engine/leaks/types.h"
#include "engine/proc/proc.h"
#include "tests/live/target.h"

#include <inttypes.h>
#include <string.h>
#include <sys/wait.h>

#define OFF_MAX 24 /* blocks and objects that come and go while the oracle tells them */
#define WRONG_SHOWN 10
#define POOL_BYTES 16384 /* none is marked */
#define GC_TRACKED 1     /* free-threaded: in the head's byte for the collector */

struct found {
	raddr addr;
	uint64_t size;
	uint8_t tag;
};

struct test {
	struct proc proc;
	struct mem *mem;
	struct py_runtime rt;
	struct regions regions;
	struct heap_types types;
	struct mimalloc heap;
	struct mimalloc_totals totals;
	VEC(struct found) found;   /* ascending */
	uint64_t objects, tracked; /* by the heads of blocks; free-threaded only */
	uint64_t told_blocks, told_tracked, told_objects, missing, wrong;
	uint64_t cost_ns;
};

static bool is_free_threaded(const struct test *t) {
	return t->rt.reader.flavour & LAYOUT_FREE_THREADED;
}

/* An object in a block of the collector's heaps: a type, and references that are counted in two places. */
static int count_object(struct test *t, const struct mimalloc_block *block) {
	const struct layout *l = &t->rt.reader.layout;
	uint32_t at = block->tag == MIMALLOC_GC_PRE ? 16 : 0, type;
	uint32_t local = peek_u32(block->bytes, block->len, at + l->object_type - 12);
	int64_t shared = (int64_t)peek_u64(block->bytes, block->len, at + l->object_type - 8) >> 2;
	int r = heap_types_find(&t->types, peek_u64(block->bytes, block->len, at + l->object_type), &type);

	if (r || type == TYPE_NONE || (int64_t)local + shared <= 0)
		return r;
	t->objects++;
	if (peek_u8(block->bytes, block->len, at + l->object_type - 13) & GC_TRACKED)
		t->tracked++;
	return 0;
}

static int visit(void *userdata, const struct mimalloc_block *block) {
	struct test *t = userdata;

	if (vec_push(&t->found, (struct found){ block->addr, block->size, block->tag }))
		return -ENOMEM;
	return is_free_threaded(t) && block->tag >= MIMALLOC_GC ? count_object(t, block) : 0;
}

static int find(struct test *t) {
	py_interp_vec interps = { 0 };
	raddr modules = 0;
	int r = py_interps_read(&t->rt, &interps);

	if (!r && interps.n)
		r = mem_read_u64(
			t->mem, interps.items[interps.n - 1].addr + t->rt.reader.layout.interp_modules, &modules);
	vec_free(&interps);
	return r ? r : mimalloc_find(&t->rt.reader, &t->regions, modules, &t->heap);
}

static int begin(struct test *t, pid_t pid) {
	struct err err = { 0 };
	proc_map_vec maps = { 0 };
	uint64_t start;
	int r = proc_open("/proc", pid, &t->proc);

	if (!r)
		r = mem_live_new(pid, &t->mem);
	if (!r)
		r = py_runtime_attach(&t->proc, t->mem, &t->rt, &err);
	if (!r)
		r = proc_maps_read(&t->proc, &maps);
	if (!r)
		r = regions_init(&t->regions, &maps, POOL_BYTES);
	if (!r) {
		heap_types_init(&t->types, &t->rt.reader, &t->regions);
		start = clock_mono_ns();
		r = find(t);
		if (!r)
			r = mimalloc_walk(&t->rt.reader, &t->heap, visit, t, &t->totals);
		t->cost_ns = clock_mono_ns() - start;
	}
	proc_maps_free(&maps);
	return r;
}

static const struct found *found_at(const struct test *t, raddr addr) {
	size_t low = 0, high = t->found.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (t->found.items[middle].addr == addr)
			return &t->found.items[middle];
		if (t->found.items[middle].addr < addr)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static void wrong(struct test *t, const char *kind, raddr addr, const char *why) {
	if (++t->wrong <= WRONG_SHOWN)
		printf("%s %" PRIx64 ": %s\n", kind, addr, why);
}

/* Before an object's head stand what its build keeps there, up to 32 bytes, and 16 of the debug hooks. */
static void check(struct test *t, const char *kind, raddr addr, uint64_t bytes) {
	const struct mimalloc_page *page = mimalloc_page_of(&t->heap, addr);
	const struct found *block = page ? found_at(t, mimalloc_block_of(page, addr)) : NULL;
	bool is_tracked = !strcmp(kind, "tracked");
	uint64_t before = block ? addr - block->addr : 0;

	if (!block) {
		t->missing++;
		if (!is_tracked)
			wrong(t, kind, addr, page ? "its block is free" : "in no page");
	} else if (is_free_threaded(t) && is_tracked && block->tag < MIMALLOC_GC) {
		wrong(t, kind, addr, "not in a heap of the collector's");
	} else if (is_free_threaded(t) && (t->rt.reader.flavour & LAYOUT_DEBUG) == 0 &&
		before != (block->tag == MIMALLOC_GC_PRE ? 16 : 0)) {
		wrong(t, kind, addr, "not at its block's beginning");
	} else if (before > 48 || before % 16 || bytes > block->size) {
		wrong(t, kind, addr, "does not fit into its block");
	}
}

static void read_line(struct test *t, char *line) {
	char *rest = line, *kind = strsep(&rest, " "), *key = strsep(&rest, " ");

	if (!key)
		return;
	if (!strcmp(kind, "blocks")) {
		t->told_blocks = strtoull(key, NULL, 10);
		return;
	}
	t->told_tracked += !strcmp(kind, "tracked");
	t->told_objects += !strcmp(kind, "object");
	check(t, kind, strtoull(key, NULL, 16), rest ? strtoull(rest, NULL, 10) : 0);
}

static uint64_t distance(uint64_t a, uint64_t b) {
	return a < b ? b - a : a - b;
}

/* Without the GIL all threads' blocks are told, else those of the main thread. */
static void compare(struct test *t) {
	if (t->missing > OFF_MAX)
		wrong(t, "tracked", t->missing, "so many (hex) are not found");
	if (is_free_threaded(t) && distance(t->tracked, t->told_tracked) > OFF_MAX)
		wrong(t, "tracked", t->tracked, "so many (hex) are found in all");
	if (is_free_threaded(t) ? distance(t->totals.blocks, t->told_blocks) > OFF_MAX
				: t->totals.blocks + OFF_MAX < t->told_blocks)
		wrong(t, "blocks", t->totals.blocks, "so many (hex) are found");
	if (t->totals.moved || t->heap.incomplete)
		wrong(t, "moved", t->totals.moved, "pages (hex) changed");
	if (!t->told_tracked || !t->told_objects)
		wrong(t, "nothing", 0, "was told");
}

static int run(struct test *t, FILE *in) {
	VEC(char *) lines = { 0 };
	char *line = NULL;
	size_t size = 0;
	bool ready = false;
	int r = -1;

	while (!ready && getline(&line, &size, in) > 0) {
		line[strcspn(line, "\n")] = '\0';
		ready = !strcmp(line, "ready");
		if (!vec_push(&lines, line))
			line = NULL;
		size = 0;
	}
	if (ready && !strncmp(lines.items[0], "start ", 6))
		r = begin(t, (pid_t)atoi(lines.items[0] + 6));
	if (!r) {
		for (size_t i = 1; i < lines.n; i++)
			read_line(t, lines.items[i]);
		compare(t);
	}
	vec_foreach (each, &lines)
		free(*each);
	vec_free(&lines);
	free(line);
	return r;
}

static void report(const struct test *t) {
	printf("%" PRIu64 " segments, %" PRIu64 " pages, %" PRIu64 " blocks (told: %" PRIu64 "), %" PRIu64
	       " tracked (told: %" PRIu64 ") of %" PRIu64 " objects that may be, %" PRIu64 " not found, %" PRIu64
	       " others, %" PRIu64 " KiB free of %" PRIu64 ", %" PRIu64 " ms, %" PRIu64 " wrong\n",
		t->heap.segments, t->totals.pages, t->totals.blocks, t->told_blocks, t->tracked, t->told_tracked,
		t->objects, t->missing, t->told_objects, t->totals.free_bytes / 1024, t->totals.page_bytes / 1024,
		t->cost_ns / 1000000, t->wrong);
}

int main(int argc, char **argv) {
	struct test t = { .wrong = 0 };
	struct target target;
	int r;

	if (argc < 3 || target_start(argv[1], argv + 2, &target)) {
		fprintf(stderr, "usage: mimalloc_driver ORACLE COMMAND…\n");
		return 2;
	}
	r = run(&t, target.out);
	close(target.held);
	fclose(target.out);
	waitpid(target.pid, NULL, 0);
	if (r == PY_E_TYPE)
		printf("its memory is not mimalloc's\n");
	else if (r)
		printf("the interpreter ended early, or cannot be read: %d\n", r);
	else
		report(&t);
	heap_types_deinit(&t.types);
	mimalloc_deinit(&t.heap);
	regions_deinit(&t.regions);
	vec_free(&t.found);
	mem_free(t.mem);
	return r == PY_E_TYPE ? 77 : r || t.wrong;
}
