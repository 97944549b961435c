/* SPDX-License-Identifier: MIT */
/* What people and programs read of a heap: tables and JSON of the same numbers. */
#include "pyspyd/heap.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define S(s) ((char *)(uintptr_t)(s)) /* nobody writes to them */

static struct pyspyd_heap_type types[] = {
	{ .type = S("app.Order"),
		.count = 300000,
		.bytes = 28835840,
		.grew_count = 1200,
		.grew_bytes = 115200,
		.kept_by = S("app.ORDERS"),
		.kept_share = 1 },
	{ .type = S("dict"),
		.count = 10,
		.bytes = 640,
		.grew_count = -3,
		.grew_bytes = -192,
		.kept_by = S("app.\nX"),
		.kept_share = 0.5 },
	{ .type = S("str"), .count = 1, .bytes = 50 },
};

static struct pyspyd_heap_container containers[] = {
	{ .path = S("app.ORDERS"),
		.type = S("list"),
		.address = 0x7f00,
		.length = 300000,
		.bytes = 2621440,
		.grew = 1200 },
	{ .type = S("dict"), .address = 0x7f10, .length = 64, .bytes = 4096, .is_new = true },
};

static struct pyspyd_heap_line lines[] = {
	{ .file = S("/srv/app.py"), .line = 12, .count = 7, .bytes = 2048, .grew_count = 1, .grew_bytes = 1024 },
};

static struct pyspyd_heap_mapping mappings[] = {
	{ .name = S("[heap]"), .mappings = 1, .bytes = 4096, .grew_mappings = 0, .grew_bytes = 4096 },
};

static struct pyspyd_heap heap_of(uint64_t between_ns) {
	static char *cmdline[] = { S("python3"), S("app.py"), NULL };

	return (struct pyspyd_heap){
		.process = { .pid = 4711, .name = S("python3"), .cmdline = cmdline, .python = S("3.13.1") },
		.types = types,
		.types_n = 3,
		.types_all = 5,
		.containers = containers,
		.containers_n = 2,
		.lines = lines,
		.lines_n = 1,
		.mappings = mappings,
		.mappings_n = 1,
		.objects = 300011,
		.object_bytes = 28836530,
		.grew_objects = 1197,
		.grew_bytes = 115008,
		.between_ns = between_ns,
	};
}

static void check_has(const char *text, const char *part) {
	cr_assert(strstr(text, part), "\"%s\" is not in:\n%s", part, text);
}

Test(heap_text, says_who_keeps_what) {
	struct pyspyd_heap heap = heap_of(0);
	char *text = pyspyd_heap_text(&heap, false);

	check_has(text, "Process 4711: python3 app.py (Python 3.13.1)");
	check_has(text, "app.Order, in app.ORDERS\n");
	check_has(text, "dict, 50 % in app.\\x0aX\n");
	check_has(text, "str\n");
	check_has(text, "list app.ORDERS\n");
	check_has(text, "dict 0x7f10\n");
	check_has(text, "… and 2 more types");
	check_has(text, "/srv/app.py:12\n");
	check_has(text, "[heap]\n");
	cr_assert(!strstr(text, "GREW"));
	free(text);
}

Test(heap_text, says_what_grew) {
	struct pyspyd_heap heap = heap_of(2500000000);
	char *text = pyspyd_heap_text(&heap, false);

	check_has(text, "in 2.5 s: +1,197 objects, +112.3 KiB");
	check_has(text, "    +1,200  +112.5 KiB     300,000    27.5 MiB  app.Order, in app.ORDERS");
	check_has(text, "        -3      -192 B          10       640 B  dict");
	check_has(text, "       new          64     4.0 KiB  dict 0x7f10");
	check_has(text, "  +1.0 KiB           7     2.0 KiB  /srv/app.py:12");
	free(text);
}

Test(heap_text, json_has_signs_only_for_two_counts) {
	struct pyspyd_heap heap = heap_of(0);
	char *once = pyspyd_heap_json(&heap), *twice;
	json_t *a, *b;

	heap.between_ns = 1000000000;
	twice = pyspyd_heap_json(&heap);
	a = json_loads(once, 0, NULL);
	b = json_loads(twice, 0, NULL);
	cr_assert(a && b);
	cr_assert_str_eq(json_string_value(json_object_get(a, "schema")), "pyspyd.heap/1");
	cr_assert(json_is_null(json_object_get(json_array_get(json_object_get(a, "types"), 0), "grew_count")));
	cr_assert_eq(
		json_integer_value(json_object_get(json_array_get(json_object_get(b, "types"), 1), "grew_count")), -3);
	cr_assert_str_eq(json_string_value(json_object_get(json_array_get(json_object_get(a, "types"), 0), "kept_by")),
		"app.ORDERS");
	cr_assert(json_is_null(json_object_get(json_array_get(json_object_get(a, "types"), 2), "kept_share")));
	cr_assert_eq(json_integer_value(json_object_get(json_array_get(json_object_get(b, "lines"), 0), "grew_bytes")),
		1024);
	cr_assert_eq(
		json_integer_value(json_object_get(json_array_get(json_object_get(b, "mappings"), 0), "bytes")), 4096);
	json_decref(a);
	json_decref(b);
	free(once);
	free(twice);
}
