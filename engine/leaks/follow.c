/* SPDX-License-Identifier: MIT */
/* Large objects lie in the C library's memory, where nothing tells what is what. An address there is worth a look when
 * a word of the Python heap holds it: a reference, a link of the garbage collector (to the head before the object), the
 * address of a table. What is found to be an object is counted once and searched in turn. */
#include "engine/leaks/follow.h"

#include "engine/base/cursor.h"
#include <string.h>

#define BATCH 256
#define ASKED_MAX (UINT64_C(64) << 20) /* addresses in all */
#define TAGS 3                         /* low bits of links and references that are flags */
#define PAGE_BYTES 4096
#define LATE_MAX 1024   /* tables in memory that was mapped since */
#define LONG_TABLE 4096 /* bytes, from which on its owner is asked again */
#define TRIES_MAX 4

/* Return: 0; -ENOMEM; PY_E_TYPE: there is no room for more. */
static int set_mark(struct census_run *run, raddr addr, unsigned mark) {
	int r = marks_set(&run->marks, addr, mark);

	if (r != -ENOSPC)
		return r;
	run->census->incomplete = true;
	return PY_E_TYPE;
}

static int ask(struct census_run *run, raddr addr) {
	int r;

	if (marks_get(&run->marks, addr))
		return 0;
	if (run->asked >= ASKED_MAX) {
		run->census->incomplete = true;
		return 0;
	}
	run->asked++;
	r = set_mark(run, addr, MARK_ASKED);
	if (r)
		return r == PY_E_TYPE ? 0 : r;
	return vec_push(&run->candidates, addr);
}

const struct region *census_region(struct census_run *run, raddr addr) {
	const struct region *region = regions_find(&run->regions, addr);

	return region ? region : regions_find(&run->late, addr);
}

static const struct region *outside_pools(struct census_run *run, raddr addr) {
	const struct region *region = census_region(run, addr);

	return region && region->heap && !region_is_pool(region, addr, run->pool_bytes) ? region : NULL;
}

int follow_words(struct census_run *run, const uint8_t *bytes, size_t len) {
	if (run->heap) /* nothing lies outside */
		return 0;
	for (size_t i = 0; i + sizeof(uint64_t) <= len; i += sizeof(uint64_t)) {
		raddr addr;
		int r;

		memcpy(&addr, bytes + i, sizeof(addr));
		addr &= ~(raddr)TAGS;
		if (addr < 0x10000 || addr >> 47 || addr % 16 || !outside_pools(run, addr))
			continue;
		r = ask(run, addr);
		if (r)
			return r;
	}
	return 0;
}

/* Objects that lie about their sizes may overlap: they get no more than all the memory that there is, twice. */
static int add_span(struct census_run *run, raddr addr, uint64_t len, raddr owner) {
	if (len > run->span_bytes) {
		run->census->incomplete = true;
		return 0;
	}
	run->span_bytes -= len;
	return vec_push(&run->spans,
		(struct span){ .addr = addr, .len = len, .owner = owner, .begin = addr, .tries = run->tries });
}

static int keep_place(struct census_run *run, struct place_span span) {
	return run->census->places ? places_add_span(run->census->places, span) : 0;
}

/* A table that is a block of its own: it is counted already, and searched there. */
static int keep_table(struct census_run *run, raddr addr, uint64_t len, raddr owner) {
	const struct mimalloc_page *page = mimalloc_page_of(run->heap, addr);
	int r;

	if (!page || len > page->size)
		return PY_E_TYPE;
	r = set_mark(run, addr, MARK_TAKEN);
	run->table_bytes += len;
	return r ? r : keep_place(run, (struct place_span){ .addr = addr, .owner = owner, .len = len, .is_table = 1 });
}

/* Whether all of it can be read: it need not be of the maps that the census was given, for a table that grows moves. */
static int check_readable(struct census_run *run, raddr addr, uint64_t len) {
	uint8_t byte;
	int r = mem_read(run->py->mem, addr, &byte, sizeof(byte));

	if (!r)
		r = mem_read(run->py->mem, addr + len - 1, &byte, sizeof(byte));
	return r == MEM_E_FAULT ? PY_E_TYPE : r;
}

/* Makes regions of those parts of a table that lie in none. Return: 0; PY_E_TYPE: it cannot be one; as mem_read. */
static int cover(struct census_run *run, raddr addr, uint64_t len) {
	raddr at = addr, end = addr + len;
	bool checked = false;
	int r = addr && len && end > addr && end >> 47 == 0 ? 0 : PY_E_TYPE;

	while (!r && at < end) {
		const struct region *region = census_region(run, at);
		raddr next;

		if (region) {
			r = region->heap ? 0 : PY_E_TYPE;
			at = region->end;
			continue;
		}
		if (!checked)
			r = run->late.items.n < LATE_MAX ? check_readable(run, addr, len) : PY_E_TYPE;
		checked = true;
		at = at / PAGE_BYTES * PAGE_BYTES;
		next = min_of((end + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES,
			min_of(regions_next(&run->regions, at), regions_next(&run->late, at)));
		if (!r)
			r = regions_add(&run->late, at, next);
		at = next;
	}
	return r;
}

int follow_table(struct census_run *run, raddr addr, uint64_t len, raddr owner, bool words) {
	int r;

	/* An address may have been asked already, as if it were an object's. */
	if (marks_get(&run->marks, addr) & MARK_TAKEN && !run->tries)
		return PY_E_TYPE;
	if (run->heap)
		return regions_find(&run->regions, addr) ? keep_table(run, addr, len, owner) : PY_E_TYPE;
	r = cover(run, addr, len);
	if (!r)
		r = outside_pools(run, addr) ? set_mark(run, addr, MARK_TAKEN) : PY_E_TYPE;
	if (!r)
		r = keep_place(run, (struct place_span){ .addr = addr, .owner = owner, .len = len, .is_table = 1 });
	return r || !words ? r : add_span(run, addr, len, len >= LONG_TABLE ? owner : 0);
}

/* A static type, in memory that a program or library has for what it does not initialise. Of its kind alone there are
 * objects there. Return: as mem_read_many, PY_E_TYPE. */
static int is_static(struct census_run *run, raddr addr, const struct heap_type *type, bool *ret_static) {
	struct type_head head;
	int r;

	*ret_static = false;
	if (!(type->head.flags & TYPE_SUBCLASS))
		return 0;
	r = type_head_read(run->py, addr, &head);
	*ret_static = !r && !(head.flags & TYPE_HEAP);
	return r == PY_E_TYPE || r == MEM_E_FAULT ? 0 : r;
}

static bool was_there(const struct census_run *run, raddr addr) {
	struct place_span span;

	return places_find_span(run->before, addr, &span) && !span.is_table && span.owner == addr;
}

/* Counts an object outside pools and sets out to search it. */
static int count_large(struct census_run *run, raddr addr, uint32_t number, const uint8_t *head, size_t len) {
	const struct region *region = outside_pools(run, addr);
	struct heap_type *type = &run->types.items.items[number];
	uint64_t bytes = object_bytes(run->py, type, head, len), own = bytes;
	bool none;
	int r;

	if (!region || bytes > region->end - addr || marks_get(&run->marks, addr) & MARK_TAKEN)
		return 0;
	r = is_static(run, addr, type, &none);
	if (r || none)
		return r;
	r = set_mark(run, addr, MARK_TAKEN);
	if (r)
		return r == PY_E_TYPE ? 0 : r;
	r = container_add(run, addr, number, head, len, &bytes);
	if (!r)
		r = keep_place(run, (struct place_span){ .addr = addr - type->before, .owner = addr, .len = own });
	if (r)
		return r;
	census_count(type, addr, bytes, !run->before || !was_there(run, addr));
	run->census->large++;
	if (type->kind == HEAP_TEXT || type->head.flags & TYPE_LONG)
		return 0;
	return add_span(run, addr - type->before, own, 0);
}

/* An address is an object's, or that of the collector's head before one. */
static int examine(struct census_run *run, raddr addr, const uint8_t *head) {
	uint32_t ways[] = { 0, run->gc_head };
	const struct py_reader *py = run->py;

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		const uint8_t *object = head + ways[i];
		size_t len = CENSUS_HEAD_BYTES - ways[i];
		uint32_t type;
		int r = heap_types_find(&run->types, peek_u64(object, len, py->layout.object_type), &type);

		if (r)
			return r;
		if (type == TYPE_NONE || !object_counts(run, object, len) ||
			(ways[i] && !(run->types.items.items[type].head.flags & TYPE_GC)))
			continue;
		return count_large(run, addr + ways[i], type, object, len);
	}
	return 0;
}

static int examine_batch(struct census_run *run, const raddr *addrs, size_t n) {
	static const uint8_t nothing[CENSUS_HEAD_BYTES];
	uint8_t heads[BATCH][CENSUS_HEAD_BYTES] = { 0 };
	struct mem_range ranges[BATCH];
	size_t done;
	int r = 0;

	for (size_t i = 0; i < n; i++)
		ranges[i] = (struct mem_range){ addrs[i], CENSUS_HEAD_BYTES, heads[i] };
	for (size_t at = 0; at < n; at += done + 1) {
		r = mem_read_many(run->py->mem, ranges + at, n - at, &done);
		if (!r)
			break;
		if (r != MEM_E_FAULT)
			return r;
		memcpy(heads[at + done], nothing, sizeof(nothing));
	}
	r = 0;
	for (size_t i = 0; !r && i < n; i++)
		r = examine(run, addrs[i], heads[i]);
	return r;
}

/* A list that grows while its table waits to be searched, or is, gets another one; so do dicts and sets. */
static int ask_owner(struct census_run *run, const struct span *span) {
	int r;

	if (!span->owner || span->tries >= TRIES_MAX)
		return 0;
	run->tries = span->tries + 1;
	r = container_again(run, span->owner, span->begin);
	run->tries = 0;
	return r;
}

/* A piece at a time: what is found in it is asked first. */
static int search_span(struct census_run *run, struct span span) {
	size_t n = min_of(span.len, (uint64_t)CENSUS_READ_BYTES);
	int r = mem_read(run->py->mem, span.addr, run->buf, n);

	if (r == MEM_E_FAULT)
		return ask_owner(run, &span);
	if (!r)
		r = follow_words(run, run->buf, n);
	if (!r)
		r = census_progress(run);
	span.addr += n;
	span.len -= n;
	if (r)
		return r;
	return span.len >= sizeof(uint64_t) ? vec_push(&run->spans, span) : ask_owner(run, &span);
}

int follow_all(struct census_run *run) {
	raddr batch[BATCH];
	int r = 0;

	while (!r && (run->candidates.n || run->spans.n)) {
		size_t n = min_of(run->candidates.n, (size_t)BATCH);

		if (n) {
			run->candidates.n -= n;
			memcpy(batch, run->candidates.items + run->candidates.n, n * sizeof(batch[0]));
			r = examine_batch(run, batch, n);
			if (!r)
				r = census_progress(run);
		} else {
			r = search_span(run, run->spans.items[--run->spans.n]);
		}
	}
	return r;
}
