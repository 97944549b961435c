/* SPDX-License-Identifier: MIT */
/* html, gecko and chrome: what a viewer reads out of them is what was counted, and no name leaves its place. */
#include "engine/export/export.h"

#include "engine/base/util.h"
#include "engine/export/html_page.h"
#include "tests/unit/exported.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>

#define DATA "<script id=\"data\" type=\"application/json\">"

/* Before: main → f 6 in thread a, main alone 6 in b. */
static const struct profile_count before[] = { { 0, 2, 6, 60 }, { 1, 1, 6, 60 } };

static json_t *parse(const char *text, size_t len) {
	json_error_t error;
	json_t *json = json_loadb(text, len, 0, &error);

	cr_assert(json, "%s at %d", error.text, error.position);
	return json;
}

static json_t *at(const json_t *object, const char *key) {
	json_t *value = json_object_get(object, key);

	cr_assert(value, "no %s", key);
	return value;
}

static json_t *nth(const json_t *array, size_t i) {
	json_t *value = json_array_get(array, i);

	cr_assert(value, "no item %zu", i);
	return value;
}

static json_int_t number_at(const json_t *object, const char *key, size_t i) {
	return json_integer_value(nth(at(object, key), i));
}

static json_int_t sum_of(const json_t *array) {
	json_int_t sum = 0;

	for (size_t i = 0; i < json_array_size(array); i++)
		sum += json_integer_value(nth(array, i));
	return sum;
}

static size_t occurrences(const char *text, const char *what) {
	size_t n = 0;

	for (; (text = strstr(text, what)); text++)
		n++;
	return n;
}

static json_t *page_data(const char *text) {
	const char *data = strstr(text, DATA);

	cr_assert(data);
	data += strlen(DATA);
	return parse(data, (size_t)(strstr(data, "</script") - data));
}

Test(export_viewers, formats_are_found) {
	static const char *const files[][2] = { { "a.html", "html" }, { "a.HTM", "html" }, { "a.gecko.json", "gecko" },
		{ "a.chrome.json", "chrome" }, { "a.trace.json", "chrome" }, { "a.json", "speedscope" } };

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		cr_assert_str_eq(export_for_file(files[i][0])->name, files[i][1]);
	cr_assert_null(export_for_file("a.cpuprofile"));
}

Test(export_viewers, failed_writes_are_errors) {
	struct profile *p = exported_sample(10);
	_close_ int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		cr_skip_test("/dev/full cannot be opened");
	cr_assert_eq(export_html(p, NULL, fd), -ENOSPC);
	cr_assert_eq(export_gecko(p, NULL, fd), -ENOSPC);
	cr_assert_eq(export_chrome(p, NULL, fd), -ENOSPC);
	cr_assert_eq(export_html_diff(p, before, 2, NULL, fd), -ENOSPC);
	cr_assert_eq(export_gecko_diff(p, before, 2, NULL, fd), -ENOSPC);
	cr_assert_eq(export_chrome_diff(p, before, 2, NULL, fd), -ENOSPC);
	profile_free(p);
}

Test(export_viewers, html_holds_what_was_counted) {
	struct profile *p = exported_sample(11);
	struct export_options options = { .title = "my <app>", .threads = true };
	_free_ char *text = exported_text(p, "html", &options, NULL);
	json_t *data = page_data(text), *counts = at(data, "counts"), *strings = at(data, "strings");

	cr_assert_not_null(strstr(text, "<h1>my &lt;app&gt;</h1>"));
	cr_assert_not_null(strstr(text, "<p>cpu, 12 samples, 100 Hz, 12 s</p>"));
	cr_assert_not_null(strstr(text, "17 torn"));
	cr_assert(json_is_true(at(data, "group")) && json_is_false(at(data, "diff")));
	cr_assert_null(json_object_get(data, "before"));
	cr_assert_eq(sum_of(at(counts, "samples")), 12);
	cr_assert_eq(number_at(counts, "node", 2), 3);
	cr_assert_eq(number_at(at(data, "nodes"), "parent", 3), 1);
	cr_assert_str_eq(json_string_value(nth(strings, (size_t)number_at(at(data, "frames"), "function", 2))), "C.g");
	cr_assert_eq(number_at(at(data, "frames"), "line", 1), 3);
	cr_assert_str_eq(json_string_value(nth(at(at(data, "threads"), "name"), 1)), "worker (11)");
	cr_assert_str_eq(json_string_value(nth(at(at(data, "threads"), "process"), 1)), "process python3 (11)");
	json_decref(data);
	profile_free(p);
}

Test(export_viewers, html_keeps_names_in_their_place) {
	struct profile *p = exported_hostile();
	struct export_options options = { .title = "</title><script>alert(2)</script>\x1b[2J" };
	size_t len;
	_free_ char *text = exported_text(p, "html", &options, &len);
	json_t *data = page_data(text);

	exported_check_printable(text, len);
	cr_assert_eq(occurrences(text, "<script"), 2);
	cr_assert_eq(occurrences(text, "</script"), 2);
	cr_assert_eq(occurrences(text, "</title"), 1);
	cr_assert_eq(occurrences(text, "<!--"), 0);
	cr_assert_eq(json_array_size(at(at(data, "counts"), "node")), EXPORTED_HOSTILE);
	cr_assert_str_eq(
		json_string_value(nth(at(data, "strings"), intern_add(&p->strings, "</script><!--<script>", 21))),
		"</script><!--<script>");
	json_decref(data);
	profile_free(p);
}

Test(export_viewers, html_needs_nothing_else) {
	static const char *const parts[] = { html_style, html_controls, html_script };

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		cr_assert_null(strstr(parts[i], "//"));
		cr_assert_null(strstr(parts[i], "url("));
		cr_assert_null(strstr(parts[i], "@import"));
		cr_assert_null(strstr(parts[i], "</script"));
		cr_assert_null(strstr(parts[i], "<!--"));
		cr_assert_null(strstr(parts[i], "innerHTML"));
	}
}

Test(export_viewers, html_compares) {
	struct profile *p = exported_sample(10);
	_free_ char *text = exported_diff(p, before, 2, "html", NULL);
	json_t *data = page_data(text);

	cr_assert(json_is_true(at(data, "diff")));
	cr_assert_not_null(strstr(text, "red: more than before"));
	cr_assert_eq(sum_of(at(at(data, "before"), "samples")), 12);
	cr_assert_eq(number_at(at(data, "before"), "node", 1), 1);
	json_decref(data);
	profile_free(p);
}

/* Every column of the table has as many rows as it says, and there is none that the format does not know. */
static size_t check_columns(const json_t *thread, const char *table, const char *const *columns, size_t n) {
	json_t *object = at(thread, table);
	size_t rows = (size_t)json_integer_value(at(object, "length"));

	for (size_t i = 0; i < n; i++)
		cr_assert_eq(json_array_size(at(object, columns[i])), rows, "%s.%s", table, columns[i]);
	cr_assert_eq(json_object_size(object), n + 1 + (json_object_get(object, "weightType") != NULL), "%s", table);
	return rows;
}

/* Every reference leads to a row: below `rows`, or null where that may be. */
static void check_references(const json_t *column, size_t rows, bool nullable) {
	for (size_t i = 0; i < json_array_size(column); i++) {
		json_t *value = nth(column, i);

		if (nullable && json_is_null(value))
			continue;
		cr_assert(json_is_integer(value) && json_integer_value(value) >= 0);
		cr_assert_lt((size_t)json_integer_value(value), rows);
	}
}

#define COLUMNS(...) ((const char *const[]){ __VA_ARGS__ }), ARRAY_SIZE(((const char *const[]){ __VA_ARGS__ }))

static void check_gecko_thread(const json_t *thread, size_t strings) {
	size_t samples = check_columns(thread, "samples", COLUMNS("stack", "time", "weight"));
	size_t stacks = check_columns(thread, "stackTable", COLUMNS("prefix", "frame"));
	size_t frames = check_columns(thread, "frameTable",
		COLUMNS("address", "inlineDepth", "category", "subcategory", "func", "nativeSymbol", "innerWindowID",
			"line", "column"));
	size_t functions = check_columns(thread, "funcTable",
		COLUMNS("name", "isJS", "relevantForJS", "resource", "fileName", "lineNumber", "columnNumber"));

	check_columns(thread, "markers", COLUMNS("data", "name", "startTime", "endTime", "phase", "category"));
	check_columns(thread, "resourceTable", COLUMNS("lib", "name", "host", "type"));
	check_columns(thread, "nativeSymbols", COLUMNS("libIndex", "address", "name", "functionSize"));
	check_references(at(at(thread, "samples"), "stack"), stacks, true);
	check_references(at(at(thread, "stackTable"), "frame"), frames, false);
	check_references(at(at(thread, "stackTable"), "prefix"), stacks, true);
	check_references(at(at(thread, "frameTable"), "func"), functions, false);
	check_references(at(at(thread, "frameTable"), "category"), 4, false);
	check_references(at(at(thread, "funcTable"), "name"), strings, false);
	check_references(at(at(thread, "funcTable"), "fileName"), strings, true);
	for (size_t i = 0; i < stacks; i++) {
		const json_t *prefix = nth(at(at(thread, "stackTable"), "prefix"), i);

		cr_assert(json_is_null(prefix) || json_integer_value(prefix) < (json_int_t)i);
	}
	for (size_t i = 1; i < samples; i++)
		cr_assert_geq(json_number_value(nth(at(at(thread, "samples"), "time"), i)),
			json_number_value(nth(at(at(thread, "samples"), "time"), i - 1)));
	cr_assert(json_is_string(at(thread, "pid")) && json_is_string(at(thread, "name")));
}

static json_t *check_gecko(const char *text) {
	json_t *file = parse(text, strlen(text)), *meta = at(file, "meta"), *threads = at(file, "threads");
	size_t strings = json_array_size(at(at(file, "shared"), "stringArray"));

	cr_assert_eq(json_integer_value(at(meta, "preprocessedProfileVersion")), 56);
	cr_assert_eq(json_array_size(at(meta, "categories")), 4);
	cr_assert_gt(json_number_value(at(meta, "interval")), 0);
	for (size_t i = 0; i < json_array_size(threads); i++)
		check_gecko_thread(nth(threads, i), strings);
	return file;
}

/* Return: the name of the function that a sample of a thread is in. */
static const char *gecko_leaf(const json_t *file, const json_t *thread, size_t sample) {
	size_t stack = (size_t)number_at(at(thread, "samples"), "stack", sample);
	size_t frame = (size_t)number_at(at(thread, "stackTable"), "frame", stack);
	size_t function = (size_t)number_at(at(thread, "frameTable"), "func", frame);
	size_t name = (size_t)number_at(at(thread, "funcTable"), "name", function);

	return json_string_value(nth(at(at(file, "shared"), "stringArray"), name));
}

Test(export_viewers, gecko_has_a_thread_for_each) {
	struct profile *p = exported_sample(10);
	_free_ char *text = exported_text(p, "gecko", NULL, NULL);
	json_t *file = check_gecko(text), *threads = at(file, "threads"), *main_thread = nth(threads, 0);

	cr_assert_not_null(strstr(text, "17 torn"));
	cr_assert_eq(json_integer_value(at(at(file, "meta"), "startTime")), 1700000000000);
	cr_assert_eq(json_array_size(threads), 2);
	cr_assert_str_eq(json_string_value(at(main_thread, "name")), "MainThread (10)");
	cr_assert_str_eq(json_string_value(at(main_thread, "pid")), "10");
	cr_assert(json_is_true(at(main_thread, "isMainThread")) && json_is_false(at(nth(threads, 1), "isMainThread")));
	cr_assert_eq(json_integer_value(at(at(main_thread, "stackTable"), "length")), 3);
	cr_assert_eq(sum_of(at(at(main_thread, "samples"), "weight")), 8);
	cr_assert_eq(number_at(at(main_thread, "samples"), "weight", 1), 5);
	cr_assert_str_eq(gecko_leaf(file, main_thread, 1), "C.g");
	cr_assert_eq(sum_of(at(at(nth(threads, 1), "samples"), "weight")), 4);
	cr_assert_str_eq(gecko_leaf(file, nth(threads, 1), 0), "f");
	json_decref(file);
	profile_free(p);
}

Test(export_viewers, gecko_groups_lines_into_functions) {
	struct profile *p = exported_new();
	uint32_t thread = exported_thread(p, 1, 1, "t", "p");
	json_t *file, *one;

	profile_count(p, thread, profile_add_node(p, 0, exported_frame(p, "f", "a.py", 1)), 1, 1);
	profile_count(p, thread, profile_add_node(p, 0, exported_frame(p, "f", "a.py", 2)), 1, 1);
	profile_count(p, thread, profile_add_node(p, 0, exported_frame(p, "f", "b.py", 2)), 1, 1);
	profile_count(p, thread, 0, 5, 5);
	{
		_free_ char *text = exported_text(p, "gecko", NULL, NULL);

		file = check_gecko(text);
	}
	one = nth(at(file, "threads"), 0);
	cr_assert_eq(json_integer_value(at(at(one, "frameTable"), "length")), 3);
	cr_assert_eq(json_integer_value(at(at(one, "funcTable"), "length")), 2);
	cr_assert_eq(json_integer_value(at(at(one, "samples"), "length")), 4);
	cr_assert(json_is_null(nth(at(at(one, "samples"), "stack"), 0)));
	json_decref(file);
	profile_free(p);
}

Test(export_viewers, gecko_survives_hostile_names) {
	struct profile *p = exported_hostile();
	size_t len;
	_free_ char *text = exported_text(p, "gecko", NULL, &len);
	json_t *file = check_gecko(text), *nameless = nth(at(file, "threads"), 0);

	exported_check_printable(text, len);
	cr_assert_eq(json_array_size(at(file, "threads")), EXPORTED_HOSTILE);
	cr_assert_str_eq(gecko_leaf(file, nameless, 0), "<unknown>");
	cr_assert(json_is_null(nth(at(at(nameless, "funcTable"), "fileName"), 0)));
	json_decref(file);
	profile_free(p);
}

Test(export_viewers, gecko_compares) {
	struct profile *p = exported_sample(11);
	struct export_options options = { .threads = true };
	_free_ char *text = exported_diff(p, before, 2, "gecko", &options);
	json_t *file = check_gecko(text), *threads = at(file, "threads");
	static const char *const names[] = { "before", "after", "change" };
	static const json_int_t sums[] = { 12, 12, 0 };

	cr_assert_eq(json_array_size(threads), 3);
	for (size_t i = 0; i < 3; i++) {
		cr_assert_str_eq(json_string_value(at(nth(threads, i), "name")), names[i]);
		cr_assert_eq(sum_of(at(at(nth(threads, i), "samples"), "weight")), sums[i]);
	}
	cr_assert_not_null(strstr(text, "\"worker (11)\""));
	cr_assert_not_null(strstr(text, "\"process python3 (11)\""));
	json_decref(file);
	profile_free(p);
}

/* Return: the n-th event with that phase and name. */
static json_t *find_event(const json_t *file, const char *phase, const char *name, size_t n) {
	json_t *events = at(file, "traceEvents"), *found = NULL;

	for (size_t i = 0; i < json_array_size(events) && !found; i++) {
		json_t *event = nth(events, i);

		if (!strcmp(json_string_value(at(event, "ph")), phase) &&
			!strcmp(json_string_value(at(event, "name")), name) && !n--)
			found = event;
	}
	cr_assert(found, "no event %s %s", phase, name);
	return found;
}

/* Nanoseconds: what readers make of microseconds with three decimals. */
static int64_t ns_at(const json_t *event, const char *key) {
	return (int64_t)(json_number_value(at(event, key)) * 1000 + 0.5);
}

static bool is_box(const json_t *event) {
	return !strcmp(json_string_value(at(event, "ph")), "X");
}

static void check_pair(const json_t *a, const json_t *b) {
	int64_t start = ns_at(a, "ts"), end = start + ns_at(a, "dur");
	int64_t other = ns_at(b, "ts"), other_end = other + ns_at(b, "dur");

	cr_assert(end > start && other_end > other);
	if (json_equal(at(a, "tid"), at(b, "tid")) && json_equal(at(a, "pid"), at(b, "pid")))
		cr_assert(other_end <= start || other >= end || (other >= start && other_end <= end));
}

/* Two boxes of one row lie beside each other or one in the other, callers first. */
static void check_rows(const json_t *file) {
	json_t *events = at(file, "traceEvents");
	size_t n = json_array_size(events);

	for (size_t i = 0; i < n; i++)
		for (size_t j = i + 1; j < n && is_box(nth(events, i)); j++)
			if (is_box(nth(events, j)))
				check_pair(nth(events, i), nth(events, j));
}

Test(export_viewers, chrome_has_a_row_for_each_thread) {
	struct profile *p = exported_sample(20);
	_free_ char *text = exported_text(p, "chrome", NULL, NULL);
	json_t *file = parse(text, strlen(text)), *event = find_event(file, "X", "<module>", 1), *args;

	check_rows(file);
	cr_assert_not_null(strstr(text, "17 torn"));
	cr_assert_eq(json_integer_value(at(event, "pid")), 20);
	cr_assert_eq(json_integer_value(at(event, "tid")), 11);
	cr_assert_eq(ns_at(event, "dur"), 40);
	event = find_event(file, "X", "f", 0);
	args = at(event, "args");
	cr_assert_eq(ns_at(event, "ts"), 50);
	cr_assert_str_eq(json_string_value(at(args, "file")), "app.py");
	cr_assert_eq(json_integer_value(at(args, "line")), 3);
	cr_assert_eq(json_integer_value(at(args, "samples")), 3);
	cr_assert_float_eq(json_number_value(at(args, "share")), 25, 0.01);
	event = find_event(file, "M", "thread_name", 1);
	cr_assert_str_eq(json_string_value(at(at(event, "args"), "name")), "worker");
	json_decref(file);
	profile_free(p);
}

Test(export_viewers, chrome_tells_threads_apart) {
	struct profile *p = exported_new();
	uint32_t node = profile_add_node(p, 0, exported_frame(p, "f", "a.py", 1));
	json_t *file;

	profile_count(p, exported_thread(p, 7, 8, "one", "p"), node, 1, 1000);
	profile_count(p, exported_thread(p, 7, 8, "two", "p"), node, 1, 1000);
	profile_count(p, exported_thread(p, 7, 0, "three", "p"), node, 1, 1000);
	{
		_free_ char *text = exported_text(p, "chrome", NULL, NULL);

		file = parse(text, strlen(text));
	}
	check_rows(file);
	for (size_t i = 0; i < 3; i++)
		for (size_t j = 0; j < i; j++)
			cr_assert(!json_equal(at(find_event(file, "M", "thread_name", i), "tid"),
				at(find_event(file, "M", "thread_name", j), "tid")));
	for (size_t i = 0; i < 3; i++)
		cr_assert_eq(ns_at(find_event(file, "X", "f", i), "ts"), 0);
	json_decref(file);
	profile_free(p);
}

Test(export_viewers, chrome_survives_hostile_names) {
	struct profile *p = exported_hostile();
	size_t len;
	_free_ char *text = exported_text(p, "chrome", NULL, &len);
	json_t *file = parse(text, len);

	exported_check_printable(text, len);
	check_rows(file);
	cr_assert_eq(occurrences(text, "\"ph\":\"X\""), EXPORTED_HOSTILE);
	json_decref(file);
	profile_free(p);
}

Test(export_viewers, chrome_compares) {
	struct profile *p = exported_sample(10);
	_free_ char *text = exported_diff(p, before, 2, "chrome", NULL);
	json_t *file = parse(text, strlen(text)), *event = find_event(file, "X", "f", 0);

	check_rows(file);
	cr_assert_eq(occurrences(text, "\"name\":\"C.g\""), 1);
	cr_assert_eq(json_integer_value(at(event, "pid")), 1);
	cr_assert_eq(ns_at(event, "dur"), 60);
	event = find_event(file, "X", "f", 1);
	cr_assert_eq(json_integer_value(at(event, "pid")), 2);
	cr_assert_eq(ns_at(event, "dur"), 70);
	cr_assert_float_eq(json_number_value(at(at(event, "args"), "share_before")), 50, 0.01);
	cr_assert_float_eq(json_number_value(at(at(event, "args"), "change")), 8.33, 0.01);
	json_decref(file);
	profile_free(p);
}

Test(export_viewers, an_empty_profile_is_a_file) {
	struct profile *p = NULL;

	cr_assert_eq(profile_new(&p), 0);
	{
		_free_ char *html = exported_text(p, "html", NULL, NULL);
		_free_ char *gecko = exported_text(p, "gecko", NULL, NULL);
		_free_ char *chrome = exported_text(p, "chrome", NULL, NULL);

		json_decref(page_data(html));
		json_decref(check_gecko(gecko));
		json_decref(parse(chrome, strlen(chrome)));
	}
	profile_free(p);
}

Test(export_viewers, deep_stacks_are_whole) {
	struct profile *p = exported_new();
	uint32_t node = 0;

	for (int i = 0; i < 9000; i++)
		node = profile_add_node(p, node, exported_frame(p, "f", "a.py", i + 1));
	profile_count(p, exported_thread(p, 1, 1, "t", "p"), node, 1, 1000);
	{
		_free_ char *gecko = exported_text(p, "gecko", NULL, NULL);
		_free_ char *chrome = exported_text(p, "chrome", NULL, NULL);
		json_t *file = check_gecko(gecko), *thread = nth(at(file, "threads"), 0);

		cr_assert_eq(json_integer_value(at(at(thread, "stackTable"), "length")), 9000);
		cr_assert_eq(json_integer_value(at(at(thread, "funcTable"), "length")), 1);
		cr_assert_eq(occurrences(chrome, "\"ph\":\"X\""), 9000);
		json_decref(file);
	}
	profile_free(p);
}
