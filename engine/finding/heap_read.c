/* SPDX-License-Identifier: MIT */
/* pyspyd.heap/1 back into a heap. */
#include "engine/finding/document.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "pyspyd/snapshot.h"
#include <errno.h>

static void read_type(struct document *document, const json_t *object, void *item) {
	struct pyspyd_heap_type *type = item;
	double share;

	type->type = document_string(document, object, "type");
	type->count = document_count(document, object, "count");
	type->bytes = document_count(document, object, "bytes");
	type->grew_count = document_signed(document, object, "grew_count");
	type->grew_bytes = document_signed(document, object, "grew_bytes");
	type->kept_by = document_text(document, object, "kept_by");
	share = document_real(document, object, "kept_share");
	type->kept_share = type->kept_by ? share : 0;
}

static void read_container(struct document *document, const json_t *object, void *item) {
	struct pyspyd_heap_container *container = item;

	container->path = document_text(document, object, "path");
	container->type = document_string(document, object, "type");
	container->length = document_count(document, object, "length");
	container->bytes = document_count(document, object, "bytes");
	container->address = document_address(document, object, "address");
	container->grew = document_signed(document, object, "grew");
	container->is_new = document_bool(document, object, "new");
}

static void read_line(struct document *document, const json_t *object, void *item) {
	struct pyspyd_heap_line *line = item;

	line->file = document_string(document, object, "file");
	line->line = (int)document_number(document, object, "line", INT32_MIN, INT32_MAX, 0);
	line->count = document_count(document, object, "count");
	line->bytes = document_count(document, object, "bytes");
	line->grew_count = document_signed(document, object, "grew_count");
	line->grew_bytes = document_signed(document, object, "grew_bytes");
}

static void read_mapping(struct document *document, const json_t *object, void *item) {
	struct pyspyd_heap_mapping *mapping = item;

	mapping->name = document_string(document, object, "name");
	mapping->mappings = document_count(document, object, "mappings");
	mapping->bytes = document_count(document, object, "bytes");
	mapping->grew_mappings = document_signed(document, object, "grew_mappings");
	mapping->grew_bytes = document_signed(document, object, "grew_bytes");
}

static void read_pools(struct document *document, struct pyspyd_heap *heap) {
	const json_t *pools = document_object(document, document->root, "pools");

	heap->pool_bytes = document_count(document, pools, "bytes");
	heap->blocks = document_count(document, pools, "blocks");
	heap->other_bytes = document_count(document, pools, "other_bytes");
	heap->free_bytes = document_count(document, pools, "free_bytes");
	heap->grew_other = document_signed(document, pools, "grew_other");
	heap->moved = document_count(document, pools, "moved");
}

static void read_rows(struct document *document, struct pyspyd_heap *heap) {
	const json_t *root = document->root;

	heap->private_bytes = document_count(document, root, "private_bytes");
	heap->grew_private = document_signed(document, root, "grew_private");
	heap->grew_objects = document_signed(document, root, "grew_objects");
	heap->grew_bytes = document_signed(document, root, "grew_bytes");
	heap->grew_free = document_signed(document, root, "grew_free");
	heap->types = document_array(document, root, "types", sizeof(*heap->types), read_type, &heap->types_n);
	heap->containers = document_array(
		document, root, "containers", sizeof(*heap->containers), read_container, &heap->containers_n);
	heap->lines = document_array(document, root, "lines", sizeof(*heap->lines), read_line, &heap->lines_n);
	heap->mappings =
		document_array(document, root, "mappings", sizeof(*heap->mappings), read_mapping, &heap->mappings_n);
}

static void read_heap(struct document *document, struct pyspyd_heap *heap) {
	const json_t *root = document->root;

	document_process(document, root, &heap->process);
	heap->objects = document_count(document, root, "objects");
	heap->object_bytes = document_count(document, root, "bytes");
	heap->large = document_count(document, root, "large");
	heap->cost_ns = document_ns(document, root, "cost_ms", NS_PER_MS, 0);
	heap->paths_ns = document_ns(document, root, "paths_ms", NS_PER_MS, 0);
	heap->between_ns = document_ns(document, root, "between_s", (double)NS_PER_SEC, 0);
	heap->incomplete = document_bool(document, root, "incomplete");
	heap->types_all = (size_t)document_count(document, root, "types_all");
	read_pools(document, heap);
	read_rows(document, heap);
}

int pyspyd_heap_of_json(const char *json, size_t len, struct pyspyd_heap **ret_heap, struct err *err) {
	struct pyspyd_heap *heap = calloc(1, sizeof(*heap));
	struct document document;
	int r;

	if (!heap)
		return -ENOMEM;
	document_open(&document, "pyspyd.heap/1", json, len, err);
	read_heap(&document, heap);
	r = document.r;
	document_close(&document);
	if (r)
		pyspyd_heap_free(heap);
	else
		*ret_heap = heap;
	return r;
}
