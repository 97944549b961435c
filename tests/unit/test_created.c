/* SPDX-License-Identifier: MIT */
/* Things that were seen to be made, grouped by place; and how places are told. */
#include "engine/leaks/created.h"

#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define S(text) ((char *)(uintptr_t)(text)) /* nobody writes into it */

static struct created_thing fd(uint64_t id, const char *kind, const char *call, size_t stack, uint64_t age_ns) {
	return (struct created_thing){
		.what = PYSPYD_HANDLE_DESCRIPTOR, .kind = kind, .call = call, .id = id, .stack = stack, .age_ns = age_ns
	};
}

static struct created_thing mapping(uint64_t id, uint64_t bytes, size_t stack) {
	return (struct created_thing){
		.what = PYSPYD_HANDLE_MAPPING, .kind = "file", .call = "mmap", .id = id, .bytes = bytes, .stack = stack
	};
}

Test(created, one_place_is_a_stack_a_call_and_a_kind) {
	created_things things = { 0 };
	struct pyspyd_origin *places;
	size_t *stacks, n;

	vec_push(&things, fd(9, "socket", "socket", 5, 30));
	vec_push(&things, fd(4, "file", "open", 2, 10));
	vec_push(&things, fd(7, "socket", "socket", 5, 20));
	vec_push(&things, fd(8, "socket", "accept", 5, 1));
	vec_push(&things, fd(3, "file", "open", CREATED_NO_STACK, 1));
	vec_push(&things, fd(12, "socket", "socket", 5, 25));
	vec_push(&things, fd(5, "file", "open", 2, 40));
	vec_push(&things, mapping(0x7000, 4096, 5));
	cr_assert_eq(created_places(&things, &places, &stacks, &n), 0);
	cr_assert_eq(n, 5);
	cr_assert_str_eq(places[0].kind, "socket");
	cr_assert_eq(places[0].count, 3);
	cr_assert_eq(stacks[0], 5);
	cr_assert_eq(places[0].ids_n, 3);
	cr_assert_eq(places[0].ids[0], 7);
	cr_assert_eq(places[0].ids[2], 12);
	cr_assert_eq(places[0].youngest_ns, 20);
	cr_assert_eq(places[0].oldest_ns, 30);
	cr_assert_float_eq(places[0].share, 3.0 / 7, 1e-9);
	cr_assert_eq(stacks[1], 2);
	cr_assert_eq(places[1].count, 2);
	cr_assert_eq(places[4].what, PYSPYD_HANDLE_MAPPING);
	cr_assert_eq(places[4].bytes, 4096);
	cr_assert_eq(places[4].ids_n, 0);
	cr_assert_float_eq(places[4].share, 1, 1e-9);
	for (size_t i = 0; i < things.n; i++) {
		cr_assert_eq(stacks[things.items[i].origin], things.items[i].stack);
		cr_assert_str_eq(places[things.items[i].origin].call, things.items[i].call);
		cr_assert(!i || things.items[i - 1].what < things.items[i].what ||
				things.items[i - 1].id < things.items[i].id,
			"by what and id");
	}
	pyspyd_origin_places_free(places, n);
	free(stacks);
	vec_free(&things);
}

Test(created, of_nothing_there_are_no_places) {
	created_things things = { 0 };
	struct pyspyd_origin *places;
	size_t *stacks, n = 7;

	cr_assert_eq(created_places(&things, &places, &stacks, &n), 0);
	cr_assert_eq(n, 0);
	pyspyd_origin_places_free(places, n);
	free(stacks);
}

/* A library: room for the whole file, then its parts over it. */
Test(created, no_address_counts_twice) {
	created_things things = { 0 };
	uint64_t sum = 0;

	vec_push(&things, mapping(0x10000, 0x8000, 1));
	vec_push(&things, mapping(0x12000, 0x3000, 1));
	vec_push(&things, mapping(0x15000, 0x1000, 1));
	vec_push(&things, mapping(0x40000, 0x1000, 2));
	created_cut_mappings(&things);
	cr_assert_eq(things.items[0].bytes, 0x2000);
	for (size_t i = 0; i < things.n; i++)
		sum += things.items[i].bytes;
	cr_assert_eq(sum, 0x2000 + 0x3000 + 0x1000 + 0x1000);
	vec_free(&things);
}

static struct pyspyd_frame frame(const char *module, const char *file) {
	return (struct pyspyd_frame){
		.function = S("f"), .qualname = S("f"), .file = S(file), .module = S(module), .line = 1
	};
}

Test(created, the_program_s_own_frame) {
	struct pyspyd_frame frames[] = {
		frame("socket", "/opt/py/lib/python3.13/socket.py"),
		frame("", "/usr/lib/python3.11/whatever.py"),
		frame("importlib._bootstrap", "<frozen importlib._bootstrap>"),
		frame("socketry", "/srv/socketry.py"),
		frame("__main__", "/srv/app.py"),
	};

	cr_assert_eq(created_own_frame(frames, 5), 3);
	cr_assert_eq(created_own_frame(frames, 3), 0);
	cr_assert_eq(created_own_frame(frames, 0), 0);
	frames[0] = frame("urllib3.connection", "/venv/lib/python3.13/site-packages/urllib3/connection.py");
	cr_assert_eq(created_own_frame(frames, 5), 0);
	frames[0] = frame("requests", "/usr/lib/python3/dist-packages/requests.py");
	cr_assert_eq(created_own_frame(frames, 5), 0);
}

static struct pyspyd_frame stack[] = {
	{ .function = S("socket"),
		.qualname = S("socket"),
		.file = S("/lib/socket.py"),
		.module = S("socket"),
		.line = 9 },
	{ .function = S("connect"),
		.qualname = S("Pool.connect"),
		.file = S("/srv/a\n.py"),
		.module = S("a"),
		.line = 33 },
};
static struct pyspyd_origin places[] = {
	{ .what = PYSPYD_HANDLE_DESCRIPTOR,
		.kind = "socket",
		.call = "socket",
		.count = 412,
		.share = 0.99,
		.youngest_ns = 100000000,
		.oldest_ns = 9800000000,
		.ids = { 7, 8, 9, 10, 11 },
		.ids_n = 5,
		.frames = stack,
		.frames_n = 2,
		.own = 1 },
	{ .what = PYSPYD_HANDLE_DESCRIPTOR,
		.kind = "directory",
		.call = "open",
		.count = 2,
		.share = 0.01,
		.oldest_ns = 1000000000,
		.ids = { 5, 6 },
		.ids_n = 2 },
	{ .what = PYSPYD_HANDLE_CHILD,
		.kind = "zombie",
		.call = "fork",
		.count = 1,
		.share = 1,
		.ids = { 77 },
		.ids_n = 1 },
	{ .what = PYSPYD_HANDLE_MAPPING, .kind = "file", .call = "mmap", .count = 1, .bytes = 3 << 19, .share = 1 },
};
static struct pyspyd_made made[] = {
	{ .what = PYSPYD_HANDLE_DESCRIPTOR, .id = 7, .age_ns = 9800000000 },
	{ .what = PYSPYD_HANDLE_MAPPING, .id = 0x7f0000000000, .bytes = 3 << 19, .origin = 3 },
};
static char *cmdline[] = { S("python3"), S("app.py"), NULL };

static char *text_of(struct pyspyd_origins *origins) {
	const struct pyspyd_handles handles = {
		.process = { .pid = 4711, .name = S("python3"), .cmdline = cmdline, .python = S("3.13.1") },
		.cgroup = { .memory_bytes = UINT64_MAX,
			.tasks = UINT64_MAX,
			.periods = UINT64_MAX,
			.memory_some_pct = -1 },
		.origins = origins,
	};

	return pyspyd_handles_text(&handles, false);
}

static void expect_begin(struct pyspyd_origins *origins, const char *expected) {
	_free_ char *text = text_of(origins);
	const char *begin = strstr(text, "\n\n"), *end = strstr(text, "\nDescriptors: ");

	cr_assert(begin && end);
	text[end - text] = '\0';
	cr_assert_str_eq(begin + 2, expected);
}

Test(created, reads_well) {
	struct pyspyd_origins origins = { .watched_ns = 10000000000,
		.left_out = 12,
		.paused_ns = 3500000000,
		.places = places,
		.places_n = ARRAY_SIZE(places),
		.made = made,
		.made_n = ARRAY_SIZE(made),
		.unseen = { 5, 1, 0, 120 } };

	expect_begin(&origins,
		"Made in 10.0 s, and still there:\n"
		"  412 sockets by socket, at Pool.connect (a\\x0a.py:33)  [7, 8, 9, 10, …], 0.1 s to 9.8 s old\n"
		"      socket (/lib/socket.py:9)\n"
		"    > Pool.connect (/srv/a\\x0a.py:33)\n"
		"  2 directories by open, by native code  [5, 6], 0.0 s to 1.0 s old\n"
		"  1 child by fork, by native code  [77], 0.0 s old\n"
		"  1 file mapping, 1.5 MiB, by mmap, by native code  0.0 s old\n"
		"  Not seen to be made, so older: 5 descriptors, 1 thread, 120 mappings\n"
		"  12 were made too fast to look where, so as not to slow the process: not all of those are older\n"
		"  Nothing was seen for 3.5 s of it: there were so many system calls that it would have slowed them "
		"too much\n");
	origins = (struct pyspyd_origins){ .watched_ns = 1000000000 };
	expect_begin(&origins, "Made in 1.0 s, and still there:\n  nothing\n");
	origins = (struct pyspyd_origins){ .why = S("not permitted\x1b") };
	expect_begin(&origins, "Where things are made was not seen: not permitted\\x1b\n");
}

Test(created, json) {
	struct pyspyd_origins origins = { .watched_ns = 10000000000,
		.places = places,
		.places_n = ARRAY_SIZE(places),
		.made = made,
		.made_n = ARRAY_SIZE(made),
		.unseen = { 5, 1, 0, 120 } };
	const struct pyspyd_handles handles = { .process = { .pid = 1, .name = S("x"), .cmdline = cmdline },
		.origins = &origins };
	_free_ char *text = pyspyd_handles_json(&handles);
	json_t *json = json_loads(text, 0, NULL), *object, *first, *one;

	cr_assert(json);
	object = json_object_get(json, "origins");
	cr_assert_float_eq(json_real_value(json_object_get(object, "watched_s")), 10, 1e-9);
	cr_assert(json_is_null(json_object_get(object, "why_not")));
	cr_assert_eq(json_integer_value(json_object_get(json_object_get(object, "unseen"), "mapping")), 120);
	first = json_array_get(json_object_get(object, "places"), 0);
	cr_assert_eq(json_integer_value(json_object_get(first, "count")), 412);
	cr_assert_eq(json_integer_value(json_object_get(first, "own")), 1);
	cr_assert_eq(json_array_size(json_object_get(first, "stack")), 2);
	cr_assert(json_is_null(json_object_get(json_array_get(json_object_get(object, "places"), 1), "own")));
	one = json_array_get(json_object_get(object, "made"), 1);
	cr_assert_str_eq(json_string_value(json_object_get(one, "what")), "mapping");
	cr_assert_eq(json_integer_value(json_object_get(one, "id")), 0x7f0000000000);
	cr_assert_eq(json_integer_value(json_object_get(one, "place")), 3);
	json_decref(json);
}
