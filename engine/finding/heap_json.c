/* SPDX-License-Identifier: MIT */
/* pyspyd.heap/1: { schema, process, objects, bytes, …, types[ {type, count, bytes} ],
 * containers[ {path, type, length, bytes} ], lines[], mappings[] }. What grew has a sign: grew_count, grew_bytes, grew;
 * null with one count. */
#include "engine/finding/heap_json.h"

static json_t *grew(const struct pyspyd_heap *heap, int64_t value) {
	return heap->between_ns ? json_integer(value) : json_null();
}

static json_t *type_json(const struct pyspyd_heap *heap, const struct pyspyd_heap_type *type) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "type", json_text(type->type));

	ok = json_put(ok, object, "count", json_count(type->count));
	ok = json_put(ok, object, "bytes", json_count(type->bytes));
	ok = json_put(ok, object, "grew_count", grew(heap, type->grew_count));
	ok = json_put(ok, object, "grew_bytes", grew(heap, type->grew_bytes));
	ok = json_put(ok, object, "kept_by", json_text(type->kept_by));
	ok = json_put(ok, object, "kept_share", type->kept_by ? json_real_or_null(type->kept_share) : json_null());
	return json_done(ok, object);
}

static json_t *line_json(const struct pyspyd_heap *heap, const struct pyspyd_heap_line *line) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "file", json_text(line->file));

	ok = json_put(ok, object, "line", json_integer(line->line));
	ok = json_put(ok, object, "count", json_count(line->count));
	ok = json_put(ok, object, "bytes", json_count(line->bytes));
	ok = json_put(ok, object, "grew_count", grew(heap, line->grew_count));
	ok = json_put(ok, object, "grew_bytes", grew(heap, line->grew_bytes));
	return json_done(ok, object);
}

static json_t *mapping_json(const struct pyspyd_heap *heap, const struct pyspyd_heap_mapping *mapping) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "name", json_text(mapping->name));

	ok = json_put(ok, object, "mappings", json_count(mapping->mappings));
	ok = json_put(ok, object, "bytes", json_count(mapping->bytes));
	ok = json_put(ok, object, "grew_mappings", grew(heap, mapping->grew_mappings));
	ok = json_put(ok, object, "grew_bytes", grew(heap, mapping->grew_bytes));
	return json_done(ok, object);
}

static json_t *container_json(const struct pyspyd_heap *heap, const struct pyspyd_heap_container *container) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "path", json_text(container->path));

	ok = json_put(ok, object, "type", json_text(container->type));
	ok = json_put(ok, object, "length", json_count(container->length));
	ok = json_put(ok, object, "bytes", json_count(container->bytes));
	ok = json_put(ok, object, "address", json_address(container->address));
	ok = json_put(ok, object, "grew", container->is_new ? json_null() : grew(heap, container->grew));
	ok = json_put(ok, object, "new", json_boolean(container->is_new));
	return json_done(ok, object);
}

/* One array of rows. */
#define ROWS(name) \
	static json_t *name##s_json(const struct pyspyd_heap *heap) { \
		json_t *array = json_array(); \
		bool ok = array != NULL; \
\
		for (size_t i = 0; ok && i < heap->name##s_n; i++) \
			ok = !json_array_append_new(array, name##_json(heap, &heap->name##s[i])); \
		return json_done(ok, array); \
	}
ROWS(type)
ROWS(container)
ROWS(line)
ROWS(mapping)
#undef ROWS

static bool put_rows(bool ok, json_t *object, const struct pyspyd_heap *heap) {
	ok = json_put(ok, object, "between_s",
		heap->between_ns ? json_real_or_null((double)heap->between_ns / 1e9) : json_null());
	ok = json_put(ok, object, "private_bytes", json_count(heap->private_bytes));
	ok = json_put(ok, object, "grew_private", grew(heap, heap->grew_private));
	ok = json_put(ok, object, "grew_objects", grew(heap, heap->grew_objects));
	ok = json_put(ok, object, "grew_bytes", grew(heap, heap->grew_bytes));
	ok = json_put(ok, object, "grew_free", grew(heap, heap->grew_free));
	ok = json_put(ok, object, "types", types_json(heap));
	ok = json_put(ok, object, "containers", containers_json(heap));
	ok = json_put(ok, object, "lines", lines_json(heap));
	return json_put(ok, object, "mappings", mappings_json(heap));
}

json_t *heap_json_evidence(const struct pyspyd_heap *heap) {
	json_t *object = json_object();

	return json_done(put_rows(object != NULL, object, heap), object);
}

static json_t *pools_json(const struct pyspyd_heap *heap) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "bytes", json_count(heap->pool_bytes));

	ok = json_put(ok, object, "blocks", json_count(heap->blocks));
	ok = json_put(ok, object, "other_bytes", json_count(heap->other_bytes));
	ok = json_put(ok, object, "free_bytes", json_count(heap->free_bytes));
	ok = json_put(ok, object, "grew_other", grew(heap, heap->grew_other));
	ok = json_put(ok, object, "moved", json_count(heap->moved));
	return json_done(ok, object);
}

char *pyspyd_heap_json(const struct pyspyd_heap *heap) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "schema", json_string("pyspyd.heap/1"));

	ok = json_put(ok, object, "process", stack_json_process(&heap->process));
	if (heap->process.core)
		ok = json_put(ok, object, "core", stack_json_core(heap->process.core));
	ok = json_put(ok, object, "objects", json_count(heap->objects));
	ok = json_put(ok, object, "bytes", json_count(heap->object_bytes));
	ok = json_put(ok, object, "large", json_count(heap->large));
	ok = json_put(ok, object, "cost_ms", json_real_or_null((double)heap->cost_ns / 1e6));
	ok = json_put(ok, object, "paths_ms", json_real_or_null((double)heap->paths_ns / 1e6));
	ok = json_put(ok, object, "incomplete", json_boolean(heap->incomplete));
	ok = json_put(ok, object, "pools", pools_json(heap));
	ok = json_put(ok, object, "types_all", json_count(heap->types_all));
	ok = put_rows(ok, object, heap);
	return json_line(json_done(ok, object));
}
