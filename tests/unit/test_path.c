/* SPDX-License-Identifier: MIT */
/* Names of objects from the command line: what is one, what is none, and where they lead in images of each version.
 * Real classes, slots and queues are compared by tests/live/watch_var.sh. */
#include "engine/cpython/path.h"

#include "engine/cpython/length.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>
#include <string.h>

static void expect_mistake(const char *text) {
	struct py_path path = { .n = 77 };
	struct err err = { 0 };

	cr_assert_eq(py_path_parse(text, &path, &err), PYSPYD_E_USAGE, "%s", text);
	cr_assert(err.text[0], "%s", text);
	cr_assert_eq(path.n, 77, "%s: touched", text);
	for (const char *c = err.text; *c; c++)
		cr_assert((unsigned char)*c >= ' ' && *c != 0x7f, "%s: not printable", text);
}

Test(path, rejects_what_is_none) {
	static const char *const texts[] = { "", ":", "a", "a:", ":a", ".:a", "a.:b", ".a:b", "a..b:c", "1:a", "a:1",
		"a b:c", "a:b c", "a:b.", "a:.b", "a:b..c", "a:b[", "a:b[]", "a:b[1", "a:b[-]", "a:b[+1]", "a:b[1 ]",
		"a:b[ 1]", "a:b[0x1]", "a:b[1.0]", "a:b[1][", "a:b[1]c", "a:b[c]", "a:b['", "a:b['c", "a:b['c'",
		"a:b['c\"]", "a:b['\\", "a:b['\\']", "a:b['\\n']", "a:b[''']", "a:b[:1]", "a:b(", "a:b)", "a:b(1)",
		"a:b()x", "a:b().c", "a:b[1]()", "a:b:c", "a:b[9999999999999999]", "a:b\x1b[31m", "a\n:b", "a:b\x7f",
		"a:[1]", "a:()", "a:b-c", "a:b=1" };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		expect_mistake(texts[i]);
}

static void repeat(char *at, const char *text, size_t n) {
	while (n--)
		at = stpcpy(at, text);
}

Test(path, is_bounded) {
	char text[2 * PY_PATH_BYTES] = "a:b";
	struct py_path path;

	repeat(text + 3, ".c", PY_PATH_STEPS - 1);
	cr_assert_eq(py_path_parse(text, &path, NULL), 0);
	cr_assert_eq(path.n, PY_PATH_STEPS);
	py_path_deinit(&path);
	repeat(text + 3, ".c", PY_PATH_STEPS);
	expect_mistake(text);
	strcpy(text, "a:");
	repeat(text + 2, "b", PY_PATH_BYTES - 3);
	cr_assert_eq(py_path_parse(text, &path, NULL), 0);
	cr_assert_eq(strlen(path.steps[0].text), PY_PATH_BYTES - 3);
	py_path_deinit(&path);
	repeat(text + 2, "b", PY_PATH_BYTES - 2);
	expect_mistake(text);
}

Test(path, has_steps) {
	const char *text = "pkg.mod:Klass._x['a\\'b\\\\'][\"c'\"][-12].\xc3\xa4[''].qsize()";
	const struct py_step *s;
	struct py_path path;

	cr_assert_eq(py_path_parse(text, &path, NULL), 0);
	s = path.steps;
	cr_assert_str_eq(path.text, text);
	cr_assert_str_eq(path.module, "pkg.mod");
	cr_assert_eq(path.n, 8);
	cr_assert(path.is_call);
	cr_assert(s[0].kind == PY_STEP_NAME && !strcmp(s[0].text, "Klass") && s[0].end == strlen("pkg.mod:Klass"));
	cr_assert(s[1].kind == PY_STEP_NAME && !strcmp(s[1].text, "_x"));
	cr_assert(s[2].kind == PY_STEP_KEY && !strcmp(s[2].text, "a'b\\"));
	cr_assert(s[3].kind == PY_STEP_KEY && !strcmp(s[3].text, "c'"));
	cr_assert(s[4].kind == PY_STEP_INDEX && s[4].index == -12);
	cr_assert(s[5].kind == PY_STEP_NAME && !strcmp(s[5].text, "\xc3\xa4"));
	cr_assert(s[6].kind == PY_STEP_KEY && !strcmp(s[6].text, ""));
	cr_assert(s[7].kind == PY_STEP_NAME && !strcmp(s[7].text, "qsize") && s[7].end == strlen(text) - 2);
	py_path_deinit(&path);
}

static bool is_secret(const char *text) {
	struct py_path path;
	bool secret;

	cr_assert_eq(py_path_parse(text, &path, NULL), 0);
	secret = py_path_is_secret(&path);
	py_path_deinit(&path);
	return secret;
}

Test(path, knows_secrets_by_name) {
	cr_assert(is_secret("app:PASSWORD"));
	cr_assert(is_secret("app:config['api_token']"));
	cr_assert(is_secret("app:secrets.db[0]"));
	cr_assert(!is_secret("keys:config['host'][0].name"));
}

/* Images: module app, with what each test puts into it. */

struct app {
	struct image *img;
	raddr module;
};

static void open_app(struct app *app, struct image *img, const char *const *names, const raddr *values, size_t n) {
	raddr keys[8], key = image_text(img, "app");

	*app = (struct app){ .img = img, .module = image_object(img, T_PLAIN, 64) };
	for (size_t i = 0; i < n; i++)
		keys[i] = image_text(img, names[i]);
	image_put_u64(img, app->module + 32, image_dict(img, keys, values, n));
	image_put_u64(img, img->interp + img->l->interp_modules, image_dict(img, &key, &app->module, 1));
}

static int evaluate(struct app *app, const char *text, struct py_path_value *ret, struct err *err) {
	struct py_path path;
	int r;

	cr_assert_eq(py_path_parse(text, &path, NULL), 0, "%s", text);
	*err = (struct err){ 0 };
	r = py_path_evaluate(&app->img->rt, &path, ret, err);
	py_path_deinit(&path);
	return r;
}

static void expect_object(struct app *app, const char *text, raddr object) {
	struct py_path_value value = { .object = 1, .items = 1 };
	struct err err;

	cr_assert_eq(evaluate(app, text, &value, &err), 0, "%x: %s: %s", app->img->rt.reader.version, text, err.text);
	cr_assert_eq(value.object, object, "%x: %s", app->img->rt.reader.version, text);
}

static void expect_error(struct app *app, const char *text, int code, const char *said) {
	struct py_path_value value = { .object = 1, .items = 1 };
	struct err err;
	int r = evaluate(app, text, &value, &err);

	cr_assert_eq(r, code, "%x: %s: %d %s", app->img->rt.reader.version, text, r, err.text);
	cr_assert(strstr(err.text, said), "%x: %s: %s", app->img->rt.reader.version, text, err.text);
	cr_assert(value.object == 1 && value.items == 1, "%s: touched", text);
}

static void set_mro(struct image *img, raddr mro) {
	image_put_u64(img, image_type_at(T_PLAIN) + img->l->type_dictoffset + 56, mro);
}

static void check_follows(struct image *img) {
	raddr word = image_text(img, "word"), number = image_long(img, 7), x = image_text(img, "x");
	raddr pair = image_tuple(img, (raddr[]){ word, number }, 2), inner = image_dict(img, &x, &pair, 1);
	raddr by_number = image_dict(img, &number, &word, 1), object = image_object(img, T_PLAIN, 64);
	raddr type = image_type_at(T_PLAIN);
	struct app app;

	image_put_u64(img, object + 32, inner);
	open_app(&app, img, (const char *[]){ "word", "pair", "inner", "by_number", "object" },
		(raddr[]){ word, pair, inner, by_number, object }, 5);
	set_mro(img, image_tuple(img, &type, 1));
	expect_object(&app, "app:word", word);
	expect_object(&app, "app:pair[0]", word);
	expect_object(&app, "app:pair[-1]", number);
	expect_object(&app, "app:inner['x'][1]", number);
	expect_object(&app, "app:by_number[7]", word);
	expect_object(&app, "app:object.x[0]", word);
	expect_error(&app, "app:pair[2]", PY_E_TYPE, "app:pair[2] is not there: there are 2 items");
	expect_error(&app, "app:pair[-3]", PY_E_TYPE, "there are 2 items");
	expect_error(&app, "app:pair['x']", PY_E_TYPE, "app:pair is no dict");
	expect_error(&app, "app:inner['y']", PY_E_TYPE, "no such key");
	expect_error(&app, "app:by_number[8]", PY_E_TYPE, "no such key");
	expect_error(&app, "app:by_number['7']", PY_E_TYPE, "no such key");
	expect_error(&app, "app:word[0]", PY_E_TYPE, "app:word is no dict, list or tuple");
	expect_error(&app, "app:object.y", PY_E_TYPE, "app:object has no attribute 'y'");
	expect_error(&app, "app:object.x()", PY_E_TYPE, "nothing is executed");
	expect_error(&app, "app:object.qsize", PY_E_TYPE, "has no attribute 'qsize'");
	expect_error(&app, "app:nothing", PY_E_TYPE, "module app has no 'nothing'");
	expect_error(&app, "ap:word", PY_E_TYPE, "no module 'ap' is imported");
	expect_error(&app, "app.app:word", PY_E_TYPE, "no module 'app.app' is imported");
}

Test(path, leads_to_objects) {
	image_each(check_follows);
}

static void check_class(struct image *img) {
	raddr type = image_type_at(T_PLAIN), x = image_text(img, "x"), word = image_text(img, "word");
	raddr object = image_object(img, T_PLAIN, 64), get = image_text(img, "__getattr__");
	struct app app;

	open_app(&app, img, (const char *[]){ "object" }, &object, 1);
	set_mro(img, image_tuple(img, &type, 1));
	image_put_u64(img, type + img->l->type_dict, image_dict(img, &x, &word, 1));
	expect_object(&app, "app:object.x", word);
	image_put_u64(img, object + 32, image_dict(img, &x, &x, 1));
	expect_object(&app, "app:object.x", x);
	/* what the class has is a descriptor now, with __get__ and then with __set__ */
	image_put_u64(img, image_type_at(T_STR) + img->l->type_dict + 8, 1);
	expect_object(&app, "app:object.x", x);
	image_put_u64(img, image_type_at(T_STR) + img->l->type_dict + 16, 1);
	expect_error(&app, "app:object.x", PY_E_TYPE, "its code would have to run");
	image_put_u64(img, image_type_at(T_STR) + img->l->type_dict + 16, 0);
	image_put_u64(img, object + 32, 0);
	expect_error(&app, "app:object.x", PY_E_TYPE, "its code would have to run");
	image_put_u64(img, type + img->l->type_dict, image_dict(img, &get, &word, 1));
	expect_error(&app, "app:object.x", PY_E_TYPE, "__getattr__");
}

Test(path, asks_the_class) {
	image_each(check_class);
}

static void check_lies(struct image *img) {
	raddr type = image_type_at(T_PLAIN), x = image_text(img, "x"), object = image_object(img, T_PLAIN, 64);
	raddr many[100], nowhere = IMAGE_NOWHERE, huge = image_tuple(img, &nowhere, 1);
	struct app app;

	for (size_t i = 0; i < 100; i++)
		many[i] = type;
	open_app(&app, img, (const char *[]){ "object", "gone", "huge" }, (raddr[]){ object, IMAGE_NOWHERE, huge }, 3);
	image_put_u64(img, object + 32, image_dict(img, &x, &object, 1)); /* holds itself */
	set_mro(img, image_tuple(img, many, 100));
	expect_object(&app, "app:object.x.x.x.x.x.x.x", object);
	expect_object(&app, "app:gone", IMAGE_NOWHERE);
	expect_error(&app, "app:gone.x", MEM_E_FAULT, "cannot be read now");
	expect_error(&app, "app:gone[0]", MEM_E_FAULT, "cannot be read now");
	expect_error(&app, "app:gone.qsize", MEM_E_FAULT, "cannot be read now");
	image_put_u64(img, huge + img->l->var_size, UINT64_C(1) << 47);
	expect_error(&app, "app:huge[1000000000]", MEM_E_FAULT, "cannot be read now");
	image_put_u64(img, huge + img->l->var_size, UINT64_MAX);
	expect_error(&app, "app:huge[0]", PY_E_TYPE, "cannot be read now");
	set_mro(img, IMAGE_NOWHERE);
	expect_error(&app, "app:object.x", MEM_E_FAULT, "cannot be read now");
	image_put_u64(img, img->interp + img->l->interp_modules, IMAGE_NOWHERE);
	expect_error(&app, "app:object", MEM_E_FAULT, "cannot be read now");
}

Test(path, survives_lies) {
	image_each(check_lies);
}

static void expect_length(struct image *img, raddr object, size_t length) {
	size_t n = 99;

	cr_assert_eq(py_length_read(&img->rt.reader, object, &n), 0);
	cr_assert_eq(n, length);
}

static void check_lengths(struct image *img) {
	raddr items[3] = { image_text(img, "a"), image_text(img, "b"), image_text(img, "c") };
	raddr type = image_type_at(T_PLAIN), object = image_object(img, T_PLAIN, 64);
	size_t n = 99;

	expect_length(img, image_text(img, "hello"), 5);
	expect_length(img, image_bytes(img, "abc", 3), 3);
	expect_length(img, image_tuple(img, items, 3), 3);
	expect_length(img, image_dict(img, items, items, 2), 2);
	cr_assert_eq(py_length_read(&img->rt.reader, image_long(img, 5), &n), PY_E_TYPE);
	cr_assert_eq(py_length_read(&img->rt.reader, object, &n), PY_E_TYPE);
	image_put_u64(img, type + img->l->type_dict - 8, type); /* derived from itself */
	cr_assert_eq(py_length_read(&img->rt.reader, object, &n), PY_E_TYPE);
	cr_assert_eq(py_length_read(&img->rt.reader, IMAGE_NOWHERE, &n), MEM_E_FAULT);
	cr_assert_eq(n, 99);
}

Test(path, lengths) {
	image_each(check_lengths);
}
