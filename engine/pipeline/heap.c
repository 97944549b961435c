/* SPDX-License-Identifier: MIT */
/* pyspyd_heap_count: attach, count once or twice, compare, name types and globals. */
#include "pyspyd/heap.h"

#include "engine/base/clock.h"
#include "engine/base/limits.h"
#include "engine/base/map.h"
#include "engine/leaks/census.h"
#include "engine/pipeline/describe.h"
#include <errno.h>
#include <time.h>

#define STARTING_WAIT_NS (2 * NS_PER_SEC)
#define CONTAINERS_DEFAULT 100
#define NAMES_NS NS_PER_SEC /* for globals; a sane program takes some milliseconds */
#define WAIT_STEP_NS (100 * NS_PER_MS)

struct count {
	struct census census;
	uint64_t at_ns, cost_ns;
};

static int take(struct sample_target *target, struct count *ret, struct err *err) {
	proc_map_vec maps = { 0 };
	uint64_t start = clock_boot_ns();
	int r = proc_maps_read(&target->proc, &maps);

	if (r == PROC_E_GONE)
		return PYSPYD_E_GONE;
	if (!r)
		r = census_take(&target->rt, &maps, &(struct census_options){ 0 }, &ret->census, err);
	proc_maps_free(&maps);
	if (r == MEM_E_GONE && !proc_alive(&target->proc))
		return PYSPYD_E_GONE;
	ret->at_ns = start;
	ret->cost_ns = clock_boot_ns() - start;
	return r;
}

static void wait_for(const struct proc *proc, uint64_t until_ns, bool (*progress)(void *userdata), void *userdata) {
	uint64_t now = clock_boot_ns();

	while (now < until_ns && proc_alive(proc) && !(progress && progress(userdata))) {
		uint64_t step = min_of(until_ns - now, (uint64_t)WAIT_STEP_NS);

		nanosleep(&(struct timespec){ .tv_sec = (time_t)(step / NS_PER_SEC),
				  .tv_nsec = (long)(step % NS_PER_SEC) },
			NULL);
		now = clock_boot_ns();
	}
}

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

static int fill_types(const struct py_reader *py, const type_rows *rows, size_t top, const struct count *before,
	struct pyspyd_heap *heap) {
	size_t n = top ? min_of(top, rows->n) : rows->n;

	heap->types = calloc(n + 1, sizeof(*heap->types));
	if (!heap->types)
		return -ENOMEM;
	heap->types_all = rows->n;
	for (size_t i = 0; i < n; i++) {
		const struct type_row *row = &rows->items[i];

		heap->types[i] = (struct pyspyd_heap_type){
			.type = name_of(py, row->type->head.addr),
			.count = row->type->count,
			.bytes = row->type->bytes,
			.grew_count = row->grew_count,
			.grew_bytes = row->grew_bytes,
		};
		heap->types_n++;
		if (!heap->types[i].type)
			return -ENOMEM;
	}
	if (before) {
		vec_foreach (row, rows) {
			heap->grew_objects += row->grew_count;
			heap->grew_bytes += row->grew_bytes;
		}
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

static int container_rows_of(const struct census *before, const struct census *now, container_rows *rows) {
	struct map index = { 0 };
	int r = 0;

	for (size_t i = 0; !r && before && i < before->containers.n; i++)
		r = map_put(&index, before->containers.items[i].addr, before->containers.items[i].length);
	for (size_t i = 0; !r && i < now->containers.n; i++) {
		struct container_row row = { .container = &now->containers.items[i] };
		uint64_t length;

		if (before && map_get(&index, row.container->addr, &length))
			row.grew = (int64_t)(row.container->length - length);
		else
			row.is_new = before != NULL;
		r = vec_push(rows, row);
	}
	map_deinit(&index);
	if (rows->n)
		qsort(rows->items, rows->n, sizeof(*rows->items), by_length);
	return r;
}

static int fill_containers(const struct py_reader *py, const struct census *now, const container_rows *rows, size_t top,
	struct pyspyd_heap *heap) {
	size_t n = min_of(rows->n, top ? top : (size_t)CONTAINERS_DEFAULT);

	heap->containers = calloc(n + 1, sizeof(*heap->containers));
	if (!heap->containers)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
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

/* Globals. */

struct globals {
	const struct py_reader *py;
	struct pyspyd_heap *heap;
	struct map index; /* address → container */
	raddr module;     /* its name */
	uint64_t until_ns;
};

static int name_global(void *userdata, raddr key, raddr value) {
	struct globals *globals = userdata;
	struct strbuf text = { 0 };
	uint64_t at;
	int r;

	if (!map_get(&globals->index, value, &at) || globals->heap->containers[at].path)
		return 0;
	r = py_text_read(globals->py, globals->module, LIMIT_NAME_CHARS, &text);
	strbuf_adds(&text, ".");
	if (!r)
		r = py_text_read(globals->py, key, LIMIT_NAME_CHARS, &text);
	if (!r)
		globals->heap->containers[at].path = strbuf_take(&text);
	strbuf_deinit(&text);
	return r == -ENOMEM ? r : 0;
}

static int name_module(void *userdata, raddr key, raddr module) {
	struct globals *globals = userdata;
	const struct py_reader *py = globals->py;
	raddr dict;
	int r = mem_read_u64(py->mem, module + py->layout.module_dict, &dict);

	if (clock_mono_ns() > globals->until_ns)
		return 1;
	globals->module = key;
	if (!r)
		r = py_dict_walk(py, dict, name_global, globals);
	return r < 0 || r == MEM_E_GONE ? r : 0;
}

/* Names what is a global of a module. The rest stays without a path. Return: 0; MEM_E_GONE; negative errno. */
static int name_globals(const struct py_runtime *rt, struct pyspyd_heap *heap) {
	struct globals globals = {
		.py = &rt->reader,
		.heap = heap,
		.until_ns = clock_mono_ns() + NAMES_NS,
	};
	py_interp_vec interps = { 0 };
	int r = layout_has(rt->reader.layout.module_dict) ? py_interps_read(rt, &interps) : PY_E_TYPE;

	for (size_t i = 0; !r && i < heap->containers_n; i++)
		r = map_put(&globals.index, heap->containers[i].address, i);
	for (size_t i = 0; !r && i < interps.n; i++) {
		raddr modules;

		r = mem_read_u64(rt->reader.mem, interps.items[i].addr + rt->reader.layout.interp_modules, &modules);
		if (!r)
			r = py_dict_walk(&rt->reader, modules, name_module, &globals);
		r = r < 0 || r == MEM_E_GONE ? r : 0;
	}
	vec_free(&interps);
	map_deinit(&globals.index);
	return r < 0 || r == MEM_E_GONE ? r : 0;
}

/* The whole. */

static void fill_totals(const struct count *before, const struct count *now, struct pyspyd_heap *heap) {
	const struct census *census = &now->census;

	heap->objects = census->objects;
	heap->object_bytes = census->bytes;
	heap->large = census->large;
	heap->pool_bytes = census->pool_bytes;
	heap->blocks = census->blocks;
	heap->other_bytes = census->other_bytes;
	heap->free_bytes = census->free_bytes;
	heap->moved = census->moved;
	heap->cost_ns = now->cost_ns;
	heap->between_ns = before ? now->at_ns - before->at_ns : 0;
	heap->incomplete = census->incomplete || (before && before->census.incomplete);
}

static int fill(struct sample_target *target, const struct count *before, const struct count *now, size_t top,
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
		r = fill_types(py, &types, top, before, heap);
	if (!r)
		r = container_rows_of(old, &now->census, &containers);
	if (!r)
		r = fill_containers(py, &now->census, &containers, top, heap);
	if (!r)
		r = name_globals(&target->rt, heap);
	vec_free(&types);
	vec_free(&containers);
	return r == MEM_E_GONE ? PYSPYD_E_GONE : r;
}

static int count(struct sample_target *target, const struct pyspyd_heap_options *options,
	bool (*progress)(void *userdata), void *userdata, struct pyspyd_heap *heap, struct err *err) {
	struct count before = { 0 }, now = { 0 };
	int r = take(target, &now, err);

	if (!r && options->diff_ns) {
		before = now;
		now = (struct count){ 0 };
		wait_for(&target->proc, before.at_ns + options->diff_ns, progress, userdata);
		r = take(target, &now, err);
	}
	if (!r)
		r = fill(target, options->diff_ns ? &before : NULL, &now, options->top, heap);
	census_deinit(&before.census);
	census_deinit(&now.census);
	return r;
}

int pyspyd_heap_count(pid_t pid, const struct pyspyd_heap_options *options, bool (*progress)(void *userdata),
	void *userdata, struct pyspyd_heap **ret_heap, struct err *err) {
	struct pyspyd_heap *heap = calloc(1, sizeof(*heap));
	struct sample_target *target = NULL;
	int r = heap ? sample_target_new(pid, STARTING_WAIT_NS, &target, err) : -ENOMEM;

	if (!r)
		r = count(target, options, progress, userdata, heap, err);
	if (r == PYSPYD_E_GONE && (!err || !err->text[0] || err->code != r))
		err_set(err, r, "process %d has ended", (int)pid);
	if (r == -ENOMEM)
		err_set(err, r, "out of memory");
	sample_target_free(target);
	if (r)
		pyspyd_heap_free(heap);
	else
		*ret_heap = heap;
	return r;
}

void pyspyd_heap_free(struct pyspyd_heap *heap) {
	if (!heap)
		return;
	for (size_t i = 0; i < heap->types_n; i++)
		free(heap->types[i].type);
	for (size_t i = 0; i < heap->containers_n; i++) {
		free(heap->containers[i].path);
		free(heap->containers[i].type);
	}
	free(heap->types);
	free(heap->containers);
	pyspyd_process_deinit(&heap->process);
	free(heap);
}
