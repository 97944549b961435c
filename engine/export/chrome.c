/* SPDX-License-Identifier: MIT */
/* Chrome's trace event format (JSON object form,
 * https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU), which Perfetto, chrome://tracing
 * and the Performance panel of DevTools read:
 *
 *     {"traceEvents":[{"ph":"M","name":"thread_name","pid":10,"tid":11,"args":{"name":"worker"}},
 *      {"ph":"X","cat":"python","name":"f","pid":10,"tid":11,"ts":0.000,"dur":40.000,
 *      "args":{"file":"app.py","line":3,"samples":4,"share":33.33}}],"otherData":{…}}
 *
 * Why not .cpuprofile: that is one thread only, and DevTools alone reads it. Each thread is a row; a box is a complete
 * event ("X") as long as the samples of its stack, nested in its caller. These are sums, not a course of time: within
 * a box the called ones lie side by side in the order of their names. Positions are whole nanoseconds, rounded alike
 * for callers and called ones, so that no box sticks out of its caller.
 *
 * Two profiles that are compared are two processes, "before" and "after", each one row; every box says both shares.
 *
 * A thread whose pid and tid another one has had too, or that has none, gets a number of its own. */
#include "engine/export/export.h"

#include "engine/base/util.h"
#include "engine/export/label.h"
#include "engine/export/tree.h"
#include "engine/export/writer.h"
#include <errno.h>
#include <inttypes.h>

#define MADE_UP_TID (1U << 30) /* beyond PID_MAX_LIMIT */
#define NO_TRACK UINT32_MAX

struct track {
	int32_t pid;
	uint32_t tid;
	uint32_t node; /* whose called ones are its boxes */
};

struct file {
	struct tree tree;
	struct writer out;
	bool diff;
	uint64_t (*weight)(const struct tree_node *node);
	uint64_t sample_ns;
	uint32_t *order;
	uint64_t *starts;   /* in samples */
	uint32_t *track_of; /* of each node, or NO_TRACK */
	VEC(struct track) tracks;
	struct map taken; /* pid and tid of the tracks */
	size_t events;
};

static uint64_t weight_after(const struct tree_node *node) {
	return node->total;
}

static uint64_t weight_before(const struct tree_node *node) {
	return node->total_before;
}

static void add_start(struct file *f, const char *title) {
	_cleanup_(strbuf_deinit) struct strbuf name = { 0 }, summary = { 0 }, accuracy = { 0 };
	struct strbuf *out = &f->out.text;

	strbuf_adds(&name, title && *title ? title : "pyspyd");
	label_summary(&summary, f->tree.profile);
	label_accuracy(&accuracy, f->tree.profile);
	strbuf_adds(out, "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"exporter\":\"pyspyd\",");
	writer_json_member(&f->out, "title", &name);
	strbuf_adds(out, ",");
	writer_json_member(&f->out, "summary", &summary);
	strbuf_adds(out, ",");
	writer_json_member(&f->out, "accuracy", &accuracy);
	strbuf_adds(out, "},\n\"traceEvents\":[");
}

/* Begins an event. */
static void add_event(struct file *f, const char *phase, const struct track *track) {
	strbuf_addf(&f->out.text, "%s{\"ph\":\"%s\",\"pid\":%" PRId32 ",\"tid\":%" PRIu32 ",",
		f->events++ ? ",\n" : "\n", phase, track->pid, track->tid);
}

/* Names a process or a thread. */
static void add_name(struct file *f, const char *what, const struct track *track, const struct strbuf *name) {
	add_event(f, "M", track);
	strbuf_addf(&f->out.text, "\"name\":\"%s\",\"args\":{", what);
	writer_json_member(&f->out, "name", name);
	strbuf_adds(&f->out.text, "}}");
}

static double share_of(uint64_t samples, uint64_t all) {
	return all ? 100.0 * (double)samples / (double)all : 0;
}

static void add_args(struct file *f, const struct tree_node *node) {
	const struct tree_node *root = f->tree.nodes.items;
	const struct profile *p = f->tree.profile;
	struct strbuf *out = &f->out.text;

	strbuf_adds(out, "\"args\":{");
	if (node->kind == TREE_FRAME && *label_place(p, node->ref)) {
		strbuf_adds(out, "\"file\":");
		writer_json(&f->out, label_place(p, node->ref));
		strbuf_adds(out, ",");
	}
	if (node->kind == TREE_FRAME && p->frames.items[node->ref].line > 0)
		strbuf_addf(out, "\"line\":%d,", p->frames.items[node->ref].line);
	if (!f->diff)
		strbuf_addf(out, "\"%s\":%" PRIu64 ",",
			p->kind == PROFILE_OFFCPU          ? "microseconds"
				: p->kind == PROFILE_ALLOC ? "bytes"
							   : "samples",
			node->total);
	strbuf_addf(out, "\"share\":%.2f", share_of(node->total, root->total));
	if (f->diff)
		strbuf_addf(out, ",\"share_before\":%.2f,\"change\":%.2f",
			share_of(node->total_before, root->total_before),
			share_of(node->total, root->total) - share_of(node->total_before, root->total_before));
	strbuf_adds(out, "}");
}

static void add_microseconds(struct file *f, const char *key, uint64_t ns) {
	strbuf_addf(&f->out.text, "\"%s\":%" PRIu64 ".%03" PRIu64 ",", key, ns / 1000, ns % 1000);
}

static void add_box(struct file *f, uint32_t id, const struct track *track) {
	static const char *const languages[] = {
		[PYSPYD_PYTHON] = "python", [PYSPYD_NATIVE] = "native", [PYSPYD_KERNEL] = "kernel"
	};
	_cleanup_(strbuf_deinit) struct strbuf label = { 0 };
	const struct tree_node *node = &f->tree.nodes.items[id];
	const struct profile *p = f->tree.profile;
	size_t lang = node->kind == TREE_FRAME ? (size_t)p->frames.items[node->ref].lang : SIZE_MAX;
	uint64_t start_ns = (f->starts[id] - f->starts[track->node]) * f->sample_ns;

	add_event(f, "X", track);
	strbuf_addf(&f->out.text, "\"cat\":\"%s\",", lang < ARRAY_SIZE(languages) ? languages[lang] : "group");
	if (node->kind == TREE_FRAME)
		strbuf_adds(&label, label_function(p, node->ref));
	else
		tree_label(&label, &f->tree, id);
	writer_json_member(&f->out, "name", &label);
	strbuf_adds(&f->out.text, ",");
	add_microseconds(f, "ts", start_ns);
	add_microseconds(f, "dur", f->weight(node) * f->sample_ns);
	add_args(f, node);
	strbuf_adds(&f->out.text, "}");
}

/* Writes the boxes of all tracks, callers first. */
static int add_boxes(struct file *f) {
	int r = tree_starts(&f->tree, f->order, f->weight, &f->starts);

	for (size_t i = 0; !r && i + 1 < f->tree.nodes.n; i++) {
		uint32_t id = f->order[i], track = f->track_of[id];

		if (track != NO_TRACK && id != f->tracks.items[track].node && f->weight(&f->tree.nodes.items[id]))
			add_box(f, id, &f->tracks.items[track]);
		r = writer_pass(&f->out);
	}
	free(f->starts);
	f->starts = NULL;
	return r;
}

/* A row of its own for each thread. */
static int add_track(struct file *f, uint32_t node) {
	const struct profile_thread *thread = &f->tree.profile->threads.items[f->tree.nodes.items[node].ref];
	struct track track = { .pid = thread->pid, .tid = (uint32_t)max_of(thread->tid, 0), .node = node };
	_cleanup_(strbuf_deinit) struct strbuf process = { 0 }, name = { 0 };
	uint64_t found;

	if (!track.tid || map_get(&f->taken, (uint64_t)(uint32_t)track.pid << 32 | track.tid, &found))
		track.tid = MADE_UP_TID + (uint32_t)f->tracks.n;
	if (map_put(&f->taken, (uint64_t)(uint32_t)track.pid << 32 | track.tid, node) || vec_push(&f->tracks, track))
		return -ENOMEM;
	label_process_name(&process, f->tree.profile, f->tree.nodes.items[node].ref);
	if (track.tid < MADE_UP_TID) /* which viewers show beside the name */
		label_thread_name(&name, f->tree.profile, f->tree.nodes.items[node].ref);
	else
		label_thread(&name, f->tree.profile, f->tree.nodes.items[node].ref);
	add_name(f, "process_name", &track, &process);
	add_name(f, "thread_name", &track, &name);
	return writer_pass(&f->out);
}

static int add_threads(struct file *f) {
	const struct tree_node *nodes = f->tree.nodes.items;
	int r = 0;

	f->track_of[0] = NO_TRACK;
	for (uint32_t i = 1; !r && i < f->tree.nodes.n; i++) {
		f->track_of[i] = f->track_of[nodes[i].parent];
		if (nodes[i].kind != TREE_THREAD)
			continue;
		f->track_of[i] = (uint32_t)f->tracks.n;
		r = add_track(f, i);
	}
	f->weight = weight_after;
	return r ? r : add_boxes(f);
}

/* One row for all that was counted on one side of a comparison. */
static int add_side(struct file *f, const char *what, int32_t pid, uint64_t (*weight)(const struct tree_node *node)) {
	struct track track = { .pid = pid, .tid = 1 };
	_cleanup_(strbuf_deinit) struct strbuf name = { 0 };

	f->tracks.n = 0;
	if (vec_push(&f->tracks, track))
		return -ENOMEM;
	strbuf_adds(&name, what);
	add_name(f, "process_name", &track, &name);
	add_name(f, "thread_name", &track, &name);
	f->weight = weight;
	return add_boxes(f);
}

static int add_all(struct file *f, const char *title) {
	int r = tree_sorted(&f->tree, &f->order);

	f->track_of = calloc(f->tree.nodes.n, sizeof(*f->track_of));
	if (r || !f->track_of)
		return -ENOMEM;
	f->sample_ns = label_sample_ns(f->tree.profile, f->tree.nodes.items[0].total);
	add_start(f, title);
	if (!f->diff) {
		r = add_threads(f);
	} else {
		r = add_side(f, "before", 1, weight_before);
		if (!r)
			r = add_side(f, "after", 2, weight_after);
	}
	strbuf_adds(&f->out.text, "\n]}\n");
	return r;
}

/* Return: `r`, or the first error of writing. Ends the file. */
static int write_file(struct file *f, int r, const struct export_options *options) {
	int finished;

	if (!r)
		r = add_all(f, options ? options->title : NULL);
	finished = writer_finish(&f->out);
	tree_deinit(&f->tree);
	free(f->order);
	free(f->track_of);
	vec_free(&f->tracks);
	map_deinit(&f->taken);
	return r ? r : finished;
}

int export_chrome(const struct profile *profile, const struct export_options *options, int fd) {
	struct file f = { .out = { .fd = fd } };
	int r = tree_init(&f.tree, profile, true);

	return write_file(&f, r, options);
}

int export_chrome_diff(const struct profile *profile, const struct profile_count *before, size_t before_n,
	const struct export_options *options, int fd) {
	struct file f = { .out = { .fd = fd }, .diff = true };
	int r = tree_init_diff(&f.tree, profile, before, before_n, options && options->threads);

	return write_file(&f, r, options);
}
