/* SPDX-License-Identifier: MIT */
/* A snapshot's documents as what the looks at a live process give, with what was not asked for left out. */
#include "engine/base/clock.h"
#include "engine/base/strbuf.h"
#include "engine/cpython/locals.h"
#include "engine/export/export.h"
#include "engine/finding/document.h"
#include "engine/finding/stack_text.h"
#include "engine/pipeline/expect.h"
#include "engine/pipeline/snapshot.h"
#include "engine/snapshot/archive.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define PERIOD_NS (10 * NS_PER_MS) /* that a stack is taken to stand for in a profile: as at record's rate */

struct pyspyd_snapshot {
	char *file_name; /* printable */
	struct archive archive;
	char *meta; /* pyspyd.snapshot/1 */
	size_t meta_len;
};

/* Return: what the reason says that taking the part gave. */
static int tell_reason(const char *name, const char *json, size_t len, struct err *err) {
	struct document document;
	_free_ char *condition = NULL, *text = NULL;
	_cleanup_(strbuf_deinit) struct strbuf printable = { 0 };
	int r;

	document_open(&document, SNAPSHOT_REASON, json, len, err);
	condition = document_string(&document, document.root, "condition");
	text = document_string(&document, document.root, "text");
	r = document.r;
	document_close(&document);
	if (r)
		return r;
	strbuf_add_printable(&printable, text, strlen(text));
	return err_set(
		err, snapshot_condition_of(condition), "%s could not be taken: %s", name, strbuf_str(&printable));
}

int pyspyd_snapshot_section(
	struct pyspyd_snapshot *snapshot, const char *name, char **ret_json, size_t *ret_len, struct err *err) {
	const struct archive_section *section = archive_find(&snapshot->archive, name);
	_free_ char *json = NULL;
	int r;

	if (!section)
		return err_set(err, -ENOENT, "%s: there is no \"%s\" in it", snapshot->file_name, name);
	r = archive_read(&snapshot->archive, section, &json, err);
	if (!r && section->kind == ARCHIVE_REASON)
		r = tell_reason(name, json, section->bytes, err);
	if (r)
		return err_wrap(err, r, "%s", snapshot->file_name);
	*ret_len = section->bytes;
	*ret_json = take_ptr(json);
	return 0;
}

static int open_file(const char *file_name, struct archive *archive, struct err *err) {
	int fd = open(file_name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	return fd < 0 ? err_set(err, -errno, "%s", strerror(errno)) : archive_open(fd, archive, err);
}

static int open_meta(struct pyspyd_snapshot *snapshot, struct err *err) {
	struct document document;
	int r = pyspyd_snapshot_section(snapshot, PYSPYD_SNAPSHOT_META, &snapshot->meta, &snapshot->meta_len, err);

	if (r)
		return r;
	r = document_open(&document, "pyspyd.snapshot/1", snapshot->meta, snapshot->meta_len, err);
	document_close(&document);
	return r ? err_wrap(err, r, "%s", snapshot->file_name) : 0;
}

int pyspyd_snapshot_open(const char *file_name, struct pyspyd_snapshot **ret_snapshot, struct err *err) {
	struct pyspyd_snapshot *snapshot = calloc(1, sizeof(*snapshot));
	struct strbuf printable = { 0 };
	int r = snapshot ? 0 : -ENOMEM;

	if (r)
		return r;
	strbuf_add_printable(&printable, file_name, strlen(file_name));
	snapshot->archive.fd = -1;
	snapshot->file_name = strbuf_take(&printable);
	r = snapshot->file_name ? open_file(file_name, &snapshot->archive, err) : -ENOMEM;
	if (r && snapshot->file_name)
		err_wrap(err, r, "%s", snapshot->file_name);
	if (!r)
		r = open_meta(snapshot, err);
	if (r)
		pyspyd_snapshot_close(snapshot);
	else
		*ret_snapshot = snapshot;
	return r;
}

void pyspyd_snapshot_close(struct pyspyd_snapshot *snapshot) {
	if (!snapshot)
		return;
	archive_close(&snapshot->archive);
	free(snapshot->file_name);
	free(snapshot->meta);
	free(snapshot);
}

/* Reads a section and decodes it. */
#define READ_PART(snapshot, name, decode, ret, err) \
	({ \
		_free_ char *_json = NULL; \
		size_t _len = 0; \
		int _r = pyspyd_snapshot_section(snapshot, name, &_json, &_len, err); \
		if (!_r) { \
			_r = decode(_json, _len, ret, err); \
			if (_r) \
				err_wrap(err, _r, "%s", (snapshot)->file_name); \
		} \
		_r; \
	})

/* Stacks */

static void drop_locals(struct pyspyd_frame *frame) {
	for (size_t i = 0; i < frame->locals_n; i++) {
		free(frame->locals[i].name);
		free(frame->locals[i].type);
		free(frame->locals[i].value);
	}
	free(frame->locals);
	frame->locals = NULL;
	frame->locals_n = 0;
}

/* Of a file that was written unmasked. */
static int mask_locals(struct pyspyd_frame *frame) {
	for (size_t i = 0; i < frame->locals_n; i++) {
		struct pyspyd_local *local = &frame->locals[i];

		if (local->masked || !py_local_is_secret(local->name))
			continue;
		free(local->value);
		local->value = strdup("***");
		local->masked = true;
		if (!local->value)
			return -ENOMEM;
	}
	return 0;
}

static int filter_frames(const struct pyspyd_dump_options *options, struct pyspyd_frame *frames, size_t n) {
	int r = 0;

	for (size_t i = 0; i < n && !r; i++) {
		if (!options->locals)
			drop_locals(&frames[i]);
		else if (!options->unmask)
			r = mask_locals(&frames[i]);
	}
	return r;
}

/* Leaves Python's frames. Return: where the frame that was number `site` stands now. */
static size_t drop_native_frames(struct pyspyd_frame *frames, size_t *n, size_t site) {
	size_t kept = 0, moved = SIZE_MAX;

	for (size_t i = 0; i < *n; i++) {
		if (i == site)
			moved = kept;
		if (frames[i].lang != PYSPYD_PYTHON) {
			pyspyd_frame_deinit(&frames[i]);
			continue;
		}
		frames[i].doubt = NULL;
		frames[kept++] = frames[i];
	}
	*n = kept;
	return moved;
}

static void drop_native(struct pyspyd_thread *thread) {
	drop_native_frames(thread->frames, &thread->frames_n, 0);
	thread->native = thread->disagree = false;
	thread->native_end = NULL;
	thread->stopped_ns = 0;
}

static void drop_foreign(struct pyspyd_dump *dump) {
	size_t kept = 0;

	for (size_t i = 0; i < dump->threads_n; i++) {
		struct pyspyd_thread *thread = &dump->threads[i];

		if (thread->interpreter < 0) {
			free(thread->name);
			pyspyd_frames_free(thread->frames, thread->frames_n);
			pyspyd_exceptions_free(thread->exceptions, thread->exceptions_n);
			continue;
		}
		drop_native(thread);
		dump->threads[kept++] = *thread;
	}
	dump->threads_n = kept;
}

static int filter_dump(const struct pyspyd_dump_options *options, struct pyspyd_dump *dump) {
	int r = 0;

	if (!options->native)
		drop_foreign(dump);
	dump->async = dump->async && options->async;
	for (size_t i = 0; !r && i < dump->threads_n; i++)
		r = filter_frames(options, dump->threads[i].frames, dump->threads[i].frames_n);
	return r;
}

/* Of a file that was written unmasked: what a secret name leads to is not followed. */
static int mask_entries(struct pyspyd_object_entry *entries, size_t n) {
	for (size_t i = 0; i < n; i++) {
		if (entries[i].masked || !py_local_is_secret(entries[i].name))
			continue;
		free(entries[i].value);
		entries[i].value = strdup("***");
		entries[i].masked = true;
		entries[i].object = 0;
		if (!entries[i].value)
			return -ENOMEM;
	}
	return 0;
}

static int mask_objects(struct pyspyd_objects *objects) {
	int r = 0;

	for (size_t i = 0; i < objects->threads_n; i++)
		for (size_t k = 0; !r && k < objects->threads[i].frames_n; k++)
			r = mask_entries(
				objects->threads[i].frames[k].variables, objects->threads[i].frames[k].variables_n);
	for (size_t i = 0; !r && i < objects->objects_n; i++) {
		r = mask_entries(objects->objects[i].attributes, objects->objects[i].attributes_n);
		if (!r)
			r = mask_entries(objects->objects[i].items, objects->objects[i].items_n);
	}
	return r;
}

/* They belong to the variables; a file that has none of them is shown all the same. */
static int add_objects(struct pyspyd_snapshot *snapshot, const struct pyspyd_dump_options *options,
	struct pyspyd_dump *dump, struct err *err) {
	const struct archive_section *section = archive_find(&snapshot->archive, PYSPYD_SNAPSHOT_OBJECTS);
	int r;

	if (!options->locals || !section || section->kind == ARCHIVE_REASON)
		return 0;
	r = READ_PART(snapshot, PYSPYD_SNAPSHOT_OBJECTS, pyspyd_objects_of_json, &dump->objects, err);
	return r || options->unmask ? r : mask_objects(dump->objects);
}

int pyspyd_snapshot_dump(struct pyspyd_snapshot *snapshot, const struct pyspyd_dump_options *options,
	struct pyspyd_dump **ret_dump, struct err *err) {
	struct pyspyd_dump *dump = NULL;
	int r = READ_PART(snapshot, PYSPYD_SNAPSHOT_DUMP, pyspyd_dump_of_json, &dump, err);

	if (!r)
		r = filter_dump(options, dump);
	if (!r)
		r = add_objects(snapshot, options, dump, err);
	if (r)
		pyspyd_dump_free(dump);
	else
		*ret_dump = dump;
	return r;
}

/* Other parts */

static void drop_native_stacks(struct pyspyd_waits *waits) {
	for (size_t i = 0; i < waits->nodes_n; i++) {
		struct pyspyd_wait_node *node = &waits->nodes[i];

		node->site = drop_native_frames(node->frames, &node->frames_n, node->site);
		node->native = node->disagree = false;
		node->native_end = NULL;
	}
}

int pyspyd_snapshot_waits(struct pyspyd_snapshot *snapshot, const struct pyspyd_waits_options *options,
	struct pyspyd_waits **ret_waits, struct err *err) {
	struct pyspyd_waits *waits = NULL;
	int r = READ_PART(snapshot, PYSPYD_SNAPSHOT_WAITS, pyspyd_waits_of_json, &waits, err);

	if (r)
		return r;
	if (!options->native)
		drop_native_stacks(waits);
	*ret_waits = waits;
	return 0;
}

int pyspyd_snapshot_modules(struct pyspyd_snapshot *snapshot, const struct pyspyd_modules_options *options,
	struct pyspyd_modules **ret_modules, struct err *err) {
	struct pyspyd_modules *modules = NULL;
	int r = READ_PART(snapshot, PYSPYD_SNAPSHOT_MODULES, pyspyd_modules_of_json, &modules, err);

	if (!r && options->expect)
		r = modules_expect(modules, options, err);
	if (r)
		pyspyd_modules_free(modules);
	else
		*ret_modules = modules;
	return r;
}

int pyspyd_snapshot_handles(struct pyspyd_snapshot *snapshot, struct pyspyd_handles **ret_handles, struct err *err) {
	return READ_PART(snapshot, PYSPYD_SNAPSHOT_HANDLES, pyspyd_handles_of_json, ret_handles, err);
}

static void drop_keepers(struct pyspyd_heap *heap) {
	for (size_t i = 0; i < heap->types_n; i++) {
		free(heap->types[i].kept_by);
		heap->types[i].kept_by = NULL;
		heap->types[i].kept_share = 0;
	}
	for (size_t i = 0; i < heap->containers_n; i++) {
		free(heap->containers[i].path);
		heap->containers[i].path = NULL;
	}
}

static void cut_rows(struct pyspyd_heap *heap, size_t top) {
	for (; heap->types_n > top; heap->types_n--) {
		free(heap->types[heap->types_n - 1].type);
		free(heap->types[heap->types_n - 1].kept_by);
	}
	for (; heap->containers_n > top; heap->containers_n--) {
		free(heap->containers[heap->containers_n - 1].type);
		free(heap->containers[heap->containers_n - 1].path);
	}
	for (; heap->lines_n > top; heap->lines_n--)
		free(heap->lines[heap->lines_n - 1].file);
}

int pyspyd_snapshot_heap(struct pyspyd_snapshot *snapshot, const struct pyspyd_heap_options *options,
	struct pyspyd_heap **ret_heap, struct err *err) {
	struct pyspyd_heap *heap = NULL;
	int r = READ_PART(snapshot, PYSPYD_SNAPSHOT_HEAP, pyspyd_heap_of_json, &heap, err);

	if (r)
		return r;
	if (options->no_paths)
		drop_keepers(heap);
	if (options->top)
		cut_rows(heap, options->top);
	*ret_heap = heap;
	return 0;
}

/* The stacks as a profile */

static uint32_t add_frame(struct profile *profile, const struct pyspyd_frame *frame) {
	const char *name = frame->qualname[0] ? frame->qualname : frame->function;
	const char *file = frame->file ? frame->file : "", *module = frame->module ? frame->module : "";
	struct profile_frame added = { .line = frame->line, .lang = frame->lang };

	added.function = intern_add(&profile->strings, name, strlen(name));
	added.file = intern_add(&profile->strings, file, strlen(file));
	added.module = intern_add(&profile->strings, module, strlen(module));
	return profile_add_frame(profile, &added);
}

static int add_thread(struct profile *profile, const struct pyspyd_dump *dump, const struct pyspyd_thread *thread) {
	const struct profile_thread added = { .pid = dump->process.pid,
		.tid = thread->tid,
		.name = intern_add(&profile->strings, thread->name, strlen(thread->name)),
		.process_name = intern_add(&profile->strings, dump->process.name, strlen(dump->process.name)) };
	uint32_t node = 0, id = profile_add_thread(profile, &added);

	for (size_t i = thread->frames_n; i > 0 && node != UINT32_MAX; i--) {
		uint32_t frame = add_frame(profile, &thread->frames[i - 1]);

		node = frame == UINT32_MAX ? frame : profile_add_node(profile, node, frame);
	}
	if (id == UINT32_MAX || node == UINT32_MAX)
		return -ENOMEM;
	return profile_count(profile, id, node, 1, PERIOD_NS);
}

static int fill_profile(
	const struct pyspyd_snapshot *snapshot, const struct pyspyd_dump *dump, struct profile *profile) {
	struct document meta;
	int r;

	document_open(&meta, "pyspyd.snapshot/1", snapshot->meta, snapshot->meta_len, NULL);
	profile->start_real_ns = document_time(&meta, meta.root, "time");
	document_close(&meta);
	profile->kind = PROFILE_WALL;
	profile->period_ns = profile->duration_ns = PERIOD_NS;
	profile->accuracy =
		(struct pyspyd_accuracy){ .source = "vm", .expected = 1, .looks = 1, .samples = dump->threads_n };
	r = 0;
	for (size_t i = 0; !r && i < dump->threads_n; i++)
		r = add_thread(profile, dump, &dump->threads[i]);
	return r;
}

static int write_profile(const struct pyspyd_snapshot *snapshot, const struct pyspyd_dump *dump,
	const struct exporter *exporter, const struct pyspyd_flight_options *options, int fd) {
	_cleanup_(strbuf_deinit) struct strbuf title = { 0 };
	struct export_options export = { .threads = options->threads, .title = options->title };
	struct profile *profile = NULL;
	int r = profile_new(&profile);

	strbuf_addf(&title, "%s (%d), snapshot", dump->process.name, (int)dump->process.pid);
	if (!export.title)
		export.title = strbuf_str(&title);
	if (!r)
		r = fill_profile(snapshot, dump, profile);
	if (!r)
		r = exporter->write(profile, &export, fd);
	profile_free(profile);
	return r;
}

int pyspyd_snapshot_profile(struct pyspyd_snapshot *snapshot, bool native, const struct pyspyd_flight_options *options,
	int fd, struct err *err) {
	const struct exporter *exporter = export_find(options->format);
	struct pyspyd_dump *dump = NULL;
	int r;

	if (!exporter)
		return err_set(err, PYSPYD_E_USAGE, "there is no format '%s'", options->format ? options->format : "");
	r = pyspyd_snapshot_dump(snapshot, &(struct pyspyd_dump_options){ .native = native }, &dump, err);
	if (r)
		return r;
	r = write_profile(snapshot, dump, exporter, options, fd);
	pyspyd_dump_free(dump);
	return r ? err_set(err, r, "writing the profile: %s", strerror(-r)) : 0;
}

/* What is in it */

char *pyspyd_snapshot_json(const struct pyspyd_snapshot *snapshot) {
	return strdup(snapshot->meta);
}

struct part {
	char *name, *condition, *text;
	uint64_t bytes, stored;
};

static void read_part(struct document *document, const json_t *object, void *item) {
	struct part *part = item;

	part->name = document_string(document, object, "name");
	part->condition = document_text(document, object, "condition");
	part->text = document_string(document, object, "text");
	part->bytes = document_count(document, object, "bytes");
	part->stored = document_count(document, object, "stored");
}

static void add_parts(struct strbuf *sb, struct document *document) {
	size_t n = 0;
	struct part *parts = document_array(document, document->root, "parts", sizeof(*parts), read_part, &n);

	for (size_t i = 0; i < n; i++) {
		if (!document->r && parts[i].condition) {
			strbuf_adds(sb, "  ");
			text_add(sb, parts[i].name, TEXT_NAME_MAX);
			strbuf_adds(sb, ": could not be taken: ");
			text_add(sb, parts[i].text, TEXT_PATH_MAX);
			strbuf_adds(sb, "\n");
		} else if (!document->r) {
			strbuf_adds(sb, "  ");
			text_add(sb, parts[i].name, TEXT_NAME_MAX);
			strbuf_addf(
				sb, ": %" PRIu64 " bytes, %" PRIu64 " compressed\n", parts[i].bytes, parts[i].stored);
		}
		free(parts[i].name);
		free(parts[i].condition);
		free(parts[i].text);
	}
	free(parts);
}

static void add_member(struct strbuf *sb, struct document *document, const char *words, const char *key) {
	_free_ char *text = document_string(document, document->root, key);

	strbuf_adds(sb, words);
	text_add(sb, text, TEXT_NAME_MAX);
}

char *pyspyd_snapshot_text(const struct pyspyd_snapshot *snapshot) {
	struct pyspyd_process process = { 0 };
	struct document document;
	struct strbuf sb = { 0 };

	document_open(&document, "pyspyd.snapshot/1", snapshot->meta, snapshot->meta_len, NULL);
	document_process(&document, document.root, &process);
	strbuf_addf(&sb, "Process %d: ", (int)process.pid);
	text_command(&sb, &process);
	strbuf_adds(&sb, " (Python ");
	text_add(&sb, process.python, TEXT_NAME_MAX);
	add_member(&sb, &document, ")\nof ", "time");
	add_member(&sb, &document, ", on ", "host");
	add_member(&sb, &document, " (", "kernel");
	add_member(&sb, &document, ", ", "machine");
	add_member(&sb, &document, "), by pyspyd ", "pyspyd");
	strbuf_adds(&sb, document_bool(&document, document.root, "masked") ? ", masked\n" : ", not masked\n");
	add_parts(&sb, &document);
	document_close(&document);
	pyspyd_process_deinit(&process);
	return strbuf_take(&sb);
}
