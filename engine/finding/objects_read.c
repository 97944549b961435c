/* SPDX-License-Identifier: MIT */
/* pyspyd.objects/1 back into structs. */
#include "engine/base/util.h"
#include "engine/finding/document.h"
#include "pyspyd/objects.h"
#include <errno.h>

static void read_entry(struct document *document, const json_t *object, void *item) {
	struct pyspyd_object_entry *entry = item;

	entry->name = document_string(document, object, "name");
	entry->type = document_string(document, object, "type");
	entry->value = document_string(document, object, "value");
	entry->masked = document_bool(document, object, "masked");
	entry->object = document_address(document, object, "object");
}

static void read_object(struct document *document, const json_t *object, void *item) {
	struct pyspyd_object *read = item;

	read->address = document_address(document, object, "object");
	read->type = document_string(document, object, "type");
	read->attributes = document_array(
		document, object, "attributes", sizeof(*read->attributes), read_entry, &read->attributes_n);
	read->items = document_array(document, object, "items", sizeof(*read->items), read_entry, &read->items_n);
	read->more = document_bool(document, object, "more");
}

static void read_frame(struct document *document, const json_t *object, void *item) {
	struct pyspyd_object_frame *frame = item;

	frame->function = document_string(document, object, "function");
	frame->variables = document_array(
		document, object, "variables", sizeof(*frame->variables), read_entry, &frame->variables_n);
}

static void read_thread(struct document *document, const json_t *object, void *item) {
	struct pyspyd_object_thread *thread = item;

	thread->tid = (pid_t)document_number(document, object, "tid", 0, INT32_MAX, 0);
	thread->frames =
		document_array(document, object, "frames", sizeof(*thread->frames), read_frame, &thread->frames_n);
}

static int compare(const void *a, const void *b) {
	const struct pyspyd_object *x = a, *y = b;

	return x->address < y->address ? -1 : x->address > y->address;
}

int pyspyd_objects_of_json(const char *json, size_t len, struct pyspyd_objects **ret_objects, struct err *err) {
	struct pyspyd_objects *objects = calloc(1, sizeof(*objects));
	struct document document;
	int r;

	if (!objects)
		return -ENOMEM;
	document_open(&document, "pyspyd.objects/1", json, len, err);
	objects->threads = document_array(
		&document, document.root, "threads", sizeof(*objects->threads), read_thread, &objects->threads_n);
	objects->objects = document_array(
		&document, document.root, "objects", sizeof(*objects->objects), read_object, &objects->objects_n);
	objects->truncated = document_bool(&document, document.root, "truncated");
	r = document.r;
	document_close(&document);
	if (r) {
		pyspyd_objects_free(objects);
		return r;
	}
	if (objects->objects_n)
		qsort(objects->objects, objects->objects_n, sizeof(*objects->objects), compare);
	*ret_objects = objects;
	return 0;
}

static void free_entries(struct pyspyd_object_entry *entries, size_t n) {
	for (size_t i = 0; entries && i < n; i++) {
		free(entries[i].name);
		free(entries[i].type);
		free(entries[i].value);
	}
	free(entries);
}

static void free_thread(struct pyspyd_object_thread *thread) {
	for (size_t i = 0; thread->frames && i < thread->frames_n; i++) {
		free(thread->frames[i].function);
		free_entries(thread->frames[i].variables, thread->frames[i].variables_n);
	}
	free(thread->frames);
}

void pyspyd_objects_free(struct pyspyd_objects *objects) {
	if (!objects)
		return;
	for (size_t i = 0; objects->threads && i < objects->threads_n; i++)
		free_thread(&objects->threads[i]);
	for (size_t i = 0; objects->objects && i < objects->objects_n; i++) {
		free(objects->objects[i].type);
		free_entries(objects->objects[i].attributes, objects->objects[i].attributes_n);
		free_entries(objects->objects[i].items, objects->objects[i].items_n);
	}
	free(objects->threads);
	free(objects->objects);
	free(objects);
}
