/* SPDX-License-Identifier: MIT */
/* speedscope's file format (https://www.speedscope.app/file-format-schema.json): one "sampled" profile per thread over
 * one list of frames; a sample is a stack, outermost first, and its weight the nanoseconds that it stands for.
 *
 *     {"$schema":…,"exporter":"pyspyd","name":…,"activeProfileIndex":0,"shared":{"frames":[{"name":…,"file":…,"line":1}]},
 *      "profiles":[{"type":"sampled","name":"MainThread (4711)","unit":"nanoseconds","startValue":0,"endValue":30,
 *      "samples":[[0,1]],"weights":[30]}]}
 *
 * The file is written as it comes, since a tree of JSON values would hold a hundred bytes for each frame of each stack;
 * jansson escapes the strings. Stacks are sums, not a course of time: their order says nothing. A profile without
 * samples has one empty thread, because the viewer opens no file without any. */
#include "engine/export/export.h"

#include "engine/base/limits.h"
#include "engine/base/util.h"
#include "engine/export/label.h"
#include "engine/export/writer.h"
#include <errno.h>
#include <inttypes.h>

struct file {
	const struct profile *profile;
	struct writer out;
	const struct profile_count **counts; /* by thread */
	VEC(uint32_t) stack;
};

static void add_head(struct file *f, const char *title) {
	_cleanup_(strbuf_deinit) struct strbuf name = { 0 };

	strbuf_addf(&name, "%s: ", title && *title ? title : "pyspyd");
	label_summary(&name, f->profile);
	strbuf_adds(&name, "; ");
	label_accuracy(&name, f->profile);
	strbuf_adds(&f->out.text, "{\"$schema\":\"https://www.speedscope.app/file-format-schema.json\",");
	strbuf_adds(&f->out.text, "\"exporter\":\"pyspyd\",");
	writer_json_member(&f->out, "name", &name);
	strbuf_adds(&f->out.text, ",\"activeProfileIndex\":0,");
}

static void add_frame(struct file *f, uint32_t frame) {
	const char *place = label_place(f->profile, frame);
	int line = f->profile->frames.items[frame].line;

	strbuf_adds(&f->out.text, "{\"name\":");
	writer_json(&f->out, label_function(f->profile, frame));
	if (*place) {
		strbuf_adds(&f->out.text, ",\"file\":");
		writer_json(&f->out, place);
	}
	if (line > 0)
		strbuf_addf(&f->out.text, ",\"line\":%d", line);
	strbuf_adds(&f->out.text, "}");
}

static int add_frames(struct file *f) {
	strbuf_adds(&f->out.text, "\"shared\":{\"frames\":[");
	for (uint32_t i = 0; i < f->profile->frames.n; i++) {
		strbuf_adds(&f->out.text, i ? ",\n" : "\n");
		add_frame(f, i);
		if (writer_pass(&f->out))
			break;
	}
	strbuf_adds(&f->out.text, "]},\n\"profiles\":[");
	return writer_pass(&f->out);
}

static int add_sample(struct file *f, uint32_t node) {
	size_t n = profile_stack(f->profile, node, f->stack.items, f->stack.cap);

	if (n > f->stack.cap) {
		if (vec_reserve(&f->stack, n))
			return -ENOMEM;
		n = profile_stack(f->profile, node, f->stack.items, n);
	}
	strbuf_adds(&f->out.text, "[");
	for (size_t i = 0; i < n; i++)
		strbuf_addf(&f->out.text, i ? ",%" PRIu32 : "%" PRIu32, f->stack.items[i]);
	strbuf_adds(&f->out.text, "]");
	return writer_pass(&f->out);
}

/* One thread: n counts that are all its own. */
static int add_thread(struct file *f, const struct profile_count *const *counts, size_t n, bool processes) {
	_cleanup_(strbuf_deinit) struct strbuf name = { 0 };
	uint64_t total_ns = 0;

	for (size_t i = 0; i < n; i++)
		total_ns += counts[i]->ns;
	if (processes) {
		label_process(&name, f->profile, counts[0]->thread);
		strbuf_adds(&name, ", ");
	}
	label_thread(&name, f->profile, counts[0]->thread);
	strbuf_adds(&f->out.text, "\n{\"type\":\"sampled\",");
	writer_json_member(&f->out, "name", &name);
	strbuf_addf(&f->out.text, ",\"unit\":\"%s\",\"startValue\":0,\"endValue\":%" PRIu64 ",\n\"samples\":[",
		f->profile->kind == PROFILE_ALLOC ? "bytes" : "nanoseconds", total_ns);
	for (size_t i = 0; i < n; i++) {
		strbuf_adds(&f->out.text, i ? ",\n" : "\n");
		if (add_sample(f, counts[i]->node))
			return f->out.error ? f->out.error : -ENOMEM;
	}
	strbuf_adds(&f->out.text, "],\n\"weights\":[");
	for (size_t i = 0; i < n && !writer_pass(&f->out); i++)
		strbuf_addf(&f->out.text, i ? ",%" PRIu64 : "%" PRIu64, counts[i]->ns);
	strbuf_adds(&f->out.text, "]}");
	return writer_pass(&f->out);
}

static int by_thread(const void *left, const void *right) {
	const struct profile_count *a = *(const struct profile_count *const *)left;
	const struct profile_count *b = *(const struct profile_count *const *)right;

	if (a->thread != b->thread)
		return a->thread < b->thread ? -1 : 1;
	return (a > b) - (a < b);
}

static int add_threads(struct file *f) {
	size_t n = f->profile->counts.n, next;
	bool processes = label_many_processes(f->profile);
	int r = 0;

	f->counts = calloc(n + 1, sizeof(struct profile_count *));
	if (!f->counts)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		f->counts[i] = &f->profile->counts.items[i];
	qsort(f->counts, n, sizeof(struct profile_count *), by_thread);
	for (size_t i = 0; !r && i < n; i = next) {
		for (next = i + 1; next < n && f->counts[next]->thread == f->counts[i]->thread;)
			next++;
		strbuf_adds(&f->out.text, i ? "," : "");
		r = add_thread(f, f->counts + i, next - i, processes);
	}
	if (!n)
		strbuf_adds(&f->out.text,
			"{\"type\":\"sampled\",\"name\":\"no samples\",\"unit\":\"nanoseconds\","
			"\"startValue\":0,\"endValue\":0,\"samples\":[],\"weights\":[]}");
	strbuf_adds(&f->out.text, "]}\n");
	return r;
}

int export_speedscope(const struct profile *profile, const struct export_options *options, int fd) {
	struct file f = { .profile = profile, .out = { .fd = fd } };
	int r = vec_reserve(&f.stack, LIMIT_FRAMES), finished;

	if (!r) {
		add_head(&f, options ? options->title : NULL);
		r = add_frames(&f);
	}
	if (!r)
		r = add_threads(&f);
	finished = writer_finish(&f.out);
	vec_free(&f.stack);
	free(f.counts);
	return r ? r : finished;
}
