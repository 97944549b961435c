/* SPDX-License-Identifier: MIT */
/* Paths from the roots in images of each version: how they are written, which is preferred, limits, and targets that
 * lie. What real programs hold is compared by tests/live/roots_oracle.sh. */
#include "engine/leaks/roots.h"

#include "engine/cpython/objects.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>
#include <string.h>

#define READY (1UL << 12)
#define HEAP (1UL << 9)
#define LIST (1UL << 25)
#define OF_CLASSES (1UL << 31)
#define TYPE_BYTES 1024
#define MODULES_MAX 4

struct app {
	struct image *img;
	struct root_map *map;
	raddr names[MODULES_MAX], modules[MODULES_MAX];
	size_t n;
	raddr list_type, meta;
};

static raddr make_type(struct image *img, const char *name, uint64_t flags) {
	raddr type = image_take(img, TYPE_BYTES), text = image_take(img, 64);

	image_put(img, text, name, strlen(name) + 1);
	image_put_u64(img, type + img->l->type_name, text);
	image_put_u64(img, type + img->l->type_flags, flags | READY);
	image_put_u64(img, type + img->l->type_basicsize, img->l->object_size);
	return type;
}

static void open_app(struct app *app, struct image *img) {
	*app = (struct app){ .img = img };
	for (enum image_type t = 0; t < IMAGE_TYPES; t++) {
		raddr flags = image_type_at(t) + img->l->type_flags;

		image_put_u64(img, flags, image_u64(img, flags) | READY);
	}
	app->list_type = make_type(img, "list", LIST);
	app->meta = make_type(img, "type", OF_CLASSES);
}

static void close_app(struct app *app) {
	root_map_free(app->map);
	app->map = NULL;
}

static raddr object_of(struct app *app, raddr type, size_t bytes) {
	raddr at = image_take(app->img, max_of(bytes, (size_t)512));

	image_put_u64(app->img, at + app->img->l->object_type, type);
	return at;
}

/* An object with these attributes. */
static raddr plain(struct app *app, const char *const *names, const raddr *values, size_t n) {
	raddr at = object_of(app, image_type_at(T_PLAIN), 64), keys[8];

	for (size_t i = 0; i < n; i++)
		keys[i] = image_text(app->img, names[i]);
	image_put_u64(app->img, at + 32, image_dict(app->img, keys, values, n));
	return at;
}

static raddr thing(struct app *app) {
	return plain(app, NULL, NULL, 0);
}

static raddr list(struct app *app, const raddr *items, size_t n) {
	raddr at = object_of(app, app->list_type, 64), table = image_take(app->img, n * 8);

	for (size_t i = 0; i < n; i++)
		image_put_u64(app->img, table + i * 8, items[i]);
	image_put_u64(app->img, at + app->img->l->var_size, n);
	image_put_u64(app->img, at + app->img->l->list_items, table);
	return at;
}

/* A module in sys.modules, also where its dict is wanted as the module's own. */
static void add_module(struct app *app, const char *name, const char *const *names, const raddr *values, size_t n) {
	struct image *img = app->img;

	app->names[app->n] = image_text(img, name);
	app->modules[app->n] = plain(app, names, values, n);
	if (img->l->module_dict != 32)
		image_put_u64(
			img, app->modules[app->n] + img->l->module_dict, image_u64(img, app->modules[app->n] + 32));
	app->n++;
	image_put_u64(img, img->interp + img->l->interp_modules, image_dict(img, app->names, app->modules, app->n));
}

static void build(struct app *app, const struct root_limits *limits) {
	close_app(app);
	cr_assert_eq(root_map_build(&app->img->rt, limits, &app->map), 0, "%x", app->img->rt.reader.version);
}

static void expect(struct app *app, raddr object, const char *path) {
	_cleanup_(strbuf_deinit) struct strbuf out = { 0 };
	int r = root_map_path(app->map, object, &out);

	cr_assert_eq(r, path ? 0 : PY_E_TYPE, "%x: %s: result %d", app->img->rt.reader.version, path, r);
	cr_assert_str_eq(strbuf_str(&out), path ? path : "", "%x", app->img->rt.reader.version);
	cr_assert_eq(root_map_has(app->map, object, NULL), path != NULL);
}

static void expect_step(struct app *app, raddr from, raddr to, const char *step) {
	_cleanup_(strbuf_deinit) struct strbuf out = { 0 };

	cr_assert_eq(root_step(&app->img->rt, from, to, &out), 0);
	cr_assert_str_eq(strbuf_str(&out), step, "%x", app->img->rt.reader.version);
}

static void check_paths(struct image *img) {
	struct app app;
	raddr word, number, pair, items, inner, holder, attributes;
	unsigned steps = 77;

	open_app(&app, img);
	word = image_text(img, "it's\x1b");
	number = image_long(img, -7);
	pair = image_tuple(img, (raddr[]){ thing(&app), thing(&app) }, 2);
	items = list(&app, (raddr[]){ pair }, 1);
	inner = image_dict(img, (raddr[]){ word, number, pair }, (raddr[]){ items, thing(&app), thing(&app) }, 3);
	holder = plain(&app, (const char *[]){ "inner" }, &inner, 1);
	add_module(&app, "pkg.mod", (const char *[]){ "HOLDER" }, &holder, 1);
	build(&app, NULL);
	cr_assert(!root_map_is_incomplete(app.map));
	attributes = image_u64(img, holder + 32);
	expect(&app, app.modules[0], "pkg.mod");
	expect(&app, holder, "pkg.mod.HOLDER");
	expect(&app, attributes, "pkg.mod.HOLDER.__dict__");
	expect(&app, inner, "pkg.mod.HOLDER.inner");
	expect(&app, items, "pkg.mod.HOLDER.inner['it\\'s\\x1b']");
	expect(&app, image_u64(img, pair + img->l->tuple_items + 8), "pkg.mod.HOLDER.inner['it\\'s\\x1b'][0][1]");
	expect(&app, thing(&app), NULL);
	cr_assert(root_map_has(app.map, inner, &steps) && steps == 2);
	cr_assert(root_map_has(app.map, attributes, &steps) && steps == 1);
	expect_step(&app, holder, inner, ".inner");
	expect_step(&app, holder, attributes, ".__dict__");
	expect_step(&app, attributes, inner, "['inner']");
	expect_step(&app, items, pair, "[0]");
	expect_step(&app, items, holder, "");
	close_app(&app);
}

Test(roots, are_written_as_python_does) {
	image_each(check_paths);
}

static void check_keys(struct image *img) {
	struct app app;
	raddr number, pair, values[2], config;

	open_app(&app, img);
	number = image_long(img, -7);
	pair = image_tuple(img, NULL, 0);
	values[0] = thing(&app);
	values[1] = thing(&app);
	config = image_dict(img, (raddr[]){ number, pair }, values, 2);
	add_module(&app, "app", (const char *[]){ "CONFIG" }, &config, 1);
	build(&app, NULL);
	expect(&app, values[0], "app.CONFIG[-7]");
	expect(&app, values[1], "app.CONFIG[…]");
	image_put_u64(img, number + img->l->object_type, IMAGE_NOWHERE); /* freed since */
	expect(&app, values[0], "app.CONFIG[…]");
	close_app(&app);
}

Test(roots, writes_keys_that_are_no_names) {
	image_each(check_keys);
}

static void check_script(struct image *img) {
	struct app app;
	raddr values[2];

	open_app(&app, img);
	values[0] = thing(&app);
	values[1] = image_text(img, "/srv/app/serve.py");
	add_module(&app, "__main__", (const char *[]){ "STATE", "__file__" }, values, 2);
	build(&app, NULL);
	expect(&app, values[0], "serve.STATE");
	image_put_u64(img, app.modules[0] + 32, image_dict(img, (raddr[]){ image_text(img, "STATE") }, values, 1));
	build(&app, NULL);
	expect(&app, values[0], "__main__.STATE");
	close_app(&app);
}

Test(roots, names_the_script_by_its_file) {
	image_each(check_script);
}

static void check_origin(struct image *img) {
	static const char *const names[] = { "__name__", "__file__", "Klass" };
	struct app app;
	raddr klass, kept, first, second;

	open_app(&app, img);
	first = image_text(img, "aa");
	second = image_text(img, "bb");
	kept = thing(&app);
	klass = make_type(img, "Klass", HEAP);
	image_put_u64(img, klass + img->l->object_type, app.meta);
	image_put_u64(img, klass + img->l->type_dict,
		image_dict(img, (raddr[]){ image_text(img, "__module__"), image_text(img, "kept") },
			(raddr[]){ second, kept }, 2));
	add_module(&app, "aa", names, (raddr[]){ first, image_text(img, "/srv/aa.py"), klass }, 3);
	add_module(&app, "bb", names, (raddr[]){ second, image_text(img, "/srv/bb.py"), klass }, 3);
	build(&app, NULL);
	expect(&app, klass, "bb.Klass");
	expect(&app, kept, "bb.Klass.kept");
	close_app(&app);
}

Test(roots, prefers_the_module_that_defines_a_class) {
	image_each(check_origin);
}

static void check_order(struct image *img) {
	static const char *const names[] = { "__file__", "shared" };
	struct app app;
	raddr shared;

	open_app(&app, img);
	shared = thing(&app);
	add_module(&app, "lib", names, (raddr[]){ image_text(img, "/usr/lib/python3.11/lib.py"), shared }, 2);
	add_module(
		&app, "pkg", names, (raddr[]){ image_text(img, "/usr/lib/python3/dist-packages/pkg.py"), shared }, 2);
	build(&app, NULL);
	expect(&app, shared, "pkg.shared");
	add_module(&app, "own", names, (raddr[]){ image_text(img, "/srv/own.py"), shared }, 2);
	build(&app, NULL);
	expect(&app, shared, "own.shared");
	close_app(&app);
}

Test(roots, prefers_the_modules_of_the_program) {
	image_each(check_order);
}

static void check_limits(struct image *img) {
	struct app app;
	raddr chain[ROOT_DEPTH + 3], end, items;

	open_app(&app, img);
	end = chain[0] = thing(&app);
	for (size_t i = 1; i < ARRAY_SIZE(chain); i++)
		end = chain[i] = list(&app, &end, 1);
	add_module(&app, "app", (const char *[]){ "deep" }, &end, 1);
	build(&app, NULL);
	expect(&app, chain[3], "app.deep[0][0][0][0][0]"); /* six steps */
	expect(&app, chain[2], NULL);
	build(&app, &(struct root_limits){ .depth = 2 });
	expect(&app, chain[ROOT_DEPTH + 1], "app.deep[0]");
	expect(&app, chain[ROOT_DEPTH], NULL);
	build(&app, &(struct root_limits){ .objects = 3 });
	cr_assert_eq(root_map_count(app.map), 3);
	cr_assert(root_map_is_incomplete(app.map));
	build(&app, &(struct root_limits){ .until_ns = 1 });
	cr_assert(root_map_is_incomplete(app.map));
	items = image_take(img, (ROOT_ITEMS + 1) * 8);
	image_put_u64(img, items, chain[0]);
	image_put_u64(img, end + img->l->list_items, items);
	image_put_u64(img, end + img->l->var_size, ROOT_ITEMS);
	expect_step(&app, end, chain[0], "[0]");
	image_put_u64(img, end + img->l->var_size, ROOT_ITEMS + 1);
	expect_step(&app, end, chain[0], "[…]");
	build(&app, NULL);
	expect(&app, chain[0], NULL);
	close_app(&app);
}

Test(roots, keeps_its_limits) {
	image_each(check_limits);
}

/* Words that are no lengths, types that lead into themselves, memory that is not there. */
static void check_lies(struct image *img) {
	struct app app;
	raddr values[8], loop, own, lost, keys;

	open_app(&app, img);
	loop = make_type(img, "Loop", HEAP);
	own = make_type(img, "Own", HEAP);
	lost = make_type(img, "Lost", HEAP);
	image_put_u64(img, loop + img->l->type_dict - 8, own); /* tp_base */
	image_put_u64(img, own + img->l->type_dict - 8, loop);
	image_put_u64(img, own + img->l->type_dict - 24, IMAGE_NOWHERE); /* tp_members */
	image_put_u64(img, loop + img->l->type_dictoffset, 1 << 19);
	image_put_u64(img, lost + img->l->type_dict - 8, UINT64_MAX);
	values[0] = object_of(&app, loop, 64);
	values[1] = list(&app, NULL, 0);
	image_put_u64(img, values[1] + img->l->var_size, UINT64_MAX);
	values[2] = list(&app, values, 1);
	image_put_u64(img, values[2] + img->l->list_items, IMAGE_NOWHERE);
	values[3] = image_dict(img, values, values, 1);
	keys = image_u64(img, values[3] + img->l->dict_keys);
	image_put_u64(img, keys + img->l->keys_nentries, UINT64_MAX);
	values[4] = IMAGE_NOWHERE;
	values[5] = object_of(&app, IMAGE_NOWHERE, 64);
	values[6] = object_of(&app, UINT64_MAX, 64);
	values[7] = object_of(&app, lost, 64);
	add_module(&app, "app", (const char *[]){ "a", "b", "c", "d", "e", "f", "g", "h" }, values, 8);
	build(&app, NULL);
	expect(&app, values[0], "app.a");
	expect(&app, loop, "app.a.__class__");
	expect(&app, values[5], "app.f");
	expect(&app, values[6], "app.g");
	expect(&app, values[7], "app.h");
	expect_step(&app, IMAGE_NOWHERE, values[0], "");
	expect_step(&app, values[1], values[0], "[…]");
	expect_step(&app, 0, 0, "");
	close_app(&app);
}

Test(roots, stands_lies) {
	image_each(check_lies);
}

static void check_cut(struct image *img) {
	struct app app;
	raddr items, holder;

	open_app(&app, img);
	items = list(&app, (raddr[]){ thing(&app), thing(&app) }, 2);
	holder = plain(&app, (const char *[]){ "items" }, &items, 1);
	add_module(&app, "app", (const char *[]){ "HOLDER" }, &holder, 1);
	for (raddr end = IMAGE_BASE + img->used; end > IMAGE_BASE + 64; end -= 56) {
		image_cut(img, end);
		build(&app, NULL);
	}
	image_cut(img, IMAGE_BASE + IMAGE_BYTES);
	build(&app, NULL);
	expect(&app, items, "app.HOLDER.items");
	close_app(&app);
}

Test(roots, stands_memory_that_is_not_there) {
	image_each(check_cut);
}

/* A thread in one call of "serve", which has a variable "rows"; its code also is that of a function. */
static raddr code_with_names(struct image *img, const raddr *names, size_t n, uint8_t kind) {
	const struct layout *l = img->l;
	raddr code = image_code(img, "serve", "/srv/app.py", 1), tuple = image_tuple(img, names, n);
	uint8_t kinds[] = { kind, kind };

	if (layout_has(l->code_localsplusnames)) {
		image_put_u64(img, code + l->code_localsplusnames, tuple);
		image_put_u64(img, code + l->code_localspluskinds, image_bytes(img, kinds, n));
		return code;
	}
	image_put_u64(img, code + l->code_varnames, kind & 0x80 ? image_tuple(img, NULL, 0) : tuple);
	image_put_u64(img, code + l->code_freevars, kind & 0x80 ? tuple : image_tuple(img, NULL, 0));
	image_put_u64(img, code + l->code_cellvars, image_tuple(img, NULL, 0));
	return code;
}

static void put_thread(struct image *img, raddr code, raddr value) {
	const struct layout *l = img->l;
	raddr tstate = image_thread(img, img->interp, 0xabc000, 100), chunk = image_take(img, 16384), cframe;
	raddr frame = chunk + (layout_has(l->chunk_data) ? l->chunk_data : 0);

	if (layout_has(l->tstate_datastack_chunk)) {
		image_put_u64(img, chunk + l->chunk_size, 16384);
		image_put_u64(img, tstate + l->tstate_datastack_chunk, chunk);
	}
	if (layout_has(l->tstate_frame)) {
		image_put_u64(img, tstate + l->tstate_frame, frame);
	} else {
		cframe = image_take(img, 64);
		image_put_u64(img, tstate + l->tstate_cframe, cframe);
		image_put_u64(img, cframe + l->cframe_current_frame, frame);
	}
	image_frame(img, frame, 0, code, code + 256, 0);
	image_put_u64(img, frame + l->frame_localsplus, value);
}

static void check_frames(struct image *img) {
	_cleanup_(strbuf_deinit) struct strbuf out = { 0 };
	struct app app;
	raddr rows, item, both;

	open_app(&app, img);
	item = thing(&app);
	both = list(&app, &item, 1);
	rows = list(&app, (raddr[]){ both }, 1);
	add_module(&app, "app", (const char *[]){ "both" }, &both, 1);
	put_thread(img, code_with_names(img, (raddr[]){ image_text(img, "rows") }, 1, 0x20), rows);
	build(&app, NULL);
	expect(&app, rows, "serve.<locals>.rows (in thread 0xabc000)");
	expect(&app, item, "app.both[0]");
	cr_assert_eq(root_map_path_to(app.map, rows, "[0].x", &out), 0);
	cr_assert_str_eq(strbuf_str(&out), "serve.<locals>.rows[0].x (in thread 0xabc000)");
	close_app(&app);
}

Test(roots, knows_variables_of_frames) {
	image_each(check_frames);
}

static void check_function(struct image *img) {
	const struct layout *l = img->l;
	raddr names[2], function, cell, held, kept, cells;
	struct app app;
	uint32_t closure = l->function_code + (l->function_code < l->func_name ? 32 : 24);

	open_app(&app, img);
	names[0] = image_text(img, "held");
	held = thing(&app);
	kept = thing(&app);
	cell = image_object(img, T_CELL, 64);
	image_put_u64(img, cell + l->object_size, held);
	cells = image_tuple(img, &cell, 1);
	function = object_of(&app, make_type(img, "function", 0), 256);
	image_put_u64(img, function + l->function_code, code_with_names(img, names, 1, 0x80));
	image_put_u64(img, function + closure, cells);
	image_put_u64(img, function + closure - 8, image_dict(img, names, &kept, 1)); /* of keywords */
	add_module(&app, "app", (const char *[]){ "handler" }, &function, 1);
	build(&app, NULL);
	expect(&app, held, "app.handler.<closure>.held");
	expect(&app, cell, "app.handler.<closure>.held");
	expect(&app, cells, "app.handler.__closure__");
	expect(&app, kept, "app.handler.<defaults>.held");
	expect_step(&app, function, held, ".<closure>.held");
	image_put_u64(img, function + closure, held); /* no tuple */
	build(&app, NULL);
	expect(&app, held, "app.handler.__closure__");
	expect(&app, cell, NULL);
	close_app(&app);
}

Test(roots, knows_what_functions_hold) {
	image_each(check_function);
}
