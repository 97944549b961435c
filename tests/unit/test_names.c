/* SPDX-License-Identifier: MIT */
/* How frames name objects, in images of each version: which way is preferred, what is looked at, and targets that lie.
 * Real frames are compared by tests/live/names_oracle.sh. */
#include "engine/cpython/names.h"

#include "engine/cpython/locals.h"
#include "engine/cpython/objects.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>
#include <string.h>

#define READS_MAX 2500
#define VARIABLES_MAX 8

struct fixture {
	struct image *img;
	struct py_raw_frame frame;
	raddr lock; /* what is looked for */
	raddr names[VARIABLES_MAX];
	raddr values[VARIABLES_MAX];
	size_t variables_n;
	raddr lock_key; /* "LOCK" */
	raddr config_key;
};

static raddr plain(struct image *img, raddr key, raddr value) {
	raddr object = image_object(img, T_PLAIN, 64);

	image_put_u64(img, object + 32, image_dict(img, &key, &value, 1));
	return object;
}

static raddr with_attribute(struct image *img, const char *name, raddr value) {
	return plain(img, image_text(img, name), value);
}

static void add_variable(struct fixture *f, const char *name, raddr value) {
	f->names[f->variables_n] = image_text(f->img, name);
	f->values[f->variables_n++] = value;
}

static void open_fixture(struct fixture *f, struct image *img) {
	*f = (struct fixture){ .img = img };
	f->lock = image_object(img, T_PLAIN, 64);
	f->frame.code = image_object(img, T_CODE, img->l->code_size);
	f->frame.frame = image_take(img, img->l->frame_localsplus + VARIABLES_MAX * 8);
	f->lock_key = image_text(img, "LOCK");
	f->config_key = image_text(img, "CONFIG");
	f->frame.globals = image_dict(img, NULL, NULL, 0);
	image_put_u64(
		img, f->frame.code + img->l->code_names, image_tuple(img, (raddr[]){ f->lock_key, f->config_key }, 2));
}

static void put_variables(struct fixture *f) {
	static const uint8_t kinds[VARIABLES_MAX] = { 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20 };
	struct image *img = f->img;
	raddr names = image_tuple(img, f->names, f->variables_n);

	if (layout_has(img->l->code_localsplusnames)) {
		image_put_u64(img, f->frame.code + img->l->code_localsplusnames, names);
		image_put_u64(
			img, f->frame.code + img->l->code_localspluskinds, image_bytes(img, kinds, f->variables_n));
	} else {
		image_put_u64(img, f->frame.code + img->l->code_varnames, names);
		image_put_u64(img, f->frame.code + img->l->code_cellvars, image_tuple(img, NULL, 0));
		image_put_u64(img, f->frame.code + img->l->code_freevars, image_tuple(img, NULL, 0));
	}
	for (size_t i = 0; i < f->variables_n; i++)
		image_put_u64(img, f->frame.frame + img->l->frame_localsplus + i * 8, f->values[i]);
}

static void expect(struct fixture *f, const char *expression) {
	char text[64] = "untouched";
	uint64_t before = f->img->rt.reader.mem->reads;
	int r;

	put_variables(f);
	r = py_name_find(&f->img->rt, &f->frame, f->lock, text, sizeof(text));
	cr_assert_eq(r, expression ? 0 : PY_E_TYPE, "%x: result %d", f->img->rt.reader.version, r);
	cr_assert_str_eq(text, expression ? expression : "untouched");
	cr_assert_leq(f->img->rt.reader.mem->reads - before, READS_MAX);
}

/* From the farthest way to the nearest: each is preferred to those before. */
static void check_order(struct image *img) {
	raddr keys[2], values[2];
	struct fixture f;

	open_fixture(&f, img);
	expect(&f, NULL);
	keys[0] = image_text(img, "LOCK"); /* not the object that the code has */
	f.frame.globals = image_dict(img, keys, &f.lock, 1);
	expect(&f, NULL);
	keys[0] = f.config_key;
	values[0] = with_attribute(img, "lock", f.lock);
	f.frame.globals = image_dict(img, keys, values, 1);
	expect(&f, "CONFIG.lock");
	keys[1] = f.lock_key;
	values[1] = f.lock;
	f.frame.globals = image_dict(img, keys, values, 2);
	expect(&f, "LOCK");
	add_variable(&f, "unset", 0);
	add_variable(&f, "self", with_attribute(img, "account", with_attribute(img, "guard", f.lock)));
	expect(&f, "self.account.guard");
	add_variable(&f, "by_key", image_dict(img, &(raddr){ image_text(img, "a") }, &f.lock, 1));
	expect(&f, "by_key['a']");
	f.values[2] = image_dict(img, &(raddr){ image_long(img, 7) }, &f.lock, 1);
	expect(&f, "by_key[7]");
	f.values[2] = image_tuple(img, (raddr[]){ f.frame.code, f.lock }, 2);
	expect(&f, "by_key[1]");
	add_variable(&f, "dst", with_attribute(img, "guard", f.lock));
	expect(&f, "dst.guard");
	add_variable(&f, ".0", f.lock);
	expect(&f, "dst.guard");
	add_variable(&f, "guard", f.lock);
	expect(&f, "guard");
}

Test(names, prefers_the_nearest) {
	image_each(check_order);
}

static void check_limits(struct image *img) {
	raddr items[100];
	struct fixture f;
	char small[6] = "?";

	open_fixture(&f, img);
	for (size_t i = 0; i < 100; i++)
		items[i] = f.frame.code;
	items[64] = f.lock;
	add_variable(&f, "items", image_tuple(img, items, 100));
	expect(&f, NULL);
	items[63] = f.lock;
	f.values[0] = image_tuple(img, items, 100);
	expect(&f, "items[63]");
	f.values[0] = f.lock;
	cr_assert_eq(py_name_find(&img->rt, &f.frame, 0, small, sizeof(small)), PY_E_TYPE);
	put_variables(&f);
	cr_assert_eq(py_name_find(&img->rt, &f.frame, f.lock, small, sizeof(small) - 1), PY_E_TYPE);
	cr_assert_str_eq(small, "?");
	cr_assert_eq(py_name_find(&img->rt, &f.frame, f.lock, small, sizeof(small)), 0);
	cr_assert_str_eq(small, "items");
}

Test(names, looks_at_so_much) {
	image_each(check_limits);
}

static void check_lies(struct image *img) {
	raddr circle = image_object(img, T_PLAIN, 64), key = image_text(img, "me");
	struct fixture f;

	open_fixture(&f, img);
	image_put_u64(img, circle + 32, image_dict(img, &key, &circle, 1));
	add_variable(&f, "self", circle);
	add_variable(&f, "gone", IMAGE_NOWHERE);
	add_variable(&f, "number", PY_MINOR(img->rt.reader.version) >= 0x030e ? 4 | PY_TAG_INT : 0);
	add_variable(&f, "broken", plain(img, IMAGE_NOWHERE, f.lock)); /* a name that cannot be read is none */
	expect(&f, NULL);
	add_variable(&f, "a\x1b\x5b", with_attribute(img, "b\n", f.lock));
	expect(&f, "a\\x1b[.b\\x0a");
	f.variables_n--;
	f.frame.globals = IMAGE_NOWHERE;
	expect(&f, NULL);
	image_put_u64(img, f.frame.code + img->l->code_names, circle);
	expect(&f, NULL);
}

Test(names, passes_over_what_it_cannot_read) {
	image_each(check_lies);
}

static int count(void *userdata, const char *name, uint64_t ref) {
	(*(int *)userdata)++;
	(void)ref;
	return !strcmp(name, "two") ? 77 : 0;
}

static void check_walks(struct image *img) {
	struct fixture f;
	int n = 0;

	open_fixture(&f, img);
	add_variable(&f, "one", 0);
	add_variable(&f, "two", f.lock);
	add_variable(&f, "three", f.lock);
	put_variables(&f);
	cr_assert_eq(py_locals_walk(&img->rt, &f.frame, count, &n), 77);
	cr_assert_eq(n, 2);
	f.names[1] = f.names[0];
	put_variables(&f);
	cr_assert_eq(py_locals_walk(&img->rt, &f.frame, count, &n), 0);
	cr_assert_eq(n, 5);
	f.names[1] = f.lock;
	put_variables(&f);
	cr_assert_eq(py_locals_walk(&img->rt, &f.frame, count, &n), PY_E_TORN);
}

Test(names, walk_ends_when_told) {
	image_each(check_walks);
}

static void expect_value(struct fixture *f, const char *expression, raddr value) {
	raddr object = 99;
	int r = py_name_evaluate(&f->img->rt, &f->frame, expression, &object);

	cr_assert_eq(r, value ? 0 : PY_E_TYPE, "%s: result %d", expression, r);
	cr_assert_eq(object, value ? value : 99, "%s", expression);
}

static void check_values(struct image *img) {
	raddr inside = with_attribute(img, "guard", IMAGE_BASE + 64), self = with_attribute(img, "account", inside);
	struct fixture f;

	open_fixture(&f, img);
	add_variable(&f, "self", self);
	add_variable(&f, "unset", 0);
	put_variables(&f);
	f.frame.globals = image_dict(img, (raddr[]){ f.lock_key, f.config_key }, (raddr[]){ f.lock, self }, 2);
	expect_value(&f, "self", self);
	expect_value(&f, "self.account", inside);
	expect_value(&f, "self.account.guard", IMAGE_BASE + 64);
	expect_value(&f, "self.guard", 0);
	expect_value(&f, "LOCK", f.lock);
	expect_value(&f, "CONFIG.account", inside);
	expect_value(&f, "unset", 0);
	expect_value(&f, "nothing", 0);
	expect_value(&f, "self.", 0);
	expect_value(&f, "", 0);
	/* a class body's own names come before globals */
	image_put_u64(img, f.frame.frame + img->l->frame_locals, image_dict(img, &f.lock_key, &inside, 1));
	expect_value(&f, "LOCK", inside);
	expect_value(&f, "CONFIG", self);
	image_put_u64(img, f.frame.frame + img->l->frame_localsplus, IMAGE_NOWHERE);
	cr_assert_eq(py_name_evaluate(&img->rt, &f.frame, "self.account", &inside), MEM_E_FAULT);
}

Test(names, evaluates) {
	image_each(check_values);
}

struct seen {
	int n;
	raddr value;
};

static int see(void *userdata, raddr key, raddr value) {
	struct seen *seen = userdata;

	(void)key;
	seen->n++;
	seen->value = value;
	return seen->n == 2 ? 55 : 0;
}

static void check_attributes(struct image *img) {
	raddr keys[3] = { image_text(img, "a"), image_text(img, "b"), image_text(img, "c") };
	raddr values[3] = { keys[2], keys[1], keys[0] }, object = image_object(img, T_PLAIN, 64);
	struct seen seen = { 0 };

	cr_assert_eq(py_attributes_walk(&img->rt.reader, object, see, &seen), PY_E_TYPE, "it has no dict yet");
	cr_assert_eq(py_attributes_walk(&img->rt.reader, keys[0], see, &seen), PY_E_TYPE, "its type has none");
	image_put_u64(img, object + 32, image_dict(img, keys, values, 1));
	cr_assert_eq(py_attributes_walk(&img->rt.reader, object, see, &seen), 0);
	cr_assert_eq(seen.n, 1);
	cr_assert_eq(seen.value, keys[2]);
	seen.n = 0;
	image_put_u64(img, object + 32, image_dict(img, keys, values, 3));
	cr_assert_eq(py_attributes_walk(&img->rt.reader, object, see, &seen), 55);
	cr_assert_eq(seen.value, keys[1]);
	cr_assert_eq(py_attributes_walk(&img->rt.reader, IMAGE_NOWHERE, see, &seen), MEM_E_FAULT);
}

Test(names, walks_attributes) {
	image_each(check_attributes);
}
