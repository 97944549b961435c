/* SPDX-License-Identifier: MIT */
/* pprof: gzip around one protobuf message, perftools.profiles.Profile (engine/export/pprof.proto).
 *
 * Protobuf messages that follow each other in a file are one message with the repeated fields appended, so that the
 * profile is written as a row of small ones: a string, a function, a location, a sample, each when it is first needed.
 * Nothing is held but which of them are out already. A function is a name and a file, a location a line of one; what a
 * sample belongs to (thread, tid, pid) are labels, left out where they are not known. One mapping says that names and
 * lines are there, lest readers look for symbols, and carries the first process's name.
 *
 * It writes no addresses, and of a native frame no build id. */
#include "engine/export/export.h"

#include "engine/base/limits.h"
#include "engine/base/util.h"
#include "engine/export/label.h"
#include "engine/export/pprof.pb-c.h"
#include <errno.h>
#include <string.h>
#include <zlib.h>

#define GZIP_WINDOW (15 + 16) /* deflateInit2: 32 KiB, with gzip's header */
#define MAPPING_ID 1

struct file {
	const struct profile *profile;
	int fd;
	int error; /* the first one; nothing is written after it */
	z_stream gzip;
	int64_t strings_n;
	int64_t key_thread, key_tid, key_pid;
	int64_t *strings;         /* of each interned string: its place in the table, 0 where it is not out yet */
	uint64_t *locations;      /* of each frame: its location, 0 where it is not out yet */
	struct map functions;     /* name and file → function */
	struct map function_line; /* function and line → location */
	uint64_t locations_n;
	VEC(uint32_t) stack;
	VEC(uint64_t) location_ids;
};

static void compress_bytes(struct file *f, const void *data, size_t n, int flush) {
	uint8_t out[16384];

	f->gzip.next_in = (void *)(uintptr_t)data;
	f->gzip.avail_in = (uInt)n;
	do {
		f->gzip.next_out = out;
		f->gzip.avail_out = sizeof(out);
		if (!f->error && deflate(&f->gzip, flush) == Z_STREAM_ERROR)
			f->error = -EIO;
		if (!f->error)
			f->error = export_write_all(f->fd, out, sizeof(out) - f->gzip.avail_out);
	} while (!f->error && !f->gzip.avail_out);
}

/* Writes a part of the profile. */
static void put(struct file *f, const Pyspyd__Pprof__Profile *part) {
	size_t n = pyspyd__pprof__profile__get_packed_size(part);
	_free_ uint8_t *bytes = f->error ? NULL : malloc(n + 1);

	if (f->error)
		return;
	if (!bytes || n > UINT32_MAX) {
		f->error = -ENOMEM;
		return;
	}
	pyspyd__pprof__profile__pack(part, bytes);
	compress_bytes(f, bytes, n, Z_NO_FLUSH);
}

/* Writes a string, whatever is in it, as printable UTF-8. Return: its place in the table. */
static int64_t put_string(struct file *f, const char *s) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	Pyspyd__Pprof__Profile part = PYSPYD__PPROF__PROFILE__INIT;
	char *strings[1];

	strbuf_add_printable(&text, s, strlen(s));
	if (text.failed && !f->error)
		f->error = -ENOMEM;
	strings[0] = (char *)(uintptr_t)strbuf_str(&text);
	part.string_table = strings;
	part.n_string_table = 1;
	put(f, &part);
	return f->strings_n++;
}

/* Return: the place of an interned string, 0 of the empty one. */
static int64_t string_of(struct file *f, uint32_t id) {
	if (!*intern_str(&f->profile->strings, id))
		return 0;
	if (!f->strings[id])
		f->strings[id] = put_string(f, intern_str(&f->profile->strings, id));
	return f->strings[id];
}

static void remember(struct file *f, struct map *map, uint64_t key, uint64_t value) {
	int r = map_put(map, key, value);

	if (r && !f->error)
		f->error = r;
}

static uint64_t function_of(struct file *f, const struct profile_frame *frame) {
	uint32_t file = *intern_str(&f->profile->strings, frame->file) ? frame->file : frame->module;
	uint64_t key = (uint64_t)frame->function << 32 | file, id = f->functions.n + 1;
	Pyspyd__Pprof__Profile part = PYSPYD__PPROF__PROFILE__INIT;
	Pyspyd__Pprof__Function function = PYSPYD__PPROF__FUNCTION__INIT;
	Pyspyd__Pprof__Function *functions[1] = { &function };

	if (map_get(&f->functions, key, &id))
		return id;
	function.id = id;
	function.name = function.system_name = string_of(f, frame->function);
	function.filename = string_of(f, file);
	part.function = functions;
	part.n_function = 1;
	put(f, &part);
	remember(f, &f->functions, key, id);
	return id;
}

static uint64_t put_location(struct file *f, uint64_t function, int line) {
	Pyspyd__Pprof__Profile part = PYSPYD__PPROF__PROFILE__INIT;
	Pyspyd__Pprof__Location location = PYSPYD__PPROF__LOCATION__INIT;
	Pyspyd__Pprof__Line line_of_function = PYSPYD__PPROF__LINE__INIT;
	Pyspyd__Pprof__Location *locations[1] = { &location };
	Pyspyd__Pprof__Line *lines[1] = { &line_of_function };

	line_of_function.function_id = function;
	line_of_function.line = line;
	location.id = ++f->locations_n;
	location.mapping_id = MAPPING_ID;
	location.line = lines;
	location.n_line = 1;
	part.location = locations;
	part.n_location = 1;
	put(f, &part);
	return location.id;
}

static uint64_t location_of(struct file *f, uint32_t frame_id) {
	const struct profile_frame *frame = &f->profile->frames.items[frame_id];
	int line = max_of(frame->line, 0);
	uint64_t function, key, id;

	if (f->locations[frame_id])
		return f->locations[frame_id];
	function = function_of(f, frame);
	key = function << 32 | (uint32_t)line;
	if (!map_get(&f->function_line, key, &id)) {
		id = put_location(f, function, line);
		remember(f, &f->function_line, key, id);
	}
	f->locations[frame_id] = id;
	return id;
}

static void add_label(Pyspyd__Pprof__Sample *sample, int64_t key, int64_t str, int64_t num) {
	Pyspyd__Pprof__Label *label = sample->label[sample->n_label];

	if (!str && !num)
		return;
	pyspyd__pprof__label__init(label);
	label->key = key;
	label->str = str;
	label->num = num;
	sample->n_label++;
}

/* Finds the locations of a stack, most recent call first. Return: how many. */
static size_t find_locations(struct file *f, uint32_t node) {
	size_t n = profile_stack(f->profile, node, NULL, 0);

	if (vec_reserve(&f->stack, n) || vec_reserve(&f->location_ids, n)) {
		f->error = -ENOMEM;
		return 0;
	}
	profile_stack(f->profile, node, f->stack.items, n);
	for (size_t i = 0; i < n; i++)
		f->location_ids.items[n - 1 - i] = location_of(f, f->stack.items[i]);
	return n;
}

static void put_sample(struct file *f, const struct profile_count *count) {
	const struct profile_thread *thread = &f->profile->threads.items[count->thread];
	Pyspyd__Pprof__Profile part = PYSPYD__PPROF__PROFILE__INIT;
	Pyspyd__Pprof__Sample sample = PYSPYD__PPROF__SAMPLE__INIT;
	Pyspyd__Pprof__Sample *samples[1] = { &sample };
	Pyspyd__Pprof__Label labels[3], *label[3] = { &labels[0], &labels[1], &labels[2] };
	int64_t values[2] = { (int64_t)count->samples, (int64_t)count->ns };

	sample.n_location_id = find_locations(f, count->node);
	sample.location_id = f->location_ids.items;
	sample.n_value = ARRAY_SIZE(values);
	sample.value = values;
	sample.label = label;
	add_label(&sample, f->key_thread, string_of(f, thread->name), 0);
	add_label(&sample, f->key_tid, 0, thread->tid);
	add_label(&sample, f->key_pid, 0, thread->pid);
	part.sample = samples;
	part.n_sample = 1;
	put(f, &part);
}

static void put_types(struct file *f) {
	Pyspyd__Pprof__Profile part = PYSPYD__PPROF__PROFILE__INIT;
	Pyspyd__Pprof__ValueType samples = PYSPYD__PPROF__VALUE_TYPE__INIT, time = PYSPYD__PPROF__VALUE_TYPE__INIT;
	Pyspyd__Pprof__ValueType *types[2] = { &samples, &time };

	samples.type = put_string(f, f->profile->kind == PROFILE_ALLOC ? "alloc_objects" : "samples");
	samples.unit = put_string(f, "count");
	time.type = put_string(f, label_kind(f->profile));
	time.unit = put_string(f, f->profile->kind == PROFILE_ALLOC ? "bytes" : "nanoseconds");
	part.sample_type = types;
	part.n_sample_type = ARRAY_SIZE(types);
	part.period_type = &time;
	part.period = (int64_t)f->profile->period_ns;
	part.time_nanos = (int64_t)f->profile->start_real_ns;
	part.duration_nanos = (int64_t)f->profile->duration_ns;
	put(f, &part);
}

static void put_comment(struct file *f, const struct strbuf *text) {
	Pyspyd__Pprof__Profile part = PYSPYD__PPROF__PROFILE__INIT;
	int64_t comment = put_string(f, strbuf_str(text));

	if (text->failed && !f->error)
		f->error = -ENOMEM;
	part.comment = &comment;
	part.n_comment = 1;
	put(f, &part);
}

static void put_mapping(struct file *f) {
	Pyspyd__Pprof__Profile part = PYSPYD__PPROF__PROFILE__INIT;
	Pyspyd__Pprof__Mapping mapping = PYSPYD__PPROF__MAPPING__INIT;
	Pyspyd__Pprof__Mapping *mappings[1] = { &mapping };

	mapping.id = MAPPING_ID;
	if (f->profile->threads.n)
		mapping.filename = string_of(f, f->profile->threads.items[0].process_name);
	mapping.has_functions = mapping.has_filenames = mapping.has_line_numbers = true;
	part.mapping = mappings;
	part.n_mapping = 1;
	put(f, &part);
}

static void put_head(struct file *f, const char *title) {
	_cleanup_(strbuf_deinit) struct strbuf summary = { 0 }, accuracy = { 0 };

	put_string(f, "");
	put_types(f);
	put_mapping(f);
	strbuf_addf(&summary, "%s: ", title && *title ? title : "pyspyd");
	label_summary(&summary, f->profile);
	put_comment(f, &summary);
	label_accuracy(&accuracy, f->profile);
	put_comment(f, &accuracy);
	f->key_thread = put_string(f, "thread");
	f->key_tid = put_string(f, "tid");
	f->key_pid = put_string(f, "pid");
}

static void put_all(struct file *f, const char *title) {
	const struct profile *p = f->profile;

	f->strings = calloc(p->strings.strings.n + 1, sizeof(*f->strings));
	f->locations = calloc(p->frames.n + 1, sizeof(*f->locations));
	if (!f->strings || !f->locations || vec_reserve(&f->stack, LIMIT_FRAMES)) {
		f->error = -ENOMEM;
		return;
	}
	put_head(f, title);
	for (size_t i = 0; i < p->counts.n && !f->error; i++)
		put_sample(f, &p->counts.items[i]);
	compress_bytes(f, NULL, 0, Z_FINISH);
}

int export_pprof(const struct profile *profile, const struct export_options *options, int fd) {
	struct file f = { .profile = profile, .fd = fd };

	if (deflateInit2(&f.gzip, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	put_all(&f, options ? options->title : NULL);
	deflateEnd(&f.gzip);
	free(f.strings);
	free(f.locations);
	map_deinit(&f.functions);
	map_deinit(&f.function_line);
	vec_free(&f.stack);
	vec_free(&f.location_ids);
	return f.error;
}
