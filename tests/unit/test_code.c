/* SPDX-License-Identifier: MIT */
/* Code objects and variables out of images: decoding, when the cache reads again, addresses that are used again, and
 * objects that lie. */
#include "engine/base/limits.h"
#include "engine/cpython/code.h"
#include "engine/cpython/locals.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>
#include <string.h>

#define MS UINT64_C(1000000)

struct fixture {
	struct image *img;
	struct intern strings;
	struct py_code_cache cache;
	raddr code;
	struct py_raw_frame frame;
};

static uint64_t first_instr(const struct fixture *f) {
	return layout_has(f->img->l->code_adaptive) ? f->code + f->img->l->code_adaptive : 0;
}

static void open_fixture(struct fixture *f, struct image *img) {
	*f = (struct fixture){ .img = img };
	cr_assert_eq(intern_init(&f->strings), 0);
	py_code_cache_init(&f->cache, &img->rt, &f->strings);
	f->code = image_code(img, "work", "/src/work.py", 42);
	f->frame = (struct py_raw_frame){ .code = f->code, .instr = (int64_t)first_instr(f) };
}

static void close_fixture(struct fixture *f) {
	py_code_cache_deinit(&f->cache);
	intern_deinit(&f->strings);
}

static int lookup(struct fixture *f, uint64_t generation, uint64_t now_ns, bool leaf, const struct py_code **ret) {
	return py_code_lookup(&f->cache, &f->frame, generation, now_ns, leaf, ret);
}

static const char *name_of(const struct fixture *f, const struct py_code *code) {
	return intern_str(&f->strings, code->name);
}

static void put_name(struct fixture *f, const char *name) {
	image_put_u64(f->img, f->code + f->img->l->code_name, image_text(f->img, name));
}

static void check_decoding(struct image *img) {
	raddr key = image_text(img, "__name__"), value = image_text(img, "pkg.work");
	const struct py_code *code;
	struct fixture f;

	open_fixture(&f, img);
	f.frame.globals = image_dict(img, &key, &value, 1);
	cr_assert_eq(lookup(&f, 0, 0, true, &code), 0);
	cr_assert_str_eq(name_of(&f, code), "work");
	cr_assert_str_eq(intern_str(&f.strings, code->qualname), "work");
	cr_assert_str_eq(intern_str(&f.strings, code->file), "/src/work.py");
	cr_assert_str_eq(intern_str(&f.strings, code->module), "pkg.work");
	cr_assert_eq(code->first_line, 42);
	cr_assert_eq(py_code_offset(&f.cache, code, &f.frame), 0);
	cr_assert_eq(py_code_line(&f.cache, code, 0), 42);
	cr_assert_eq(py_code_line(&f.cache, code, -2), 42);
	f.frame.instr += 8;
	cr_assert_eq(py_code_offset(&f.cache, code, &f.frame), 8);
	cr_assert_eq(f.cache.decoded, 1);
	close_fixture(&f);
}

Test(code, decodes) {
	image_each(check_decoding);
}

static uint64_t reads_of(struct fixture *f, uint64_t generation, uint64_t now_ns, bool leaf) {
	uint64_t before = f->img->rt.reader.mem->reads;
	const struct py_code *code;

	cr_assert_eq(lookup(f, generation, now_ns, leaf, &code), 0);
	return f->img->rt.reader.mem->reads - before;
}

static void check_reads(struct image *img) {
	struct fixture f;

	open_fixture(&f, img);
	cr_assert_gt(reads_of(&f, 5, 0, true), 1);
	cr_assert_eq(reads_of(&f, 5, 0, true), 0, "the counter stands still");
	cr_assert_eq(reads_of(&f, 5, 1000000 * MS, false), 0);
	cr_assert_eq(reads_of(&f, 6, 0, true), 1, "it moved: looked at again, not decoded again");
	cr_assert_eq(reads_of(&f, 6, 0, true), 0);
	close_fixture(&f);
	open_fixture(&f, img);
	reads_of(&f, 0, 1000 * MS, false);
	cr_assert_eq(reads_of(&f, 0, 1000 * MS, false), 0, "no counter: by time");
	cr_assert_eq(reads_of(&f, 0, 1001 * MS, true), 1, "the leaf always");
	cr_assert_eq(reads_of(&f, 0, 1019 * MS, false), 0);
	cr_assert_eq(reads_of(&f, 0, 1041 * MS, false), 1);
	cr_assert_eq(f.cache.decoded, 1);
	cr_assert_eq(f.cache.reused_addresses, 0);
	close_fixture(&f);
}

Test(code, reads_only_what_may_have_changed) {
	image_each(check_reads);
}

/* A counter that stands still vouches for all of a stack: that costs nothing. */
static void check_vouched(struct image *img) {
	struct py_raw_frame frames[2];
	struct fixture f;
	uint64_t before;

	open_fixture(&f, img);
	reads_of(&f, 5, 0, true);
	frames[0] = frames[1] = f.frame;
	before = img->rt.reader.mem->reads;
	py_code_check_many(&f.cache, frames, 2, 5, 1000 * MS);
	cr_assert_eq(img->rt.reader.mem->reads, before);
	py_code_check_many(&f.cache, frames, 2, 6, 1000 * MS);
	cr_assert_eq(img->rt.reader.mem->reads, before + 1, "all of it in one read");
	close_fixture(&f);
}

Test(code, counter_vouches_for_stacks) {
	image_each(check_vouched);
}

static void check_reuse(struct image *img) {
	const struct py_code *code;
	struct fixture f;
	uint64_t serial;

	open_fixture(&f, img);
	cr_assert_eq(lookup(&f, 5, 0, true, &code), 0);
	serial = code->serial;
	put_name(&f, "play");
	cr_assert_eq(lookup(&f, 6, 0, true, &code), 0);
	cr_assert_str_eq(name_of(&f, code), "play");
	cr_assert_neq(code->serial, serial);
	cr_assert_eq(f.cache.reused_addresses, 1);
	image_put_u32(img, f.code + img->l->code_firstlineno, 43); /* all else is the same */
	cr_assert_eq(lookup(&f, 7, 0, true, &code), 0);
	cr_assert_eq(code->first_line, 43);
	put_name(&f, "rest");
	cr_assert_eq(lookup(&f, 0, 1000 * MS, true, &code), 0);
	cr_assert_str_eq(name_of(&f, code), "rest");
	put_name(&f, "sleep");
	cr_assert_eq(lookup(&f, 0, 2000 * MS, false, &code), 0);
	cr_assert_str_eq(name_of(&f, code), "sleep");
	cr_assert_eq(f.cache.codes.n, 1);
	cr_assert_eq(f.cache.reused_addresses, 4);
	/* Something that is no code object stands there now, then a code object again. */
	image_put_u64(img, f.code + img->l->object_type, image_type_at(T_DICT));
	cr_assert_eq(lookup(&f, 9, 0, true, &code), PY_E_TORN);
	image_put_u64(img, f.code + img->l->object_type, image_type_at(T_CODE));
	cr_assert_eq(lookup(&f, 10, 0, true, &code), 0);
	cr_assert_str_eq(name_of(&f, code), "sleep");
	close_fixture(&f);
}

Test(code, notices_addresses_that_are_used_again) {
	image_each(check_reuse);
}

/* A new code object whose parts all lie where the old one's did; what is of another file is told by its text. */
static void check_reused_parts(struct image *img) {
	raddr file;
	const struct py_code *code;
	struct py_raw_frame frames[2];
	struct fixture f;

	if (py_code_has_unique_version(&img->rt))
		return;
	open_fixture(&f, img);
	file = image_u64(img, f.code + img->l->code_filename) + img->l->unicode_ascii_size;
	cr_assert_eq(lookup(&f, 0, 1000 * MS, true, &code), 0);
	image_put(img, file, "/src/play.py", 12);
	cr_assert_eq(lookup(&f, 0, 2000 * MS, true, &code), 0);
	cr_assert_str_eq(intern_str(&f.strings, code->file), "/src/play.py");
	image_put(img, file, "/src/rest.py", 12);
	frames[0] = frames[1] = f.frame;
	py_code_check_many(&f.cache, frames, 2, 0, 2001 * MS);
	cr_assert_eq(lookup(&f, 0, 2001 * MS, false, &code), 0);
	cr_assert_str_eq(intern_str(&f.strings, code->file), "/src/rest.py", "as a caller, too");
	close_fixture(&f);
}

Test(code, notices_parts_that_are_used_again) {
	image_each(check_reused_parts);
}

/* Each of these must be refused, and leave the cache able to decode the sound object. */
static void expect_refused(struct fixture *f, uint32_t offset, uint64_t value) {
	uint64_t good = image_u64(f->img, f->code + offset);
	const struct py_code *code = NULL;
	int r;

	image_put_u64(f->img, f->code + offset, value);
	r = lookup(f, 0, 0, true, &code);
	cr_assert(r == PY_E_TORN || r == MEM_E_FAULT, "offset %u: %d", offset, r);
	cr_assert_null(code);
	cr_assert_eq(f->cache.codes.n, 0);
	image_put_u64(f->img, f->code + offset, good);
}

static void check_lies(struct image *img) {
	const struct layout *l = img->l;
	const struct py_code *code;
	struct fixture f;
	raddr huge;

	open_fixture(&f, img);
	for (uint64_t bad = 0; bad < 4; bad++) {
		uint64_t values[] = { 0, IMAGE_NOWHERE, f.code, UINT64_MAX };

		expect_refused(&f, l->code_name, values[bad]);
		expect_refused(&f, l->code_filename, values[bad]);
		expect_refused(&f, l->code_linetable, values[bad]);
		expect_refused(&f, l->object_type, values[bad]);
		if (layout_has(l->code_qualname))
			expect_refused(&f, l->code_qualname, values[bad]);
	}
	expect_refused(&f, l->object_type, image_type_at(T_CELL));
	if (layout_has(l->code_adaptive)) {
		expect_refused(&f, l->var_size, UINT64_MAX);
		expect_refused(&f, l->var_size, UINT64_C(1) << 63);
		expect_refused(&f, l->var_size, UINT64_C(1) << 31);
	}
	/* A line table without end: there is none, but the function has a name. */
	huge = image_bytes(img, "", 0);
	image_put_u64(img, huge + l->var_size, LIMIT_LINETABLE_BYTES + 1);
	image_put_u64(img, f.code + l->code_linetable, huge);
	cr_assert_eq(lookup(&f, 0, 0, true, &code), 0);
	cr_assert_eq(code->linetable_len, 0);
	for (int64_t offset = -8; offset < 80; offset += 2)
		py_code_line(&f.cache, code, offset);
	image_put_u64(img, huge + l->var_size, UINT64_MAX);
	f.code = image_code(img, "other", "other.py", -5);
	f.frame.code = f.code;
	cr_assert_eq(lookup(&f, 0, 0, true, &code), 0);
	py_code_line(&f.cache, code, 0);
	f.frame.code = IMAGE_NOWHERE;
	cr_assert_eq(lookup(&f, 0, 0, true, &code), MEM_E_FAULT);
	f.frame.code = UINT64_MAX;
	cr_assert_eq(lookup(&f, 0, 0, true, &code), MEM_E_FAULT);
	close_fixture(&f);
}

Test(code, objects_that_lie) {
	image_each(check_lies);
}

static void check_globals_that_lie(struct image *img) {
	raddr key = image_text(img, "__name__"), number = image_long(img, 7);
	const raddr globals[] = { IMAGE_NOWHERE, 1, number, image_dict(img, &key, &number, 1),
		image_dict(img, &number, &key, 1), UINT64_MAX };
	const struct py_code *code;

	for (size_t i = 0; i < ARRAY_SIZE(globals); i++) {
		struct fixture f;

		open_fixture(&f, img);
		f.frame.globals = globals[i];
		cr_assert_eq(lookup(&f, 0, 0, true, &code), 0);
		cr_assert_str_eq(intern_str(&f.strings, code->module), "");
		close_fixture(&f);
	}
}

Test(code, globals_that_lie) {
	image_each(check_globals_that_lie);
}

/* More code objects than the cache keeps: it begins anew, and serials go on. */
Test(code, the_cache_is_bounded) {
	const struct py_code *code;
	struct fixture f;
	struct image img;
	uint64_t last = 0;

	image_open(&img, &image_builds[4]);
	open_fixture(&f, &img);
	for (size_t i = 0; i < LIMIT_CODES + 10; i++) {
		f.frame.code = image_take(&img, 208);
		image_put(&img, f.frame.code, img.bytes + (f.code - IMAGE_BASE), 208);
		cr_assert_eq(lookup(&f, 1, 0, false, &code), 0);
		cr_assert_gt(code->serial, last);
		cr_assert_leq(f.cache.codes.n, LIMIT_CODES);
		last = code->serial;
	}
	cr_assert_eq(f.cache.codes.n, 10);
	close_fixture(&f);
	image_close(&img);
}

/* Free-threaded: each thread may run a copy of the bytecode. */
Test(code, thread_local_bytecode) {
	static const struct image_build build = { 0x030e00f0, LAYOUT_RELEASE };
	const struct py_code *code;
	struct fixture f;
	struct image img;
	raddr array;

	image_open(&img, &build);
	img.rt.reader.layout.code_tlbc = img.rt.reader.layout.code_adaptive - 8;
	open_fixture(&f, &img);
	array = image_take(&img, 64);
	image_put_u64(&img, array, 3);
	image_put_u64(&img, array + 8 + 2 * 8, 0x10000);
	image_put_u64(&img, f.code + img.l->code_tlbc, array);
	f.frame.instr = 0x10000 + 6;
	f.frame.code_base = 2;
	cr_assert_eq(lookup(&f, 0, 0, true, &code), 0);
	cr_assert_eq(py_code_offset(&f.cache, code, &f.frame), 6);
	f.frame.code_base = 3; /* there are three */
	cr_assert_neq(py_code_offset(&f.cache, code, &f.frame), 6);
	image_put_u64(&img, array, UINT64_MAX);
	f.frame.code_base = UINT32_MAX;
	py_code_offset(&f.cache, code, &f.frame);
	close_fixture(&f);
	image_close(&img);
}

/* A frame with `password`, `n` (a cell) and `unset`. */
struct variables {
	struct fixture f;
	raddr names[3], cell, slots;
};

static void open_variables(struct variables *v, struct image *img) {
	static const uint8_t kinds[] = { 0x20, 0x60, 0x20 };
	const struct layout *l = img->l;
	raddr frame = image_take(img, image_frame_bytes(img) + 64), empty;

	open_fixture(&v->f, img);
	v->names[0] = image_text(img, "password");
	v->names[1] = image_text(img, "n");
	v->names[2] = image_text(img, "unset");
	v->cell = image_object(img, T_CELL, 64);
	image_put_u64(img, v->cell + l->object_size, image_long(img, 7));
	v->slots = frame + l->frame_localsplus;
	image_put_u64(img, v->slots, image_text(img, "hunter2"));
	if (layout_has(l->code_localsplusnames)) {
		image_put_u64(img, v->f.code + l->code_localsplusnames, image_tuple(img, v->names, 3));
		image_put_u64(img, v->f.code + l->code_localspluskinds, image_bytes(img, kinds, 3));
		image_put_u64(img, v->slots + 8, v->cell);
	} else {
		empty = image_tuple(img, NULL, 0);
		image_put_u64(
			img, v->f.code + l->code_varnames, image_tuple(img, (raddr[]){ v->names[0], v->names[2] }, 2));
		image_put_u64(img, v->f.code + l->code_cellvars, image_tuple(img, &v->names[1], 1));
		image_put_u64(img, v->f.code + l->code_freevars, empty);
		image_put_u64(img, v->slots + 16, v->cell);
	}
	v->f.frame.frame = frame;
}

static void free_locals(struct pyspyd_local *locals, size_t n) {
	for (size_t i = 0; i < n; i++) {
		free(locals[i].name);
		free(locals[i].type);
		free(locals[i].value);
	}
	free(locals);
}

static void check_variables(struct image *img) {
	struct pyspyd_local *locals;
	struct variables v;
	size_t n;

	open_variables(&v, img);
	for (int unmask = 0; unmask < 2; unmask++) {
		cr_assert_eq(py_locals_read(&img->rt, &v.f.frame, unmask, &locals, &n), 0);
		cr_assert_eq(n, 2);
		cr_assert_str_eq(locals[0].name, "password");
		cr_assert_str_eq(locals[0].type, "str");
		cr_assert_str_eq(locals[0].value, unmask ? "'hunter2'" : "***");
		cr_assert_eq(locals[0].masked, !unmask);
		cr_assert_str_eq(locals[1].name, "n");
		cr_assert_str_eq(locals[1].value, "7");
		free_locals(locals, n);
	}
	image_put_u64(img, v.slots, IMAGE_NOWHERE); /* what cannot be read stands there as such */
	cr_assert_eq(py_locals_read(&img->rt, &v.f.frame, true, &locals, &n), 0);
	cr_assert_str_eq(locals[0].value, "?");
	free_locals(locals, n);
	image_put_u64(img, v.cell + img->l->object_size, 0); /* an empty cell */
	cr_assert_eq(py_locals_read(&img->rt, &v.f.frame, true, &locals, &n), 0);
	cr_assert_eq(n, 1);
	free_locals(locals, n);
	close_fixture(&v.f);
}

Test(locals, variables_cells_and_secrets) {
	image_each(check_variables);
}

static void check_variables_that_lie(struct image *img) {
	const struct layout *l = img->l;
	const uint32_t words[] = { l->code_localsplusnames, l->code_localspluskinds, l->code_varnames, l->code_cellvars,
		l->code_freevars };
	struct pyspyd_local *locals;
	struct variables v;
	raddr huge;
	size_t n;

	open_variables(&v, img);
	huge = image_tuple(img, v.names, 3);
	image_put_u64(img, huge + l->var_size, UINT64_C(1) << 47);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		const raddr bad[] = { IMAGE_NOWHERE, v.f.code, UINT64_MAX, huge, v.names[0] };
		uint64_t good;

		if (!layout_has(words[i]))
			continue;
		good = image_u64(img, v.f.code + words[i]);
		for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
			int r;

			image_put_u64(img, v.f.code + words[i], bad[k]);
			r = py_locals_read(&img->rt, &v.f.frame, false, &locals, &n);
			cr_assert(!r || r == PY_E_TORN || r == MEM_E_FAULT, "word %zu, %zu: %d", i, k, r);
			if (!r)
				free_locals(locals, n);
		}
		image_put_u64(img, v.f.code + words[i], good);
	}
	if (layout_has(l->code_localspluskinds)) { /* more variables than a code object can have */
		static const uint8_t many[70000];

		image_put_u64(img, v.f.code + l->code_localspluskinds, image_bytes(img, many, sizeof(many)));
		cr_assert_eq(py_locals_read(&img->rt, &v.f.frame, false, &locals, &n), PY_E_TORN);
	}
	v.f.frame.frame = IMAGE_NOWHERE;
	cr_assert_gt(py_locals_read(&img->rt, &v.f.frame, false, &locals, &n), 0);
	v.f.frame.code = IMAGE_NOWHERE;
	cr_assert_eq(py_locals_read(&img->rt, &v.f.frame, false, &locals, &n), MEM_E_FAULT);
	close_fixture(&v.f);
}

Test(locals, variables_that_lie) {
	image_each(check_variables_that_lie);
}

Test(locals, names_of_secrets) {
	static const char *const secret[] = { "password", "API_KEY", "db_Passwd", "AUTHORIZATION", "session_id",
		"secrets", "access_token", "cookie" };
	static const char *const plain[] = { "", "n", "self", "user", "path" };

	for (size_t i = 0; i < ARRAY_SIZE(secret); i++)
		cr_assert(py_local_is_secret(secret[i]), "%s", secret[i]);
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		cr_assert_not(py_local_is_secret(plain[i]), "%s", plain[i]);
}
