/* SPDX-License-Identifier: MIT */
/* A heap for people:
 *
 *   Process 4711: python3 app.py (Python 3.13.1)
 *   1,204,331 objects of 412 types, 98.1 MiB, and 3.9 MiB of tables and buffers; the allocator keeps 3.2 MiB free
 *
 *      COUNT       SIZE  TYPE
 *    300,000   27.5 MiB  app.Order, in app.ORDERS
 *
 *     LENGTH       SIZE  CONTAINER
 *    300,000    2.5 MiB  list app.ORDERS
 */
#include "pyspyd/heap.h"

#include "engine/base/util.h"
#include "engine/finding/stack_text.h"
#include <inttypes.h>
#include <stdio.h>

#define CELL 32
#define MAPPINGS_SHOWN 5

/* "1,204,331", with a sign where it is what grew. */
static const char *count_text(char *buf, uint64_t value, const char *sign) {
	char digits[CELL];
	int n = snprintf(digits, sizeof(digits), "%" PRIu64, value), at = 0;

	for (const char *s = sign; *s; s++)
		buf[at++] = *s;
	for (int i = 0; i < n; i++) {
		if (i && (n - i) % 3 == 0)
			buf[at++] = ',';
		buf[at++] = digits[i];
	}
	buf[at] = '\0';
	return buf;
}

static const char *bytes_text(char *buf, uint64_t value, const char *sign) {
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double scaled = (double)value;
	size_t unit = 0;

	for (; scaled >= 1024 && unit < sizeof(units) / sizeof(units[0]) - 1; unit++)
		scaled /= 1024;
	snprintf(buf, CELL, unit ? "%s%.1f %s" : "%s%.0f %s", sign, scaled, units[unit]);
	return buf;
}

static const char *sign_of(int64_t value) {
	return value < 0 ? "-" : value > 0 ? "+" : "";
}

static uint64_t size_of(int64_t value) {
	return value < 0 ? -(uint64_t)value : (uint64_t)value;
}

static void add_header(struct strbuf *sb, const struct pyspyd_heap *heap, bool colour) {
	char count[CELL * 2], bytes[CELL], other[CELL], free_bytes[CELL];

	text_process(sb, &heap->process, colour);
	strbuf_addf(sb, "%s objects of %zu types, %s, and %s of tables and buffers; the allocator keeps %s free\n",
		count_text(count, heap->objects, ""), heap->types_all, bytes_text(bytes, heap->object_bytes, ""),
		bytes_text(other, heap->other_bytes, ""), bytes_text(free_bytes, heap->free_bytes, ""));
	if (heap->between_ns)
		strbuf_addf(sb, "in %.1f s: %s objects, %s\n", (double)heap->between_ns / 1e9,
			count_text(count, size_of(heap->grew_objects), sign_of(heap->grew_objects)),
			bytes_text(bytes, size_of(heap->grew_bytes), sign_of(heap->grew_bytes)));
}

static void add_types(struct strbuf *sb, const struct pyspyd_heap *heap) {
	char count[CELL * 2], bytes[CELL], more[CELL * 2], more_bytes[CELL];

	strbuf_adds(sb,
		heap->between_ns ? "\n      GREW        SIZE       COUNT        SIZE  TYPE\n"
				 : "\n     COUNT        SIZE  TYPE\n");
	for (size_t i = 0; i < heap->types_n; i++) {
		const struct pyspyd_heap_type *type = &heap->types[i];

		if (heap->between_ns)
			strbuf_addf(sb, "%10s  %10s  ",
				count_text(more, size_of(type->grew_count), sign_of(type->grew_count)),
				bytes_text(more_bytes, size_of(type->grew_bytes), sign_of(type->grew_bytes)));
		strbuf_addf(sb, "%10s  %10s  ", count_text(count, type->count, ""), bytes_text(bytes, type->bytes, ""));
		text_add(sb, type->type, TEXT_NAME_MAX);
		if (type->kept_by) {
			strbuf_addf(sb, type->kept_share < 0.95 ? ", %.0f %% in " : ", in ", 100 * type->kept_share);
			text_add(sb, type->kept_by, TEXT_NAME_MAX);
		}
		strbuf_adds(sb, "\n");
	}
	if (heap->types_all > heap->types_n)
		strbuf_addf(sb, "… and %zu more types\n", heap->types_all - heap->types_n);
}

static void add_containers(struct strbuf *sb, const struct pyspyd_heap *heap) {
	char count[CELL * 2], bytes[CELL], more[CELL * 2];

	if (!heap->containers_n)
		return;
	strbuf_adds(sb,
		heap->between_ns ? "\n      GREW      LENGTH        SIZE  CONTAINER\n"
				 : "\n    LENGTH        SIZE  CONTAINER\n");
	for (size_t i = 0; i < heap->containers_n; i++) {
		const struct pyspyd_heap_container *container = &heap->containers[i];

		if (heap->between_ns)
			strbuf_addf(sb, "%10s  ",
				container->is_new
					? "new"
					: count_text(more, size_of(container->grew), sign_of(container->grew)));
		strbuf_addf(sb, "%10s  %10s  ", count_text(count, container->length, ""),
			bytes_text(bytes, container->bytes, ""));
		text_add(sb, container->type, TEXT_NAME_MAX);
		strbuf_adds(sb, " ");
		if (container->path)
			text_add(sb, container->path, TEXT_NAME_MAX);
		else
			strbuf_addf(sb, "0x%" PRIx64, container->address);
		strbuf_adds(sb, "\n");
	}
}

static void add_lines(struct strbuf *sb, const struct pyspyd_heap *heap) {
	char count[CELL * 2], bytes[CELL], more[CELL];

	if (!heap->lines_n)
		return;
	strbuf_adds(sb,
		heap->between_ns ? "\n      GREW       COUNT        SIZE  ALLOCATED AT (tracemalloc)\n"
				 : "\n     COUNT        SIZE  ALLOCATED AT (tracemalloc)\n");
	for (size_t i = 0; i < heap->lines_n; i++) {
		const struct pyspyd_heap_line *line = &heap->lines[i];

		if (heap->between_ns)
			strbuf_addf(
				sb, "%10s  ", bytes_text(more, size_of(line->grew_bytes), sign_of(line->grew_bytes)));
		strbuf_addf(sb, "%10s  %10s  ", count_text(count, line->count, ""), bytes_text(bytes, line->bytes, ""));
		text_add(sb, line->file, TEXT_PATH_MAX);
		strbuf_addf(sb, ":%d\n", line->line);
	}
}

/* The kernel's account: what is Python's own is one of these. */
static void add_mappings(struct strbuf *sb, const struct pyspyd_heap *heap) {
	char count[CELL * 2], bytes[CELL], more[CELL];

	if (!heap->mappings_n)
		return;
	strbuf_adds(sb,
		heap->between_ns ? "\n      GREW    MAPPINGS        SIZE  MEMORY\n"
				 : "\n  MAPPINGS        SIZE  MEMORY\n");
	for (size_t i = 0; i < min_of(heap->mappings_n, (size_t)MAPPINGS_SHOWN); i++) {
		const struct pyspyd_heap_mapping *row = &heap->mappings[i];

		if (heap->between_ns)
			strbuf_addf(sb, "%10s  ", bytes_text(more, size_of(row->grew_bytes), sign_of(row->grew_bytes)));
		strbuf_addf(
			sb, "%10s  %10s  ", count_text(count, row->mappings, ""), bytes_text(bytes, row->bytes, ""));
		text_add(sb, row->name, TEXT_PATH_MAX);
		strbuf_adds(sb, "\n");
	}
}

char *pyspyd_heap_text(const struct pyspyd_heap *heap, bool colour) {
	struct strbuf sb = { 0 };

	add_header(&sb, heap, colour);
	add_types(&sb, heap);
	add_containers(&sb, heap);
	add_lines(&sb, heap);
	add_mappings(&sb, heap);
	if (heap->moved)
		strbuf_addf(&sb, "\nnote: %" PRIu64 " pools changed while they were read: counts may be a little off\n",
			heap->moved);
	if (heap->incomplete)
		strbuf_adds(&sb, "\nnote: incomplete: a limit was met\n");
	return strbuf_take(&sb);
}
