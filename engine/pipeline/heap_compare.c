/* SPDX-License-Identifier: MIT */
/* Two counts of a heap become rows: types, containers, lines and mappings, ordered by what grew, or by size where there
 * is only one count. */
#include "engine/pipeline/heap_count.h"

#include "engine/base/map.h"
#include "engine/pipeline/describe.h"
#include <errno.h>

#define CONTAINERS_DEFAULT 100
#define LINES_DEFAULT 100
#define PART_CONTAINERS 65536
#define ROWS_MORE 10000 /* of containers, beyond those wanted, until the worst are dropped */
#define MAPPINGS_SHOWN 20

/* Types. */

struct type_row {
	const struct heap_type *type;
	int64_t grew_count, grew_bytes;
};
typedef VEC(struct type_row) type_rows;

static int compare_int(int64_t a, int64_t b) {
	return (a > b) - (a < b);
}

static int by_size(const void *a, const void *b) {
	const struct type_row *x = a, *y = b;
	int r = compare_int(y->grew_bytes, x->grew_bytes);

	if (!r)
		r = compare_int((int64_t)y->type->bytes, (int64_t)x->type->bytes);
	return r ? r : compare_int((int64_t)x->type->head.addr, (int64_t)y->type->head.addr);
}

static int index_types(const struct census *census, struct map *index) {
	int r = 0;

	for (size_t i = 0; !r && i < census->types.n; i++)
		r = map_put(index, census->types.items[i].head.addr, i);
	return r;
}

static int type_rows_of(const struct census *before, const struct census *now, type_rows *rows) {
	struct map index = { 0 };
	int r = before ? index_types(before, &index) : 0;

	for (size_t i = 0; !r && i < now->types.n; i++) {
		const struct heap_type *type = &now->types.items[i], *old = NULL;
		struct type_row row = { .type = type };
		uint64_t at;

		if (before && map_get(&index, type->head.addr, &at))
			old = &before->types.items[at];
		if (before) {
			row.grew_count = (int64_t)(type->count - (old ? old->count : 0));
			row.grew_bytes = (int64_t)(type->bytes - (old ? old->bytes : 0));
		}
		if (type->count || row.grew_count)
			r = vec_push(rows, row);
	}
	map_deinit(&index);
	if (rows->n)
		qsort(rows->items, rows->n, sizeof(*rows->items), by_size);
	return r;
}

/* A class may go while we look: "?". Return: NULL when out of memory. */
static char *name_of(const struct py_reader *py, raddr type) {
	struct strbuf text = { 0 };

	if (py_type_describe_at(py, type, &text) || !text.len)
		strbuf_adds(&text, "?");
	return strbuf_take(&text);
}

static int fill_types(const struct py_reader *py, const type_rows *rows, size_t top, struct pyspyd_heap *heap) {
	size_t n = top ? min_of(top, rows->n) : rows->n;

	heap->types = calloc(n + 1, sizeof(*heap->types));
	if (!heap->types)
		return -ENOMEM;
	heap->types_all = rows->n;
	for (size_t i = 0; i < n; i++) {
		const struct type_row *row = &rows->items[i];

		heap->types[i] = (struct pyspyd_heap_type){
			.type = name_of(py, row->type->head.addr),
			.address = row->type->head.addr,
			.count = row->type->count,
			.bytes = row->type->bytes,
			.grew_count = row->grew_count,
			.grew_bytes = row->grew_bytes,
		};
		heap->types_n++;
		if (!heap->types[i].type)
			return -ENOMEM;
	}
	return 0;
}

/* Containers. */

struct container_row {
	const struct census_container *container;
	int64_t grew;
	bool is_new;
};
typedef VEC(struct container_row) container_rows;

/* What is new has grown by its whole length, for the order alone. */
static int64_t growth(const struct container_row *row) {
	return row->is_new ? (int64_t)row->container->length : row->grew;
}

static int by_length(const void *a, const void *b) {
	const struct container_row *x = a, *y = b;
	int r = compare_int(growth(y), growth(x));

	if (!r)
		r = compare_int((int64_t)y->container->length, (int64_t)x->container->length);
	return r ? r : compare_int((int64_t)x->container->addr, (int64_t)y->container->addr);
}

/* The best `top` rows, in their order. */
static void keep_best(container_rows *rows, size_t top) {
	if (rows->n)
		qsort(rows->items, rows->n, sizeof(*rows->items), by_length);
	rows->n = min_of(rows->n, top);
}

/* Of those whose addresses are of one part: a map of all that were there would be larger than they are. */
static int add_container_rows(const struct census *before, const struct census *now, size_t part, size_t parts,
	size_t top, container_rows *rows) {
	struct map index = { 0 };
	int r = 0;

	for (size_t i = 0; !r && before && i < before->containers.n; i++) {
		const struct census_container *container = &before->containers.items[i];

		if (hash_mix(container->addr) % parts == part)
			r = map_put(&index, container->addr, container->length);
	}
	for (size_t i = 0; !r && i < now->containers.n; i++) {
		struct container_row row = { .container = &now->containers.items[i] };
		uint64_t length;

		if (hash_mix(row.container->addr) % parts != part)
			continue;
		if (before && map_get(&index, row.container->addr, &length))
			row.grew = (int64_t)(row.container->length - length);
		else
			row.is_new = before != NULL;
		r = vec_push(rows, row);
		if (rows->n >= top + ROWS_MORE)
			keep_best(rows, top);
	}
	map_deinit(&index);
	return r;
}

static int container_rows_of(const struct census *before, const struct census *now, size_t top, container_rows *rows) {
	size_t parts = before ? before->containers.n / PART_CONTAINERS + 1 : 1;
	int r = 0;

	for (size_t part = 0; !r && part < parts; part++)
		r = add_container_rows(before, now, part, parts, top, rows);
	keep_best(rows, top);
	return r;
}

static int fill_containers(
	const struct py_reader *py, const struct census *now, const container_rows *rows, struct pyspyd_heap *heap) {
	heap->containers = calloc(rows->n + 1, sizeof(*heap->containers));
	if (!heap->containers)
		return -ENOMEM;
	for (size_t i = 0; i < rows->n; i++) {
		const struct container_row *row = &rows->items[i];

		heap->containers[i] = (struct pyspyd_heap_container){
			.type = name_of(py, now->types.items[row->container->type].head.addr),
			.address = row->container->addr,
			.length = row->container->length,
			.bytes = row->container->bytes,
			.grew = row->grew,
			.is_new = row->is_new,
		};
		heap->containers_n++;
		if (!heap->containers[i].type)
			return -ENOMEM;
	}
	return 0;
}

/* Lines of tracemalloc. */

static uint64_t line_key(const struct py_traced_line *line) {
	return hash_bytes(line->file, strlen(line->file), line->line) >> 1;
}

static int by_line(const void *a, const void *b) {
	const struct pyspyd_heap_line *x = a, *y = b;
	int r = compare_int(y->grew_bytes, x->grew_bytes);

	return r ? r : compare_int((int64_t)y->bytes, (int64_t)x->bytes);
}

static int line_rows(const struct heap_count *before, const struct heap_count *now, struct pyspyd_heap *heap) {
	struct map index = { 0 };
	int r = 0;

	for (size_t i = 0; !r && before && i < before->traced.lines.n; i++)
		r = map_put(&index, line_key(&before->traced.lines.items[i]), i);
	for (size_t i = 0; !r && i < now->traced.lines.n; i++) {
		const struct py_traced_line *line = &now->traced.lines.items[i];
		const struct py_traced_line none = { 0 }, *old = &none;
		uint64_t at;

		if (map_get(&index, line_key(line), &at))
			old = &before->traced.lines.items[at];
		heap->lines[i] = (struct pyspyd_heap_line){
			.file = strdup(line->file),
			.line = (int)line->line,
			.count = line->count,
			.bytes = line->bytes,
			.grew_count = before ? (int64_t)(line->count - old->count) : 0,
			.grew_bytes = before ? (int64_t)(line->bytes - old->bytes) : 0,
		};
		heap->lines_n = i + 1;
		r = heap->lines[i].file ? 0 : -ENOMEM;
	}
	map_deinit(&index);
	return r;
}

static int fill_lines(
	const struct heap_count *before, const struct heap_count *now, size_t top, struct pyspyd_heap *heap) {
	size_t most = top ? top : LINES_DEFAULT;
	int r;

	/* Of a target that began to trace in between, nothing can be compared. */
	if (!now->traced.lines.n || (before && !before->traced.lines.n))
		return 0;
	heap->lines = calloc(now->traced.lines.n, sizeof(*heap->lines));
	if (!heap->lines)
		return -ENOMEM;
	r = line_rows(before, now, heap);
	if (r)
		return r;
	qsort(heap->lines, heap->lines_n, sizeof(*heap->lines), by_line);
	for (; heap->lines_n > most; heap->lines_n--)
		free(heap->lines[heap->lines_n - 1].file);
	return 0;
}

/* Mappings. */

static int by_mapping(const void *a, const void *b) {
	const struct pyspyd_heap_mapping *x = a, *y = b;
	int r = compare_int(y->grew_bytes, x->grew_bytes);

	return r ? r : compare_int((int64_t)y->bytes, (int64_t)x->bytes);
}

static const struct memory_group *find_group(const struct heap_count *count, const char *name) {
	vec_foreach (group, &count->groups)
		if (!strcmp(group->name, name))
			return group;
	return NULL;
}

static int fill_mappings(const struct heap_count *before, const struct heap_count *now, struct pyspyd_heap *heap) {
	heap->mappings = calloc(now->groups.n + 1, sizeof(*heap->mappings));
	if (!heap->mappings)
		return -ENOMEM;
	vec_foreach (group, &now->groups) {
		const struct memory_group none = { 0 }, *old = before ? find_group(before, group->name) : group;
		struct pyspyd_heap_mapping *row = &heap->mappings[heap->mappings_n++];

		if (!old)
			old = &none;
		*row = (struct pyspyd_heap_mapping){
			.name = strdup(group->name),
			.mappings = group->mappings,
			.bytes = group->bytes,
			.grew_mappings = (int64_t)(group->mappings - old->mappings),
			.grew_bytes = (int64_t)(group->bytes - old->bytes),
		};
		if (!row->name)
			return -ENOMEM;
	}
	qsort(heap->mappings, heap->mappings_n, sizeof(*heap->mappings), by_mapping);
	for (; heap->mappings_n > MAPPINGS_SHOWN; heap->mappings_n--)
		free(heap->mappings[heap->mappings_n - 1].name);
	return 0;
}

/* The whole. */

static void fill_totals(const struct heap_count *before, const struct heap_count *now, struct pyspyd_heap *heap) {
	const struct census *census = &now->census;

	heap->objects = census->objects;
	heap->object_bytes = census->bytes;
	heap->large = census->large;
	heap->pool_bytes = census->pool_bytes;
	heap->blocks = census->blocks;
	heap->other_bytes = census->other_bytes;
	heap->free_bytes = census->free_bytes;
	heap->moved = census->moved;
	heap->private_bytes = heap_count_private(now);
	heap->cost_ns = now->cost_ns;
	heap->incomplete = census->incomplete || now->traced.incomplete;
	if (!before)
		return;
	heap->between_ns = now->at_ns - before->at_ns;
	heap->incomplete |= before->census.incomplete || before->traced.incomplete;
	heap->grew_objects = (int64_t)(census->objects - before->census.objects);
	heap->grew_bytes = (int64_t)(census->bytes - before->census.bytes);
	heap->grew_other = (int64_t)(census->other_bytes - before->census.other_bytes);
	heap->grew_free = (int64_t)(census->free_bytes - before->census.free_bytes);
	heap->grew_private = (int64_t)(heap->private_bytes - heap_count_private(before));
}

static int fill(struct sample_target *target, const struct heap_count *before, const struct heap_count *now, size_t top,
	struct pyspyd_heap *heap) {
	const struct census *old = before ? &before->census : NULL;
	const struct py_reader *py = &target->rt.reader;
	container_rows containers = { 0 };
	type_rows types = { 0 };
	int r = describe_process(&target->proc, target->rt.version, &heap->process);

	fill_totals(before, now, heap);
	if (!r)
		r = type_rows_of(old, &now->census, &types);
	if (!r)
		r = fill_types(py, &types, top, heap);
	if (!r)
		r = container_rows_of(old, &now->census, top ? top : (size_t)CONTAINERS_DEFAULT, &containers);
	if (!r)
		r = fill_containers(py, &now->census, &containers, heap);
	if (!r)
		r = fill_lines(before, now, top, heap);
	if (!r)
		r = fill_mappings(before, now, heap);
	vec_free(&types);
	vec_free(&containers);
	return r;
}

int heap_compare(struct sample_target *target, const struct heap_count *before, const struct heap_count *now,
	size_t top, struct pyspyd_heap **ret_heap) {
	struct pyspyd_heap *heap = calloc(1, sizeof(*heap));
	int r = heap ? fill(target, before, now, top, heap) : -ENOMEM;

	if (r)
		pyspyd_heap_free(heap);
	else
		*ret_heap = heap;
	return r == MEM_E_GONE ? PYSPYD_E_GONE : r;
}
