/* SPDX-License-Identifier: MIT */
/* One page that needs nothing else and fetches nothing: the profile as JSON, and a script that draws it (html_page.c).
 * The script makes the tree of stacks itself, since it has to make another one for each choice of threads:
 *
 *     <script id="data"
 * type="application/json">{"group":false,"diff":false,"sleeps":false,"bytes":false,"sample_ns":10000000,
 *     "strings":["","f","app.py"],"frames":{"function":[1],"file":[2],"module":[0],"line":[3],"lang":[0]},
 *     "nodes":{"parent":[0,0],"frame":[0,0]},"threads":{"name":["MainThread (10)"],"process":["process python3 (10)"]},
 *     "counts":{"thread":[0],"node":[1],"samples":[7]}}</script>
 *
 * Tables are columns; node 0 is the root. A comparison has "before" too, as it was counted: the script scales both.
 *
 * Names come out of a target: in the page's own text they are escaped, and in the data no '<' stands for itself, so
 * that none ends the element or begins a comment. The page's policy forbids whatever would come from elsewhere. */
#include "engine/export/export.h"

#include "engine/base/util.h"
#include "engine/export/html_page.h"
#include "engine/export/label.h"
#include "engine/export/writer.h"
#include <inttypes.h>
#include <string.h>

struct file {
	const struct profile *profile;
	struct writer out;
	const struct profile_count *counts; /* of the side that is written */
	size_t column;                      /* entries of the column that is written */
};

static void add_text(struct file *f, const char *before, const struct strbuf *text, const char *after) {
	strbuf_adds(&f->out.text, before);
	writer_markup(&f->out, strbuf_str(text), text->len);
	strbuf_adds(&f->out.text, after);
	f->out.text.failed |= text->failed;
}

/* Names the next column. */
static void begin_column(struct file *f, const char *key) {
	strbuf_addf(&f->out.text, "\"%s\":[", key);
	f->column = 0;
}

static void end_column(struct file *f, const char *after) {
	strbuf_addf(&f->out.text, "]%s\n", after);
	writer_pass(&f->out);
}

static void add_string(struct file *f, const char *s) {
	struct writer json = { .text = { 0 } };

	writer_json(&json, s);
	strbuf_adds(&f->out.text, f->column++ ? ",\n" : "\n");
	for (const char *at = strbuf_str(&json.text); *at; at++) {
		if (*at == '<')
			strbuf_adds(&f->out.text, "\\u003c");
		else
			strbuf_add(&f->out.text, at, 1);
	}
	f->out.text.failed |= json.text.failed;
	strbuf_deinit(&json.text);
	writer_pass(&f->out);
}

static void add_strings(struct file *f) {
	begin_column(f, "strings");
	for (uint32_t i = 0; i < f->profile->strings.strings.n; i++)
		add_string(f, intern_str(&f->profile->strings, i));
	end_column(f, ",");
}

typedef int64_t table_value(const struct file *f, size_t column, size_t row);

/* A table of numbers; `columns` are their names, NULL-terminated. */
static void add_table(struct file *f, const char *name, const char *const *columns, size_t rows, table_value *value) {
	strbuf_addf(&f->out.text, "\"%s\":{", name);
	for (size_t i = 0; columns[i]; i++) {
		begin_column(f, columns[i]);
		for (size_t row = 0; row < rows && !writer_pass(&f->out); row++)
			strbuf_addf(&f->out.text, row ? ",%" PRId64 : "%" PRId64, value(f, i, row));
		end_column(f, columns[i + 1] ? "," : "}");
	}
}

static const char *const frame_columns[] = { "function", "file", "module", "line", "lang", NULL };
static const char *const node_columns[] = { "parent", "frame", NULL };
static const char *const count_columns[] = { "thread", "node", "samples", NULL };

static int64_t frame_value(const struct file *f, size_t column, size_t row) {
	const struct profile_frame *frame = &f->profile->frames.items[row];

	switch (column) {
	case 0: return frame->function;
	case 1: return frame->file;
	case 2: return frame->module;
	case 3: return frame->line;
	default: return frame->lang;
	}
}

/* The root has no frame. */
static int64_t node_value(const struct file *f, size_t column, size_t row) {
	const struct profile_node *node = &f->profile->nodes.items[row];

	return !row ? 0 : column ? node->frame : node->parent;
}

static int64_t count_value(const struct file *f, size_t column, size_t row) {
	const struct profile_count *count = &f->counts[row];

	return column == 0 ? count->thread : column == 1 ? count->node : (int64_t)profile_weight(f->profile, count);
}

static void add_counts(struct file *f, const char *name, const struct profile_count *counts, size_t n) {
	strbuf_adds(&f->out.text, ",");
	f->counts = counts;
	add_table(f, name, count_columns, n, count_value);
}

static void add_labels(struct file *f, const char *key,
	void (*label)(struct strbuf *out, const struct profile *profile, uint32_t thread)) {
	begin_column(f, key);
	for (uint32_t i = 0; i < f->profile->threads.n; i++) {
		_cleanup_(strbuf_deinit) struct strbuf name = { 0 };

		label(&name, f->profile, i);
		add_string(f, strbuf_str(&name));
		f->out.text.failed |= name.failed;
	}
}

static void add_tables(struct file *f) {
	add_strings(f);
	add_table(f, "frames", frame_columns, f->profile->frames.n, frame_value);
	strbuf_adds(&f->out.text, ",");
	add_table(f, "nodes", node_columns, f->profile->nodes.n, node_value);
	strbuf_adds(&f->out.text, ",\"threads\":{");
	add_labels(f, "name", label_thread);
	end_column(f, ",");
	add_labels(f, "process", label_process);
	end_column(f, "}");
	add_counts(f, "counts", f->profile->counts.items, f->profile->counts.n);
}

/* What stands above the controls: title, what was counted, how well. */
static void add_head(struct file *f, const char *title, bool diff) {
	_cleanup_(strbuf_deinit) struct strbuf name = { 0 }, summary = { 0 }, accuracy = { 0 };
	struct strbuf *out = &f->out.text;

	title = title && *title ? title : "Flame graph";
	strbuf_add_printable(&name, title, strlen(title));
	label_summary(&summary, f->profile);
	strbuf_adds(&summary, diff ? "; red: more than before, blue: less" : "");
	label_accuracy(&accuracy, f->profile);
	strbuf_adds(out,
		"<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
		"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; base-uri 'none'; "
		"form-action 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
		"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
	add_text(f, "<title>", &name, "</title>\n<style>\n");
	strbuf_adds(out, html_style);
	add_text(f, "</style>\n</head>\n<body>\n<header>\n<h1>", &name, "</h1>\n");
	add_text(f, "<p>", &summary, "</p>\n");
	add_text(f, "<p>", &accuracy, "</p>\n</header>\n");
	strbuf_adds(out, html_controls);
}

static int write_page(const struct profile *profile, const struct profile_count *before, size_t before_n, bool diff,
	const struct export_options *options, int fd) {
	struct file f = { .profile = profile, .out = { .fd = fd } };
	struct strbuf *out = &f.out.text;

	add_head(&f, options ? options->title : NULL, diff);
	strbuf_addf(out,
		"<script id=\"data\" "
		"type=\"application/json\">{\"group\":%s,\"diff\":%s,\"sleeps\":%s,\"bytes\":%s,\"sample_ns\":%" PRIu64
		",\n",
		options && options->threads ? "true" : "false", diff ? "true" : "false",
		profile->kind == PROFILE_OFFCPU ? "true" : "false", profile->kind == PROFILE_ALLOC ? "true" : "false",
		label_sample_ns(profile, 1));
	add_tables(&f);
	if (diff)
		add_counts(&f, "before", before, before_n);
	strbuf_adds(out, "}</script>\n<script>\n");
	strbuf_adds(out, html_script);
	strbuf_adds(out, "</script>\n</body>\n</html>\n");
	return writer_finish(&f.out);
}

int export_html(const struct profile *profile, const struct export_options *options, int fd) {
	return write_page(profile, NULL, 0, false, options, fd);
}

int export_html_diff(const struct profile *profile, const struct profile_count *before, size_t before_n,
	const struct export_options *options, int fd) {
	return write_page(profile, before, before_n, true, options, fd);
}
