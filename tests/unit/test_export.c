/* SPDX-License-Identifier: MIT */
/* Exporters: what is written adds up, and no name that a target may choose breaks a format. */
#include "engine/export/export.h"

#include "engine/base/util.h"
#include "engine/export/pprof.pb-c.h"
#include "tests/unit/exported.h"
#include <criterion/criterion.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

Test(export, formats_are_found) {
	cr_assert_str_eq(export_find("svg")->name, "svg");
	cr_assert_null(export_find("SVG2"));
	cr_assert_null(export_find(NULL));
	cr_assert_str_eq(export_for_file("a.speedscope.json")->name, "speedscope");
	cr_assert_str_eq(export_for_file("/x.svg/a.JSON")->name, "speedscope");
	cr_assert_str_eq(export_for_file("a.pb.gz")->name, "pprof");
	cr_assert_str_eq(export_for_file("a.folded")->name, "collapsed");
	cr_assert_null(export_for_file("a.gz"));
	cr_assert_null(export_for_file("svg"));
	cr_assert_null(export_for_file(NULL));
}

Test(export, failed_writes_are_errors) {
	struct profile *p = exported_sample(10);
	_close_ int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		cr_skip_test("/dev/full cannot be opened");
	cr_assert_eq(export_collapsed(p, NULL, fd), -ENOSPC);
	cr_assert_eq(export_svg(p, NULL, fd), -ENOSPC);
	cr_assert_eq(export_speedscope(p, NULL, fd), -ENOSPC);
	cr_assert_eq(export_pprof(p, NULL, fd), -ENOSPC);
	cr_assert_eq(export_collapsed(p, NULL, -1), -EBADF);
	profile_free(p);
}

Test(export, collapsed_sums_threads) {
	struct profile *p = exported_sample(10);
	_free_ char *text = exported_text(p, "collapsed", NULL, NULL);

	cr_assert_str_eq(text, "<module> (app.py:40);f (app.py:3) 7\n<module> (app.py:40);C.g (lib.py) 5\n");
	profile_free(p);
}

Test(export, collapsed_names_threads_and_processes) {
	struct profile *p = exported_sample(11);
	struct export_options options = { .threads = true };
	_free_ char *text = exported_text(p, "collapsed", NULL, NULL);
	_free_ char *threads = exported_text(p, "collapsed", &options, NULL);

	cr_assert_str_eq(text,
		"process python3 (10);<module> (app.py:40);f (app.py:3) 3\n"
		"process python3 (11);<module> (app.py:40);f (app.py:3) 4\n"
		"process python3 (10);<module> (app.py:40);C.g (lib.py) 5\n");
	cr_assert_str_eq(threads,
		"process python3 (10);MainThread (10);<module> (app.py:40);f (app.py:3) 3\n"
		"process python3 (11);worker (11);<module> (app.py:40);f (app.py:3) 4\n"
		"process python3 (10);MainThread (10);<module> (app.py:40);C.g (lib.py) 5\n");
	profile_free(p);
}

Test(export, collapsed_survives_hostile_names) {
	struct profile *p = exported_hostile();
	struct export_options options = { .threads = true };
	size_t len, lines = 0;
	_free_ char *text = exported_text(p, "collapsed", &options, &len);

	exported_check_printable(text, len);
	for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1, lines++) {
		size_t separators = 0;

		for (char *c = line; c < end; c++)
			separators += *c == ';';
		cr_assert_eq(separators, 2, "%.*s", (int)(end - line), line);
		cr_assert_eq(strncmp(end - 2, " 1", 2), 0);
	}
	cr_assert_eq(lines, EXPORTED_HOSTILE);
	profile_free(p);
}

static char *attribute(const char *tag, const char *name) {
	const char *at = strstr(tag, name);

	return at ? strchr(at, '"') + 1 : NULL;
}

/* Reads one tag; the strictness is that of what the exporter writes. Return: what follows it. */
static const char *check_tag(const char *at, char stack[][16], size_t *depth) {
	const char *end = strchr(at, '>'), *name = at + 1 + (at[1] == '/');
	size_t len = strcspn(name, " />"), quotes = 0;

	cr_assert(end && len && len < 16 && *depth < 15);
	for (const char *c = at + 1; c < end; c++) {
		cr_assert_neq(*c, '<');
		quotes += *c == '"';
	}
	cr_assert_eq(quotes % 2, 0);
	if (at[1] == '/') {
		cr_assert(*depth && !strncmp(stack[*depth - 1], name, len) && !stack[*depth - 1][len]);
		--*depth;
	} else if (end[-1] != '/') {
		memcpy(stack[*depth], name, len);
		stack[(*depth)++][len] = '\0';
	}
	return end + 1;
}

static void check_entity(const char *at) {
	static const char *const known[] = { "&amp;", "&lt;", "&gt;", "&quot;", "&#39;" };

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strncmp(at, known[i], strlen(known[i])))
			return;
	cr_assert_fail("bare & at %.20s", at);
}

static void check_xml(const char *text) {
	char stack[16][16] = { 0 };
	size_t depth = 0;
	const char *at = strstr(text, "?>") + 2;

	while (*at) {
		if (!strncmp(at, "<![CDATA[", 9)) {
			at = strstr(at, "]]>") + 3;
		} else if (*at == '<') {
			at = check_tag(at, stack, &depth);
		} else {
			if (*at == '&')
				check_entity(at);
			cr_assert(strncmp(at, "]]>", 3) && strncmp(at, "\xef\xbf\xbe", 3) &&
				strncmp(at, "\xef\xbf\xbf", 3));
			cr_assert(depth || isspace((unsigned char)*at));
			at++;
		}
	}
	cr_assert_eq(depth, 0);
}

static size_t count_of(const char *text, const char *what) {
	size_t n = 0;

	for (; (text = strstr(text, what)); text++)
		n++;
	return n;
}

Test(export, svg_shows_samples_and_accuracy) {
	struct profile *p = exported_sample(10);
	struct export_options options = { .title = "my <app>" };
	_free_ char *text = exported_text(p, "svg", &options, NULL);
	const char *f = strstr(text, "<title>f (app.py:3)\n7 samples, 58.33 %</title>");

	check_xml(text);
	cr_assert_not_null(f);
	cr_assert_not_null(strstr(text, ">my &lt;app&gt;</text>"));
	cr_assert_not_null(strstr(text, "cpu, 12 samples, 100 Hz, 12 s"));
	cr_assert_not_null(strstr(text, "17 torn, 0 discarded, 3 late"));
	cr_assert_eq(count_of(text, "<g class=\"f\""), 4);
	cr_assert_eq(count_of(text, "<script>"), 1);
	/* C.g is the first by name, so that f begins after its five samples; the root stands below it. */
	cr_assert_not_null(strstr(text, "data-s=\"5\" data-n=\"7\" data-d=\"2\"><title>f "));
	cr_assert_lt(atof(attribute(f, " y=")), atof(attribute(strstr(text, "<title>all"), " y=")));
	profile_free(p);
}

Test(export, svg_survives_hostile_names) {
	struct profile *p = exported_hostile();
	struct export_options options = { .threads = true, .title = exported_hostile_names[4] };
	size_t len;
	_free_ char *text = exported_text(p, "svg", &options, &len);

	check_xml(text);
	exported_check_printable(text, len);
	cr_assert_eq(count_of(text, "<script>"), 1);
	cr_assert_eq(count_of(text, "]]>"), 1);
	cr_assert_eq(count_of(text, "<g class=\"f\""), 1 + 3 * EXPORTED_HOSTILE);
	profile_free(p);
}

Test(export, svg_leaves_out_what_nobody_sees) {
	struct profile *p = exported_new();
	uint32_t thread = exported_thread(p, 1, 1, "t", "p"), leaf;

	for (int i = 0; i < 20000; i++)
		profile_count(p, thread, profile_add_node(p, 0, exported_frame(p, "f", "a.py", i + 1)), 2, 1);
	leaf = profile_add_node(p, 0, exported_frame(p, "wide", "a.py", 1));
	profile_count(p, thread, leaf, 40000, 1);
	{
		_free_ char *text = exported_text(p, "svg", NULL, NULL);

		check_xml(text);
		cr_assert_not_null(strstr(text, "; 20000 frames narrower than 0.1 px not drawn"));
		cr_assert_eq(count_of(text, "<g class=\"f\""), 2);
	}
	profile_free(p);
}

static json_t *load_speedscope(const struct profile *p) {
	size_t len;
	_free_ char *text = exported_text(p, "speedscope", NULL, &len);
	json_error_t error;
	json_t *file = json_loadb(text, len, 0, &error);

	exported_check_printable(text, len);
	cr_assert_not_null(file, "%s", error.text);
	return file;
}

Test(export, speedscope_has_a_profile_per_thread) {
	struct profile *p = exported_sample(10);
	json_t *file = load_speedscope(p), *profiles = json_object_get(file, "profiles"), *one;
	json_t *frames = json_object_get(json_object_get(file, "shared"), "frames");

	cr_assert_str_eq(json_string_value(json_object_get(file, "exporter")), "pyspyd");
	cr_assert_not_null(strstr(json_string_value(json_object_get(file, "name")), "17 torn"));
	cr_assert_eq(json_array_size(frames), 3);
	cr_assert_eq(json_integer_value(json_object_get(json_array_get(frames, 1), "line")), 3);
	cr_assert_null(json_object_get(json_array_get(frames, 2), "line"));
	cr_assert_eq(json_array_size(profiles), 2);
	one = json_array_get(profiles, 0);
	cr_assert_str_eq(json_string_value(json_object_get(one, "name")), "MainThread (10)");
	cr_assert_str_eq(json_string_value(json_object_get(one, "unit")), "nanoseconds");
	cr_assert_eq(json_integer_value(json_object_get(one, "endValue")), 80);
	cr_assert_eq(json_array_size(json_object_get(one, "samples")), 2);
	cr_assert_eq(json_integer_value(json_array_get(json_object_get(one, "weights"), 1)), 50);
	cr_assert_eq(json_integer_value(json_array_get(json_array_get(json_object_get(one, "samples"), 1), 1)), 2);
	json_decref(file);
	profile_free(p);
}

Test(export, speedscope_survives_hostile_names) {
	struct profile *p = exported_hostile();
	json_t *file = load_speedscope(p);

	cr_assert_eq(json_array_size(json_object_get(file, "profiles")), EXPORTED_HOSTILE);
	json_decref(file);
	profile_free(p);
}

static Pyspyd__Pprof__Profile *load_pprof(const struct profile *p) {
	size_t len;
	_free_ char *packed = exported_text(p, "pprof", NULL, &len);
	static uint8_t bytes[1 << 20];
	z_stream gzip = { .next_in = (uint8_t *)packed, .avail_in = (uInt)len, .next_out = bytes };
	Pyspyd__Pprof__Profile *profile;

	gzip.avail_out = sizeof(bytes);
	cr_assert_eq(inflateInit2(&gzip, 15 + 16), Z_OK);
	cr_assert_eq(inflate(&gzip, Z_FINISH), Z_STREAM_END);
	profile = pyspyd__pprof__profile__unpack(NULL, gzip.total_out, bytes);
	inflateEnd(&gzip);
	cr_assert_not_null(profile);
	cr_assert_str_eq(profile->string_table[0], "");
	return profile;
}

/* Every reference leads somewhere: to a string, a function or a location, whose ids are 1, 2, 3, … */
static void check_references(const Pyspyd__Pprof__Profile *profile) {
	for (size_t i = 0; i < profile->n_function; i++) {
		cr_assert_eq(profile->function[i]->id, i + 1);
		cr_assert_lt((size_t)profile->function[i]->name, profile->n_string_table);
		cr_assert_lt((size_t)profile->function[i]->filename, profile->n_string_table);
	}
	for (size_t i = 0; i < profile->n_location; i++) {
		uint64_t function = profile->location[i]->line[0]->function_id;

		cr_assert_eq(profile->location[i]->id, i + 1);
		cr_assert(function && function <= profile->n_function);
	}
	for (size_t i = 0; i < profile->n_sample; i++)
		for (size_t j = 0; j < profile->sample[i]->n_location_id; j++)
			cr_assert(profile->sample[i]->location_id[j] - 1 < profile->n_location);
}

static int64_t label_of(const Pyspyd__Pprof__Profile *profile, size_t sample, const char *key) {
	for (size_t i = 0; i < profile->sample[sample]->n_label; i++) {
		Pyspyd__Pprof__Label *label = profile->sample[sample]->label[i];

		if (!strcmp(profile->string_table[label->key], key))
			return label->str ? label->str : label->num;
	}
	return -1;
}

Test(export, pprof_reads_back) {
	struct profile *p = exported_sample(20);
	Pyspyd__Pprof__Profile *profile = load_pprof(p);
	char **strings = profile->string_table;
	int64_t samples = 0, ns = 0;
	Pyspyd__Pprof__Location *leaf;

	check_references(profile);
	cr_assert_eq(profile->n_sample_type, 2);
	cr_assert_str_eq(strings[profile->sample_type[0]->type], "samples");
	cr_assert_str_eq(strings[profile->sample_type[1]->type], "cpu");
	cr_assert_str_eq(strings[profile->sample_type[1]->unit], "nanoseconds");
	cr_assert_eq(profile->period, 10000000);
	cr_assert_eq(profile->time_nanos, 1700000000000000000);
	cr_assert_eq(profile->duration_nanos, 12000000000);
	cr_assert_not_null(strstr(strings[profile->comment[1]], "17 torn"));
	cr_assert_eq(profile->n_sample, 3);
	for (size_t i = 0; i < profile->n_sample; i++) {
		samples += profile->sample[i]->value[0];
		ns += profile->sample[i]->value[1];
	}
	cr_assert_eq(samples, 12);
	cr_assert_eq(ns, 120);
	leaf = profile->location[profile->sample[0]->location_id[0] - 1];
	cr_assert_eq(leaf->line[0]->line, 3);
	cr_assert_str_eq(strings[profile->function[leaf->line[0]->function_id - 1]->name], "f");
	cr_assert_str_eq(strings[label_of(profile, 1, "thread")], "worker");
	cr_assert_eq(label_of(profile, 1, "tid"), 11);
	cr_assert_eq(label_of(profile, 1, "pid"), 20);
	pyspyd__pprof__profile__free_unpacked(profile, NULL);
	profile_free(p);
}

/* Widths are bytes, and the formats that have a unit say so. */
Test(export, allocations_are_bytes) {
	struct profile *p = exported_sample(10);
	Pyspyd__Pprof__Profile *profile;
	char **strings;

	p->kind = PROFILE_ALLOC;
	vec_foreach (count, &p->counts)
		count->ns = count->samples << 20;
	{
		_free_ char *collapsed = exported_text(p, "collapsed", NULL, NULL);
		_free_ char *svg = exported_text(p, "svg", NULL, NULL), *gecko = exported_text(p, "gecko", NULL, NULL);
		_free_ char *speedscope = exported_text(p, "speedscope", NULL, NULL);
		_free_ char *chrome = exported_text(p, "chrome", NULL, NULL),
			    *html = exported_text(p, "html", NULL, NULL);

		cr_assert_str_eq(collapsed,
			"<module> (app.py:40);f (app.py:3) 7340032\n<module> (app.py:40);C.g (lib.py) 5242880\n");
		cr_assert_not_null(strstr(svg, "7.0 MiB, 58.33 %"));
		cr_assert_not_null(strstr(gecko, "\"weightType\":\"bytes\""));
		cr_assert_not_null(strstr(speedscope, "\"unit\":\"bytes\""));
		cr_assert_not_null(strstr(chrome, "\"bytes\":3145728"));
		cr_assert_not_null(strstr(html, "\"bytes\":true"));
		cr_assert_not_null(strstr(html, "allocations, 12.0 MiB in about 12"));
	}
	profile = load_pprof(p);
	strings = profile->string_table;
	cr_assert_str_eq(strings[profile->sample_type[0]->type], "alloc_objects");
	cr_assert_str_eq(strings[profile->sample_type[1]->type], "alloc_space");
	cr_assert_str_eq(strings[profile->sample_type[1]->unit], "bytes");
	cr_assert_eq(profile->sample[0]->value[1], profile->sample[0]->value[0] << 20);
	pyspyd__pprof__profile__free_unpacked(profile, NULL);
	profile_free(p);
}

Test(export, pprof_survives_hostile_names) {
	struct profile *p = exported_hostile();
	Pyspyd__Pprof__Profile *profile = load_pprof(p);

	check_references(profile);
	cr_assert_eq(profile->n_sample, EXPORTED_HOSTILE);
	for (size_t i = 0; i < profile->n_string_table; i++)
		exported_check_printable(profile->string_table[i], strlen(profile->string_table[i]));
	cr_assert_eq(label_of(profile, 0, "thread"), -1);
	cr_assert_eq(label_of(profile, 0, "tid"), -1);
	pyspyd__pprof__profile__free_unpacked(profile, NULL);
	profile_free(p);
}

Test(export, an_empty_profile_is_a_file) {
	struct profile *p = NULL;
	Pyspyd__Pprof__Profile *profile;
	json_t *file;

	cr_assert_eq(profile_new(&p), 0);
	{
		_free_ char *collapsed = exported_text(p, "collapsed", NULL, NULL);
		_free_ char *svg = exported_text(p, "svg", NULL, NULL);

		cr_assert_str_eq(collapsed, "");
		check_xml(svg);
		cr_assert_not_null(strstr(svg, ">no samples<"));
	}
	file = load_speedscope(p);
	cr_assert_eq(json_array_size(json_object_get(file, "profiles")), 1);
	json_decref(file);
	profile = load_pprof(p);
	cr_assert_eq(profile->n_sample, 0);
	pyspyd__pprof__profile__free_unpacked(profile, NULL);
	profile_free(p);
}

Test(export, stacks_deeper_than_the_limit_are_whole) {
	struct profile *p = exported_new();
	uint32_t thread = exported_thread(p, 1, 1, "t", "p"), node = 0;
	Pyspyd__Pprof__Profile *profile;
	json_t *file;

	for (int i = 0; i < 9000; i++)
		node = profile_add_node(p, node, exported_frame(p, "f", "a.py", i + 1));
	profile_count(p, thread, node, 1, 1);
	{
		_free_ char *collapsed = exported_text(p, "collapsed", NULL, NULL);

		cr_assert_eq(count_of(collapsed, ";"), 8999);
	}
	file = load_speedscope(p);
	json_decref(file);
	profile = load_pprof(p);
	cr_assert_eq(profile->sample[0]->n_location_id, 9000);
	cr_assert_eq(profile->location[profile->sample[0]->location_id[0] - 1]->line[0]->line, 9000);
	pyspyd__pprof__profile__free_unpacked(profile, NULL);
	profile_free(p);
}

/* Two sleeps of very different length: widths are times, not how many there were. */
static struct profile *off_cpu(void) {
	struct profile *p = exported_new();
	uint32_t read = exported_frame(p, "receive", "app.py", 3), nap = exported_frame(p, "nap", "app.py", 9);
	uint32_t thread = exported_thread(p, 10, 10, "MainThread", "python3");

	p->kind = PROFILE_OFFCPU;
	p->period_ns = 0;
	cr_assert_eq(profile_count(p, thread, profile_add_node(p, 0, read), 1, 1500000000), 0);
	cr_assert_eq(profile_count(p, thread, profile_add_node(p, 0, nap), 1000, 500000999), 0);
	return p;
}

Test(export, time_off_cpu_is_told_in_time) {
	struct profile *p = off_cpu();
	_free_ char *collapsed = exported_text(p, "collapsed", NULL, NULL);
	_free_ char *svg = exported_text(p, "svg", NULL, NULL), *html = exported_text(p, "html", NULL, NULL);
	_free_ char *speedscope = exported_text(p, "speedscope", NULL, NULL);
	_free_ char *gecko = exported_text(p, "gecko", NULL, NULL), *chrome = exported_text(p, "chrome", NULL, NULL);

	cr_assert_str_eq(collapsed, "receive (app.py:3) 1500000\nnap (app.py:9) 500000\n");
	cr_assert(strstr(svg, "time off CPU, 2 s in 1001 sleeps"));
	cr_assert(strstr(svg, "1.5 s, 75.00 %"));
	cr_assert(strstr(html, "\"sleeps\":true,"));
	cr_assert(strstr(html, "\"sample_ns\":1000,"));
	cr_assert(strstr(html, "\"samples\":[1500000,500000]"));
	cr_assert(strstr(speedscope, "\"weights\":[1500000000,500000999]"));
	cr_assert(strstr(gecko, "\"weightType\":\"tracing-ms\""));
	cr_assert(strstr(gecko, "1500.000"));
	cr_assert(strstr(chrome, "\"dur\":1500000.000"));
	profile_free(p);
}

Test(export, gecko_of_time_off_cpu_is_json) {
	struct profile *p = off_cpu();
	_free_ char *text = exported_text(p, "gecko", NULL, NULL);
	json_t *root = json_loads(text, 0, NULL), *samples, *weights;

	cr_assert_not_null(root);
	samples = json_object_get(json_array_get(json_object_get(root, "threads"), 0), "samples");
	weights = json_object_get(samples, "weight");
	cr_assert_eq(json_array_size(weights), json_integer_value(json_object_get(samples, "length")));
	json_decref(root);
	profile_free(p);
}
