/* SPDX-License-Identifier: MIT */
/* Dumps and rows of processes as text and as JSON: what people read, the schema's keys in order, hostile names. */
#include "pyspyd/dump.h"
#include "pyspyd/ps.h"

#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <string.h>

#define S(text) ((char[]){ text }) /* the public structs own their strings: not const */

static struct pyspyd_local locals[] = {
	{ .name = S("text"), .type = S("builtins.str"), .value = S("'{}'") },
	{ .name = S("password"), .type = S("builtins.str"), .value = S("***"), .masked = true },
};
static struct pyspyd_frame frames[] = {
	{ .function = S("parse"),
		.qualname = S("Reader.parse"),
		.file = S("/srv/app/json.py"),
		.module = S("app.json"),
		.line = 88,
		.locals = locals,
		.locals_n = ARRAY_SIZE(locals) },
	{ .function = S("<module>"),
		.qualname = S("<module>"),
		.file = S("/srv/app/app.py"),
		.module = S("__main__"),
		.line = 3 },
};
static struct pyspyd_thread threads[] = {
	{ .tid = 4711,
		.ident = 140000000000000,
		.name = S("MainThread"),
		.state = 'R',
		.gil = PYSPYD_GIL_HELD,
		.frames = frames,
		.frames_n = ARRAY_SIZE(frames) },
	{ .tid = 4712,
		.name = S("worker-3"),
		.state = 'S',
		.gil = PYSPYD_GIL_WAITING,
		.interpreter = 2,
		.truncated = true,
		.in_gc = true,
		.frames = frames + 1,
		.frames_n = 1 },
	{ .tid = 4713, .name = S("idle"), .state = 'S' },
};
static char *cmdline[] = { S("python3"), S("app.py"), NULL };
static struct pyspyd_dump dump = {
	.process = { .pid = 4711,
		.start_real_ns = 1000000001,
		.name = S("python3"),
		.cmdline = cmdline,
		.exe = S("/usr/bin/python3.13"),
		.python = S("3.13.1"),
		.uid = 1000,
		.cgroup = S("/user.slice") },
	.threads = threads,
	.threads_n = ARRAY_SIZE(threads),
};

static void expect_keys(json_t *object, const char *keys) {
	char have[512] = "";
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value) {
		strcat(have, *have ? " " : "");
		strcat(have, key);
	}
	cr_assert_str_eq(have, keys);
}

Test(dump_text, reads_well) {
	_free_ char *text = pyspyd_dump_text(&dump, false);

	cr_assert_str_eq(text,
		"Process 4711: python3 app.py (Python 3.13.1)\n"
		"\n"
		"Thread 4711 (MainThread) [R, GIL]\n"
		"  Reader.parse (/srv/app/json.py:88)\n"
		"    text: builtins.str = '{}'\n"
		"    password: builtins.str = ***\n"
		"  <module> (/srv/app/app.py:3)\n"
		"\n"
		"Thread 4712 (worker-3) [S, waits for the GIL, collects garbage, interpreter 2]\n"
		"  <module> (/srv/app/app.py:3)\n"
		"  … (deeper than is read: the outermost calls are missing)\n"
		"\n"
		"Thread 4713 (idle) [S]\n"
		"  (no Python frames)\n");
}

Test(dump_text, colour_is_only_where_wanted) {
	_free_ char *plain = pyspyd_dump_text(&dump, false);
	_free_ char *coloured = pyspyd_dump_text(&dump, true);

	cr_assert_null(strchr(plain, '\x1b'));
	cr_assert_not_null(strstr(coloured, "\x1b[0m"));
}

Test(dump_text, json_has_the_schema_s_keys) {
	_free_ char *line = pyspyd_dump_json(&dump);
	json_t *root = json_loads(line, 0, NULL), *thread, *frame;

	cr_assert_not_null(root);
	cr_assert_null(strchr(line, '\n'));
	expect_keys(root, "schema process threads counters");
	cr_assert_str_eq(json_string_value(json_object_get(root, "schema")), "pyspyd.dump/1");
	expect_keys(
		json_object_get(root, "process"), "pid start_time name cmdline exe python uid cgroup container unit");
	cr_assert_str_eq(json_string_value(json_object_get(json_object_get(root, "process"), "start_time")),
		"1970-01-01T00:00:01.000000001Z");
	cr_assert(json_is_null(json_object_get(json_object_get(root, "process"), "unit")));
	thread = json_array_get(json_object_get(root, "threads"), 0);
	expect_keys(thread,
		"tid name role state cpu_percent holds waits_for stack ident gil in_gc interpreter "
		"truncated incomplete");
	cr_assert_eq(json_array_size(json_object_get(thread, "holds")), 1);
	cr_assert_eq(json_object_size(json_object_get(thread, "waits_for")), 0);
	frame = json_array_get(json_object_get(thread, "stack"), 0);
	expect_keys(frame, "lang function qualname file line module locals");
	expect_keys(json_array_get(json_object_get(thread, "stack"), 1), "lang function qualname file line module");
	expect_keys(json_array_get(json_object_get(frame, "locals"), 0), "name type value masked");
	cr_assert_eq(json_integer_value(json_object_get(json_object_get(root, "counters"), "frames")), 3);
	json_decref(root);
}

/* A dump with native frames. */
static struct pyspyd_frame merged[] = {
	{ .lang = PYSPYD_KERNEL, .function = S("futex_wait"), .file = S(""), .module = S("") },
	{ .lang = PYSPYD_KERNEL, .function = S("ext4_sync"), .file = S(""), .module = S("ext4") },
	{ .lang = PYSPYD_NATIVE,
		.function = S("copy"),
		.file = S("/src/copy.c"),
		.module = S("/usr/lib/libx.so.1"),
		.line = 7,
		.inlined = true },
	{ .lang = PYSPYD_NATIVE,
		.function = S("libx.so.1+0x12"),
		.file = S(""),
		.module = S("/usr/lib/libx.so.1"),
		.doubt = PYSPYD_DOUBT_FRAME_POINTER },
	{ .lang = PYSPYD_PYTHON, .function = S("f"), .file = S("a.py"), .line = 1, .doubt = PYSPYD_DOUBT_UNMATCHED },
	{ .lang = PYSPYD_NATIVE,
		.function = S("anonymous+0x7f12"),
		.file = S(""),
		.module = S(""),
		.doubt = PYSPYD_DOUBT_RECOVERED },
};
static struct pyspyd_thread merged_threads[] = {
	{ .tid = 1,
		.name = S("a"),
		.state = 'D',
		.frames = merged,
		.frames_n = ARRAY_SIZE(merged),
		.native = true,
		.native_end = "the next address is not in code",
		.disagree = true,
		.stopped_ns = 41500 },
	{ .tid = 2, .name = S("b"), .state = 'R', .interpreter = -1, .native = true, .native_end = "it runs" },
	{ .tid = 3, .name = S("c"), .state = 'S', .frames = merged, .frames_n = 1, .native = true },
};
static struct pyspyd_dump merged_dump = {
	.process = { .pid = 1, .name = S("x"), .python = S("3.13.1") },
	.threads = merged_threads,
	.threads_n = ARRAY_SIZE(merged_threads),
};

Test(dump_text, native_frames_say_whose_they_are_and_what_is_in_doubt) {
	_free_ char *text = pyspyd_dump_text(&merged_dump, false);

	cr_assert_str_eq(text,
		"Process 1: x (Python 3.13.1)\n"
		"\n"
		"Thread 1 (a) [D]\n"
		"  futex_wait [kernel]\n"
		"  ext4_sync [kernel ext4]\n"
		"  copy (/src/copy.c:7) [libx.so.1] inlined\n"
		"  libx.so.1+0x12 [libx.so.1] (its caller by frame pointer alone)\n"
		"  f (a.py:1) (its place is a guess)\n"
		"  anonymous+0x7f12 (its caller is inferred)\n"
		"  … (native frames end here: the next address is not in code)\n"
		"  … (native and Python frames do not agree)\n"
		"\n"
		"Thread 2 (b) [R, not Python's]\n"
		"  … (no native frames: it runs)\n"
		"\n"
		"Thread 3 (c) [S]\n"
		"  futex_wait [kernel]\n");
}

Test(dump_text, json_of_native_frames) {
	_free_ char *line = pyspyd_dump_json(&merged_dump);
	json_t *root = json_loads(line, 0, NULL), *thread, *stack, *native;

	cr_assert_not_null(root);
	thread = json_array_get(json_object_get(root, "threads"), 0);
	stack = json_object_get(thread, "stack");
	cr_assert_str_eq(json_string_value(json_object_get(json_array_get(stack, 0), "lang")), "kernel");
	expect_keys(json_array_get(stack, 2), "lang function qualname file line module inlined");
	expect_keys(json_array_get(stack, 3), "lang function qualname file line module doubt");
	cr_assert_str_eq(json_string_value(json_object_get(json_array_get(stack, 4), "doubt")), "unmatched");
	native = json_object_get(thread, "native");
	expect_keys(native, "complete why agrees stopped_us");
	cr_assert(json_is_false(json_object_get(native, "complete")));
	cr_assert(json_is_false(json_object_get(native, "agrees")));
	cr_assert_float_eq(json_number_value(json_object_get(native, "stopped_us")), 41.5, 1e-9);
	thread = json_array_get(json_object_get(root, "threads"), 1);
	cr_assert(json_is_null(json_object_get(thread, "interpreter")));
	native = json_object_get(json_array_get(json_object_get(root, "threads"), 2), "native");
	cr_assert(json_is_true(json_object_get(native, "complete")));
	cr_assert(json_is_null(json_object_get(native, "why")));
	expect_keys(json_object_get(root, "counters"), "threads frames truncated incomplete disagree stopped_max_us");
	json_decref(root);
}

Test(dump_text, hostile_names_steer_nothing) {
	char long_name[10001];
	struct pyspyd_frame frame = { .function = S("\x1b]0;owned\x07"), .file = S("a\nb\xff.py"), .line = 1 };
	struct pyspyd_thread thread = { .tid = 1, .name = long_name, .state = '\x1b', .frames = &frame, .frames_n = 1 };
	struct pyspyd_dump hostile = { .threads = &thread, .threads_n = 1 };
	_free_ char *text = NULL, *line = NULL;
	json_t *root;

	/* CSI as one C1 character, and a three-byte character that the cut would split. */
	memset(long_name, 'x', 10000);
	long_name[10000] = '\0';
	memcpy(long_name, "\xc2\x9b\xe2\x80\xae\x7f", 6);
	memcpy(long_name + 254, "\xe2\x82\xac", 3);
	text = pyspyd_dump_text(&hostile, false);
	line = pyspyd_dump_json(&hostile);
	cr_assert_not_null(text);
	cr_assert_lt(strlen(text), 1000);
	for (const char *c = text; *c; c++)
		cr_assert(*c == '\n' || ((unsigned char)*c >= 0x20 && *c != 0x7f));
	cr_assert_null(strstr(text, "\xc2\x9b"));
	cr_assert_not_null(strstr(text, "…"));
	for (const char *c = line; *c; c++)
		cr_assert((unsigned char)*c >= 0x20 && *c != 0x7f);
	cr_assert_null(strstr(line, "\xc2\x9b"));
	cr_assert_null(strstr(line, "\xe2\x80\xae"));
	root = json_loads(line, 0, NULL);
	cr_assert_not_null(root);
	thread.name[0] = '\0';
	cr_assert_eq(
		strlen(json_string_value(json_object_get(json_array_get(json_object_get(root, "threads"), 0), "name"))),
		10000);
	json_decref(root);
}

Test(dump_text, an_empty_dump_is_written_too) {
	struct pyspyd_dump empty = { 0 };
	_free_ char *text = pyspyd_dump_text(&empty, true);
	_free_ char *line = pyspyd_dump_json(&empty);

	cr_assert_not_null(text);
	cr_assert_not_null(line);
}

Test(dump_text, ps_json_has_the_process_s_bones) {
	struct pyspyd_ps_row rows[2] = { 0 };
	_free_ char *line = NULL;
	json_t *root, *row;

	rows[0] = (struct pyspyd_ps_row){ .process = dump.process,
		.user = S("root"),
		.cpu_percent = 12.3456,
		.rss_bytes = 1 << 20,
		.threads = 3,
		.fds = UINT64_MAX,
		.findings_open = UINT64_MAX,
		.attachable = true };
	line = pyspyd_ps_json(rows, 2);
	root = json_loads(line, 0, NULL);
	cr_assert_not_null(root);
	expect_keys(root, "schema processes");
	row = json_array_get(json_object_get(root, "processes"), 0);
	expect_keys(row,
		"pid start_time name cmdline exe python uid cgroup container unit user cpu_percent rss_bytes "
		"threads fds attachable why_not findings_open");
	cr_assert(json_is_null(json_object_get(row, "fds")));
	cr_assert(json_is_null(json_object_get(row, "findings_open")));
	cr_assert_float_eq(json_real_value(json_object_get(row, "cpu_percent")), 12.346, 1e-9);
	json_decref(root);
}

Test(dump_text, freeing_takes_null_and_half_built) {
	struct pyspyd_dump *half = calloc(1, sizeof(*half));
	struct pyspyd_process process = { 0 };

	half->threads = calloc(2, sizeof(*half->threads));
	half->threads_n = 2;
	half->threads[1].frames = calloc(1, sizeof(struct pyspyd_frame));
	half->threads[1].frames_n = 1;
	half->threads[1].frames[0].locals = calloc(1, sizeof(struct pyspyd_local));
	half->threads[1].frames[0].locals_n = 1;
	pyspyd_dump_free(half);
	pyspyd_dump_free(NULL);
	pyspyd_threads_free(NULL, 3);
	pyspyd_frames_free(NULL, 3);
	pyspyd_ps_free(NULL, 3);
	pyspyd_process_deinit(&process);
	pyspyd_process_deinit(NULL);
}

/* What a snapshot says of the objects behind the variables. */

#define DOCUMENT(function, rest) \
	"{\"schema\":\"pyspyd.objects/1\",\"threads\":[{\"tid\":4711,\"frames\":[" \
	"{\"function\":\"" function "\",\"variables\":[{\"name\":\"text\",\"type\":\"Text\",\"value\":\"<Text>\"," \
	"\"masked\":false,\"object\":\"0x20\"}]},{\"function\":\"<module>\",\"variables\":[]}]}]," rest \
	",\"truncated\":false}"
#define ENTRY(name, value, object) \
	"{\"name\":\"" name "\",\"type\":\"T\",\"value\":\"" value "\",\"masked\":false,\"object\":" object "}"
/* 0x20 has itself as an attribute, and 0x10, whose items are plain. */
#define OBJECTS \
	"\"objects\":[{\"object\":\"0x20\",\"type\":\"Text\",\"attributes\":[" ENTRY( \
		"me", "<Text>", "\"0x20\"") "," ENTRY("li\\u001bst", "[1]", \
		"\"0x10\"") "],\"items\":[],\"more\":true}," \
			    "{\"object\":\"0x10\",\"type\":\"list\",\"attributes\":[]," \
			    "\"items\":[" ENTRY("0", "1", "null") "],\"more\":false}]"

static char *text_with_objects(const char *json) {
	struct pyspyd_dump with = dump;
	char *text;

	cr_assert_eq(pyspyd_objects_of_json(json, strlen(json), &with.objects, NULL), 0);
	text = pyspyd_dump_text(&with, false);
	cr_assert(text);
	pyspyd_objects_free(with.objects);
	return text;
}

Test(dump_text, objects) {
	static const char tree[] = "    text: builtins.str = '{}'\n"
				   "      .me: T = <Text> (above)\n"
				   "      .li\\x1bst: T = [1]\n"
				   "      …\n"
				   "    password";
	_free_ char *text = text_with_objects(DOCUMENT("Reader.parse", OBJECTS)),
		    *plain = pyspyd_dump_text(&dump, false);
	_free_ char *other = text_with_objects(DOCUMENT("Reader.other", OBJECTS));

	cr_assert(strstr(text, tree), "%s", text);
	cr_assert_str_eq(other, plain, "of another stack, nothing is shown");
}

Test(dump_text, objects_are_bounded) {
	struct pyspyd_object_entry variable = { .name = S("text"), .type = S("T"), .value = S("1"), .object = 1 };
	struct pyspyd_object_frame seen = { .function = S("Reader.parse"), .variables = &variable, .variables_n = 1 };
	struct pyspyd_object_frame both[] = { seen, { .function = S("<module>") } };
	struct pyspyd_object_thread thread = { .tid = 4711, .frames = both, .frames_n = 2 };
	struct pyspyd_object many[100];
	struct pyspyd_object_entry step = { .name = S("n"), .type = S("T"), .value = S("1") }, next[100];
	struct pyspyd_objects objects = { .threads = &thread, .threads_n = 1, .objects = many, .objects_n = 100 };
	struct pyspyd_dump with = dump;
	_free_ char *text = NULL;
	size_t lines = 0;

	for (size_t i = 0; i < 100; i++) {
		next[i] = step;
		next[i].object = i + 1;
		many[i] = (struct pyspyd_object){ .address = i + 1, .attributes = next, .attributes_n = 100 };
	}
	with.objects = &objects;
	text = pyspyd_dump_text(&with, false);
	for (const char *at = text; (at = strstr(at, "\n      ")); at++)
		lines++;
	cr_assert_eq(lines, 16, "%s", text);
	cr_assert(strstr(text, "…\n    password"), "%s", text);
}

Test(dump_text, objects_that_are_none) {
	static const char *const wrong[] = { "{}", "[]", DOCUMENT("f", "\"objects\":1"),
		DOCUMENT("f", "\"objects\":[{\"object\":\"0x10\"}]") };
	struct pyspyd_objects *objects;
	struct err err = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		cr_assert_eq(pyspyd_objects_of_json(wrong[i], strlen(wrong[i]), &objects, &err), -EBADMSG, "%zu", i);
}
