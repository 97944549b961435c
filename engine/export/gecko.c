/* SPDX-License-Identifier: MIT */
/* Firefox Profiler's processed profile format, version 56 (firefox-devtools/profiler, src/types/profile.ts and
 * docs-developer/CHANGELOG-formats.md); profiler.firefox.com opens it and brings it up to its own version.
 *
 *     {"meta":{"interval":10,"preprocessedProfileVersion":56,…},"libs":[],"shared":{"stringArray":["","f","app.py"]},
 *      "threads":[{"name":"MainThread (10)","pid":"10","tid":10,
 *        "samples":{"length":1,"weightType":"samples","stack":[0],"time":[0],"weight":[7]},
 *        "stackTable":{"length":1,"prefix":[null],"frame":[0]},
 *        "frameTable":{"length":1,"func":[0],"line":[3],…},"funcTable":{"length":1,"name":[1],"fileName":[2],…},…}]}
 *
 * Tables are columns. Strings are shared; stacks, frames and functions are each thread's own, so that those of all
 * threads are numbered anew for each. One sample stands for all of a stack: its weight says how many they were. Stacks
 * are sums, not a course of time: one begins where the one before it ends, in no order that means anything.
 *
 * A comparison is shown as the viewer's own are: one "thread" before, one after, and one of the change, whose weights
 * are negative where it became less. Processes and threads are elements of the stacks there, where they are told apart.
 *
 * It writes no addresses and no libraries, so that nothing is looked up for it. */
#include "engine/export/export.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "engine/export/label.h"
#include "engine/export/tree.h"
#include "engine/export/writer.h"
#include <errno.h>
#include <inttypes.h>

#define FORMAT_VERSION 56
#define GECKO_VERSION 31 /* of the format that this one is made of elsewhere */

/* Of frames: in the order of enum pyspyd_lang behind the first, which is what is none. */
static const struct {
	const char *name, *colour;
} categories[] = { { "Other", "grey" }, { "Python", "yellow" }, { "Native", "blue" }, { "Kernel", "red" } };

/* Numbers things anew for one thread: an id that is seen for the first time gets the next number. */
struct numbering {
	struct {
		uint32_t thread, number; /* thread: which one's number it is, from 1 */
	} * of;
	VEC(uint32_t) ids; /* in the order of their numbers */
};

/* What is one thread in the viewer. */
struct group {
	uint32_t number;       /* from 1 */
	uint32_t root;         /* node of the tree: a thread, or that of all */
	const char *name;      /* NULL: the thread's */
	const uint32_t *nodes; /* below the root, callers first */
	size_t n;
	int64_t (*weight)(const struct tree_node *node);
};

struct file {
	struct tree tree;
	struct writer out;
	bool diff;
	uint32_t labels_n;   /* nodes 1 … labels_n are processes and threads, the others frames */
	uint32_t *functions; /* of each frame: the first one that is of the same function */
	struct numbering stack_numbers, frame_numbers, function_numbers;
	VEC(uint32_t) sampled; /* nodes that have samples in this group */
	uint64_t sample_ns;
};

/* A column's value for one row; NONE is null. */
#define NONE INT64_MIN
typedef int64_t column_value(const struct file *f, const struct group *group, uint32_t id);

static int64_t weight_after(const struct tree_node *node) {
	return (int64_t)node->self;
}

static int64_t weight_before(const struct tree_node *node) {
	return (int64_t)node->self_before;
}

static int64_t weight_change(const struct tree_node *node) {
	return (int64_t)node->self - (int64_t)node->self_before;
}

static int numbering_init(struct numbering *numbering, size_t n) {
	numbering->of = calloc(n + 1, sizeof(*numbering->of));
	return numbering->of ? 0 : -ENOMEM;
}

static void numbering_deinit(struct numbering *numbering) {
	free(numbering->of);
	vec_free(&numbering->ids);
}

static int number(struct numbering *numbering, const struct group *group, uint32_t id) {
	if (numbering->of[id].thread == group->number)
		return 0;
	numbering->of[id].thread = group->number;
	numbering->of[id].number = (uint32_t)numbering->ids.n;
	return vec_push(&numbering->ids, id);
}

/* Frames of the tree: processes and threads under their node's number, then those of the profile. */
static uint32_t frame_of(const struct file *f, uint32_t node) {
	return node <= f->labels_n ? node : f->labels_n + 1 + f->tree.nodes.items[node].ref;
}

static uint32_t function_of(const struct file *f, uint32_t frame) {
	return frame <= f->labels_n ? frame : f->labels_n + 1 + f->functions[frame - f->labels_n - 1];
}

static const struct profile_frame *profile_frame_of(const struct file *f, uint32_t frame) {
	return frame <= f->labels_n ? NULL : &f->tree.profile->frames.items[frame - f->labels_n - 1];
}

/* Finds which frames are of one function: those of equal name and file. */
static int find_functions(struct file *f) {
	const struct profile *p = f->tree.profile;
	struct map first = { 0 };
	int r = 0;

	f->functions = calloc(p->frames.n + 1, sizeof(*f->functions));
	for (uint32_t i = 0; f->functions && !r && i < p->frames.n; i++) {
		const struct profile_frame *frame = &p->frames.items[i];
		uint32_t place = *intern_str(&p->strings, frame->file) ? frame->file : frame->module;
		uint64_t key = (uint64_t)frame->function << 32 | place, found = i;

		if (!map_get(&first, key, &found))
			r = map_put(&first, key, i);
		f->functions[i] = (uint32_t)found;
	}
	map_deinit(&first);
	return f->functions ? r : -ENOMEM;
}

/* Strings: those of the profile under their own numbers, then "<unknown>", then processes and threads. */
static uint32_t string_unknown(const struct file *f) {
	return (uint32_t)f->tree.profile->strings.strings.n;
}

static int add_strings(struct file *f) {
	const struct intern *strings = &f->tree.profile->strings;

	strbuf_adds(&f->out.text, "\"libs\":[],\n\"shared\":{\"stringArray\":[");
	for (uint32_t i = 0; i < strings->strings.n; i++) {
		strbuf_adds(&f->out.text, i ? ",\n" : "\n");
		writer_json(&f->out, intern_str(strings, i));
		if (writer_pass(&f->out))
			return f->out.error;
	}
	strbuf_adds(&f->out.text, strings->strings.n ? ",\n" : "\n");
	writer_json(&f->out, "<unknown>");
	for (uint32_t i = 1; i <= f->labels_n; i++) {
		_cleanup_(strbuf_deinit) struct strbuf label = { 0 };

		tree_label(&label, &f->tree, i);
		strbuf_adds(&f->out.text, ",\n");
		writer_json(&f->out, strbuf_str(&label));
		f->out.text.failed |= label.failed;
	}
	strbuf_adds(&f->out.text, "]},\n\"threads\":[");
	return writer_pass(&f->out);
}

static void add_column(struct file *f, const struct group *group, const char *key, const uint32_t *ids, size_t n,
	column_value *value) {
	struct strbuf *out = &f->out.text;

	strbuf_addf(out, "\"%s\":[", key);
	for (size_t i = 0; i < n && !writer_pass(&f->out); i++) {
		int64_t v = value(f, group, ids[i]);

		strbuf_adds(out, i ? "," : "");
		if (v == NONE)
			strbuf_adds(out, "null");
		else
			strbuf_addf(out, "%" PRId64, v);
	}
	strbuf_adds(out, "],\n");
}

/* A column that says the same in every row. */
static void add_constant(struct file *f, const char *key, size_t n, const char *value) {
	strbuf_addf(&f->out.text, "\"%s\":[", key);
	for (size_t i = 0; i < n && !writer_pass(&f->out); i++)
		strbuf_addf(&f->out.text, "%s%s", i ? "," : "", value);
	strbuf_adds(&f->out.text, "],\n");
}

static void begin_table(struct file *f, const char *name) {
	strbuf_addf(&f->out.text, "\"%s\":{\n", name);
}

static void end_table(struct file *f, size_t n) {
	strbuf_addf(&f->out.text, "\"length\":%zu},\n", n);
}

static int64_t sample_stack(const struct file *f, const struct group *group, uint32_t node) {
	return node == group->root ? NONE : f->stack_numbers.of[node].number;
}

static int64_t sample_weight(const struct file *f, const struct group *group, uint32_t node) {
	return group->weight(&f->tree.nodes.items[node]);
}

static int64_t stack_prefix(const struct file *f, const struct group *group, uint32_t node) {
	return sample_stack(f, group, f->tree.nodes.items[node].parent);
}

static int64_t stack_frame(const struct file *f, const struct group *group, uint32_t node) {
	(void)group;
	return f->frame_numbers.of[frame_of(f, node)].number;
}

static int64_t frame_function(const struct file *f, const struct group *group, uint32_t frame) {
	(void)group;
	return f->function_numbers.of[function_of(f, frame)].number;
}

static int64_t frame_line(const struct file *f, const struct group *group, uint32_t frame) {
	const struct profile_frame *of = profile_frame_of(f, frame);

	(void)group;
	return of && of->line > 0 ? of->line : NONE;
}

/* An index into `categories` of the head. */
static int64_t frame_category(const struct file *f, const struct group *group, uint32_t frame) {
	const struct profile_frame *of = profile_frame_of(f, frame);

	(void)group;
	return of && (size_t)of->lang <= PYSPYD_KERNEL ? (int64_t)of->lang + 1 : 0;
}

static int64_t function_name(const struct file *f, const struct group *group, uint32_t function) {
	const struct profile_frame *of = profile_frame_of(f, function);

	(void)group;
	if (!of)
		return string_unknown(f) + function;
	return *intern_str(&f->tree.profile->strings, of->function) ? of->function : string_unknown(f);
}

static int64_t function_file(const struct file *f, const struct group *group, uint32_t function) {
	const struct profile_frame *of = profile_frame_of(f, function);
	const struct intern *strings = &f->tree.profile->strings;

	(void)group;
	if (of && *intern_str(strings, of->file))
		return of->file;
	return of && *intern_str(strings, of->module) ? of->module : NONE;
}

/* When each sample was taken, if they had been taken one after the other. */
static void add_times(struct file *f, const struct group *group) {
	uint64_t ns = 0;

	strbuf_adds(&f->out.text, "\"time\":[");
	for (size_t i = 0; i < f->sampled.n && !writer_pass(&f->out); i++) {
		int64_t weight = sample_weight(f, group, f->sampled.items[i]);

		strbuf_addf(&f->out.text, "%s%" PRIu64 ".%06" PRIu64, i ? "," : "", (uint64_t)(ns / NS_PER_MS),
			(uint64_t)(ns % NS_PER_MS));
		ns += (uint64_t)(weight < 0 ? -weight : weight) * f->sample_ns;
	}
	strbuf_adds(&f->out.text, "],\n");
}

/* In milliseconds. */
static void add_durations(struct file *f, const struct group *group) {
	strbuf_adds(&f->out.text, "\"weightType\":\"tracing-ms\",\n\"weight\":[");
	for (size_t i = 0; i < f->sampled.n && !writer_pass(&f->out); i++)
		strbuf_addf(&f->out.text, "%s%.3f", i ? "," : "",
			(double)sample_weight(f, group, f->sampled.items[i]) * (double)f->sample_ns /
				(double)NS_PER_MS);
	strbuf_adds(&f->out.text, "],\n");
}

static void add_samples(struct file *f, const struct group *group) {
	size_t n = f->sampled.n;

	begin_table(f, "samples");
	if (f->tree.profile->kind == PROFILE_OFFCPU)
		add_durations(f, group);
	else
		strbuf_addf(&f->out.text, "\"weightType\":\"%s\",\n",
			f->tree.profile->kind == PROFILE_ALLOC ? "bytes" : "samples");
	add_column(f, group, "stack", f->sampled.items, n, sample_stack);
	add_times(f, group);
	if (f->tree.profile->kind != PROFILE_OFFCPU)
		add_column(f, group, "weight", f->sampled.items, n, sample_weight);
	end_table(f, n);
}

static void add_stacks(struct file *f, const struct group *group) {
	begin_table(f, "stackTable");
	add_column(f, group, "prefix", group->nodes, group->n, stack_prefix);
	add_column(f, group, "frame", group->nodes, group->n, stack_frame);
	end_table(f, group->n);
}

static void add_frames(struct file *f, const struct group *group) {
	const uint32_t *ids = f->frame_numbers.ids.items;
	size_t n = f->frame_numbers.ids.n;

	begin_table(f, "frameTable");
	add_column(f, group, "func", ids, n, frame_function);
	add_column(f, group, "line", ids, n, frame_line);
	add_column(f, group, "category", ids, n, frame_category);
	add_constant(f, "subcategory", n, "0");
	add_constant(f, "address", n, "-1");
	add_constant(f, "inlineDepth", n, "0");
	add_constant(f, "innerWindowID", n, "0");
	add_constant(f, "nativeSymbol", n, "null");
	add_constant(f, "column", n, "null");
	end_table(f, n);
}

static void add_functions(struct file *f, const struct group *group) {
	const uint32_t *ids = f->function_numbers.ids.items;
	size_t n = f->function_numbers.ids.n;

	begin_table(f, "funcTable");
	add_column(f, group, "name", ids, n, function_name);
	add_column(f, group, "fileName", ids, n, function_file);
	add_constant(f, "isJS", n, "false");
	add_constant(f, "relevantForJS", n, "false");
	add_constant(f, "resource", n, "-1");
	add_constant(f, "lineNumber", n, "null");
	add_constant(f, "columnNumber", n, "null");
	end_table(f, n);
}

static int number_all(struct file *f, const struct group *group) {
	const struct tree_node *nodes = f->tree.nodes.items;
	int r = 0;

	f->stack_numbers.ids.n = f->frame_numbers.ids.n = f->function_numbers.ids.n = f->sampled.n = 0;
	if (group->weight(&nodes[group->root]))
		r = vec_push(&f->sampled, group->root);
	for (size_t i = 0; !r && i < group->n; i++) {
		uint32_t node = group->nodes[i], frame = frame_of(f, node);

		r = number(&f->stack_numbers, group, node);
		if (!r)
			r = number(&f->frame_numbers, group, frame);
		if (!r)
			r = number(&f->function_numbers, group, function_of(f, frame));
		if (!r && group->weight(&nodes[node]))
			r = vec_push(&f->sampled, node);
	}
	return r;
}

/* Whose the group is, and what every thread has and none of ours. */
static void add_identity(struct file *f, const struct group *group) {
	const struct profile_thread *threads = f->tree.profile->threads.items;
	const struct tree_node *root = &f->tree.nodes.items[group->root];
	_cleanup_(strbuf_deinit) struct strbuf name = { 0 }, process = { 0 };
	struct strbuf *out = &f->out.text;
	pid_t pid = f->tree.profile->threads.n ? threads[root->ref].pid : 0;
	pid_t tid = group->name ? (pid_t)group->number : threads[root->ref].tid;

	if (group->name)
		strbuf_adds(&name, group->name);
	else
		label_thread(&name, f->tree.profile, root->ref);
	if (f->tree.profile->threads.n)
		label_process(&process, f->tree.profile, root->ref);
	strbuf_adds(out, group->number > 1 ? ",\n{" : "\n{");
	writer_json_member(&f->out, "name", &name);
	strbuf_adds(out, ",");
	writer_json_member(&f->out, "processName", &process);
	strbuf_addf(out, ",\"pid\":\"%d\",\"tid\":%d,\"isMainThread\":%s,\n", (int)pid, (int)tid,
		group->name          ? group->number == 1 ? "true" : "false"
			: pid == tid ? "true"
				     : "false");
	strbuf_adds(out,
		"\"processType\":\"default\",\"processStartupTime\":0,\"processShutdownTime\":null,\"registerTime\":0,"
		"\"unregisterTime\":null,\"pausedRanges\":[],\n"
		"\"markers\":{\"data\":[],\"name\":[],\"startTime\":[],\"endTime\":[],\"phase\":[],\"category\":[],"
		"\"length\":0},\n"
		"\"resourceTable\":{\"lib\":[],\"name\":[],\"host\":[],\"type\":[],\"length\":0},\n");
}

static int add_group(struct file *f, const struct group *group) {
	int r = number_all(f, group);

	if (r)
		return r;
	add_identity(f, group);
	add_samples(f, group);
	add_stacks(f, group);
	add_frames(f, group);
	add_functions(f, group);
	strbuf_adds(&f->out.text,
		"\"nativeSymbols\":{\"libIndex\":[],\"address\":[],\"name\":[],\"functionSize\":[],\"length\":0}}");
	return writer_pass(&f->out);
}

static int add_sides(struct file *f, const uint32_t *nodes) {
	static const struct {
		const char *name;
		int64_t (*weight)(const struct tree_node *node);
	} sides[] = { { "before", weight_before }, { "after", weight_after }, { "change", weight_change } };
	struct group group = { .nodes = nodes + 1, .n = f->tree.nodes.n - 1 };
	int r = 0;

	for (size_t i = 0; !r && i < ARRAY_SIZE(sides); i++) {
		group.number = (uint32_t)i + 1;
		group.name = sides[i].name;
		group.weight = sides[i].weight;
		r = add_group(f, &group);
	}
	return r;
}

static int compare_owners(const void *left, const void *right, void *userdata) {
	const uint32_t *owners = userdata, a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	if (owners[a] != owners[b])
		return owners[a] < owners[b] ? -1 : 1;
	return (a > b) - (a < b);
}

/* The nodes of each thread stand together, the thread's own first. */
static int add_threads(struct file *f, uint32_t *nodes) {
	size_t n = f->tree.nodes.n, next;
	_free_ uint32_t *owners = calloc(n, sizeof(*owners));
	struct group group = { .weight = weight_after };
	int r = 0;

	if (!owners)
		return -ENOMEM;
	for (uint32_t i = 1; i < n; i++)
		owners[i] = f->tree.nodes.items[i].kind == TREE_THREAD ? i : owners[f->tree.nodes.items[i].parent];
	qsort_r(nodes, n, sizeof(*nodes), compare_owners, owners);
	for (size_t i = 0; !r && i < n; i = next) {
		for (next = i + 1; next < n && owners[nodes[next]] == owners[nodes[i]];)
			next++;
		if (!owners[nodes[i]])
			continue;
		group.number++;
		group.root = nodes[i];
		group.nodes = nodes + i + 1;
		group.n = next - i - 1;
		r = add_group(f, &group);
	}
	return r;
}

static void add_head(struct file *f, const char *title) {
	_cleanup_(strbuf_deinit) struct strbuf name = { 0 }, summary = { 0 }, accuracy = { 0 };
	const struct profile *p = f->tree.profile;
	struct strbuf *out = &f->out.text;

	strbuf_adds(&name, title && *title ? title : "pyspyd");
	label_summary(&summary, p);
	label_accuracy(&accuracy, p);
	strbuf_addf(out,
		"{\"meta\":{\"version\":%d,\"preprocessedProfileVersion\":%d,\"processType\":0,\"stackwalk\":1,"
		"\"debug\":false,\"symbolicated\":true,\"symbolicationNotSupported\":true,\"usesOnlyOneStackType\":"
		"true,"
		"\"sourceCodeIsNotOnSearchfox\":true,\"markerSchema\":[],\n",
		GECKO_VERSION, FORMAT_VERSION);
	strbuf_addf(out, "\"interval\":%.6f,\"startTime\":%" PRIu64 ",\"importedFrom\":\"pyspyd\",",
		(double)f->sample_ns / (double)NS_PER_MS, (uint64_t)(p->start_real_ns / NS_PER_MS));
	writer_json_member(&f->out, "product", &name);
	strbuf_adds(out, ",\n\"categories\":[");
	for (size_t i = 0; i < ARRAY_SIZE(categories); i++)
		strbuf_addf(out, "%s{\"name\":\"%s\",\"color\":\"%s\",\"subcategories\":[\"Other\"]}", i ? "," : "",
			categories[i].name, categories[i].colour);
	strbuf_adds(
		out, "],\n\"extra\":[{\"label\":\"pyspyd\",\"entries\":[{\"label\":\"Samples\",\"format\":\"string\",");
	writer_json_member(&f->out, "value", &summary);
	strbuf_adds(out, "},{\"label\":\"Accuracy\",\"format\":\"string\",");
	writer_json_member(&f->out, "value", &accuracy);
	strbuf_adds(out, "}]}]");
	if (f->diff)
		strbuf_adds(out,
			",\n\"keepProfileThreadOrder\":true,\"initialVisibleThreads\":[0,1,2],"
			"\"initialSelectedThreads\":[2]");
	strbuf_adds(out, "},\n");
}

static int init(struct file *f) {
	size_t frames = f->tree.profile->frames.n;

	while (f->labels_n + 1 < f->tree.nodes.n && f->tree.nodes.items[f->labels_n + 1].kind != TREE_FRAME)
		f->labels_n++;
	f->sample_ns = label_sample_ns(f->tree.profile, f->tree.nodes.items[0].total);
	if (numbering_init(&f->stack_numbers, f->tree.nodes.n) ||
		numbering_init(&f->frame_numbers, f->labels_n + 1 + frames) ||
		numbering_init(&f->function_numbers, f->labels_n + 1 + frames))
		return -ENOMEM;
	return find_functions(f);
}

static int add_all(struct file *f, const char *title) {
	_free_ uint32_t *nodes = calloc(f->tree.nodes.n, sizeof(*nodes));
	int r = nodes ? init(f) : -ENOMEM;

	if (r)
		return r;
	for (uint32_t i = 0; i < f->tree.nodes.n; i++)
		nodes[i] = i;
	add_head(f, title);
	r = add_strings(f);
	if (!r)
		r = f->diff ? add_sides(f, nodes) : add_threads(f, nodes);
	strbuf_adds(&f->out.text, "]}\n");
	return r;
}

/* Return: `r`, or the first error of writing. Ends the file. */
static int write_file(struct file *f, int r, const struct export_options *options) {
	int finished;

	if (!r)
		r = add_all(f, options ? options->title : NULL);
	finished = writer_finish(&f->out);
	tree_deinit(&f->tree);
	free(f->functions);
	numbering_deinit(&f->stack_numbers);
	numbering_deinit(&f->frame_numbers);
	numbering_deinit(&f->function_numbers);
	vec_free(&f->sampled);
	return r ? r : finished;
}

int export_gecko(const struct profile *profile, const struct export_options *options, int fd) {
	struct file f = { .out = { .fd = fd } };
	int r = tree_init(&f.tree, profile, true);

	return write_file(&f, r, options);
}

int export_gecko_diff(const struct profile *profile, const struct profile_count *before, size_t before_n,
	const struct export_options *options, int fd) {
	struct file f = { .out = { .fd = fd }, .diff = true };
	int r = tree_init_diff(&f.tree, profile, before, before_n, options && options->threads);

	return write_file(&f, r, options);
}
