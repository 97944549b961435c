/* SPDX-License-Identifier: MIT */
/* Interpreters, thread lists, names and the whole way of attaching, out of images and captured proc trees. */
#include "engine/base/limits.h"
#include "engine/cpython/find.h"
#include "engine/cpython/threads.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define IDENT UINT64_C(0x7f00deadb000)

static bool knows_tids(const struct image *img) {
	return layout_has(img->l->tstate_native_thread_id);
}

static void check_list(struct image *img) {
	const pid_t tids[] = { 100, 101, 102 };
	py_thread_vec threads = { 0 };
	raddr other = image_interp(img, 1);
	struct proc proc;

	image_proc_open(tids, 3, 0, "", &proc);
	image_thread(img, img->interp, IDENT, 100);
	image_thread(img, img->interp, IDENT + 4096, 101);
	image_thread(img, other, IDENT + 8192, 555); /* ended: the kernel does not know it */
	cr_assert_eq(py_threads_read(&img->rt, &proc, &threads), 0);
	cr_assert_eq(threads.n, 3);
	cr_assert_eq(threads.items[0].interp, other, "newest first");
	cr_assert_eq(threads.items[0].tid, 0);
	cr_assert_eq(threads.items[0].interp_id, 1);
	cr_assert_eq(threads.items[1].ident, IDENT + 4096);
	cr_assert_eq(threads.items[1].tid, knows_tids(img) ? 101 : 0);
	cr_assert_eq(threads.items[2].tid, knows_tids(img) ? 100 : 0);
	cr_assert_eq(threads.items[2].interp_id, 0);
	vec_free(&threads);
	image_proc_close(&proc);
}

Test(threads, of_all_interpreters) {
	image_each(check_list);
}

/* Thread ids of another PID namespace, in the thread state or (to 3.10) in struct pthread. */
static void check_foreign(struct image *img) {
	const pid_t tids[] = { 100, 101 };
	py_thread_vec threads = { 0 };
	struct proc proc;
	raddr pthread = image_take(img, 2048);

	image_proc_open(tids, 2, 7, "", &proc);
	img->rt.foreign_tids = true;
	image_put_u32(img, pthread + 720, 8);
	image_thread(img, img->interp, pthread, 8);
	if (!knows_tids(img))
		img->rt.pthread_tid = py_pthread_tid_offset(&img->rt, &proc, pthread);
	cr_assert_eq(py_threads_read(&img->rt, &proc, &threads), 0);
	cr_assert_eq(threads.items[0].tid, 101);
	vec_free(&threads);
	image_proc_close(&proc);
}

Test(threads, ids_of_another_namespace) {
	image_each(check_foreign);
}

Test(threads, where_struct_pthread_has_the_id) {
	static const uint32_t places[] = { 720, 208, 48, 56, 0, 1020, 4, 724 };
	const pid_t tids[] = { 100, 101 };
	struct image img;
	struct proc proc;

	image_open(&img, &image_builds[0]);
	image_proc_open(tids, 2, 0, "", &proc);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		raddr pthread = image_take(&img, 1024);

		cr_assert_eq(py_pthread_tid_offset(&img.rt, &proc, pthread), LAYOUT_NONE);
		image_put_u32(&img, pthread + places[i], 101);
		cr_assert_eq(py_pthread_tid_offset(&img.rt, &proc, pthread), places[i]);
	}
	cr_assert_eq(py_pthread_tid_offset(&img.rt, &proc, 0), LAYOUT_NONE);
	cr_assert_eq(py_pthread_tid_offset(&img.rt, &proc, UINT64_MAX - 8), LAYOUT_NONE);
	image_proc_close(&proc);
	image_close(&img);
}

static int read_threads(struct image *img, const struct proc *proc) {
	py_thread_vec threads = { 0 };
	int r = py_threads_read(&img->rt, proc, &threads);

	cr_assert(!r || !threads.items, "untouched on failure");
	vec_free(&threads);
	return r;
}

static void check_bad_lists(struct image *img) {
	const struct layout *l = img->l;
	const pid_t tids[] = { 100 };
	raddr first, second, other;
	struct proc proc;

	image_proc_open(tids, 1, 0, "", &proc);
	first = image_thread(img, img->interp, IDENT, 100);
	second = image_thread(img, img->interp, IDENT, 100);
	image_put_u64(img, first + l->tstate_next, second); /* a circle */
	cr_assert_eq(read_threads(img, &proc), PY_E_TORN);
	image_put_u64(img, first + l->tstate_next, first);
	cr_assert_eq(read_threads(img, &proc), PY_E_TORN);
	image_put_u64(img, first + l->tstate_next, IMAGE_NOWHERE);
	cr_assert_eq(read_threads(img, &proc), MEM_E_FAULT);
	image_put_u64(img, first + l->tstate_next, UINT64_MAX);
	cr_assert_eq(read_threads(img, &proc), MEM_E_FAULT);
	image_put_u64(img, first + l->tstate_next, 0);
	cr_assert_eq(read_threads(img, &proc), 0);
	image_put_u64(img, first + l->tstate_interp, IMAGE_NOWHERE); /* another's */
	cr_assert_eq(read_threads(img, &proc), PY_E_TORN);
	image_put_u64(img, first + l->tstate_interp, img->interp);
	image_put_u64(img, second + l->tstate_thread_id, UINT64_MAX);
	if (knows_tids(img))
		image_put_u64(img, second + l->tstate_native_thread_id, UINT64_MAX);
	cr_assert_eq(read_threads(img, &proc), 0);
	image_put_u64(img, img->interp + l->interp_next, img->interp); /* interpreters in a circle */
	cr_assert_eq(read_threads(img, &proc), PY_E_TORN);
	other = image_interp(img, 1);
	image_put_u64(img, img->interp + l->interp_next, other);
	cr_assert_eq(read_threads(img, &proc), PY_E_TORN);
	image_put_u64(img, img->interp + l->interp_next, IMAGE_NOWHERE);
	cr_assert_eq(read_threads(img, &proc), MEM_E_FAULT);
	image_proc_close(&proc);
}

Test(threads, lists_that_lead_astray) {
	image_each(check_bad_lists);
}

Test(threads, more_than_there_can_be) {
	static const struct image_build build = { 0x030d00f0, LAYOUT_RELEASE };
	const pid_t tids[] = { 100 };
	py_thread_vec threads = { 0 };
	struct image img;
	struct proc proc;

	image_open(&img, &build);
	image_proc_open(tids, 1, 0, "", &proc);
	for (int i = 0; i < 65536; i++)
		image_thread(&img, img.interp, IDENT, 100);
	cr_assert_eq(py_threads_read(&img.rt, &proc, &threads), 0);
	cr_assert_eq(threads.n, LIMIT_THREADS);
	for (int i = 65536; i < 70000; i++)
		image_thread(&img, img.interp, IDENT, 100);
	cr_assert_eq(py_threads_read(&img.rt, &proc, &threads), PY_E_TORN);
	cr_assert_eq(threads.n, LIMIT_THREADS, "untouched on failure");
	vec_free(&threads);
	image_proc_close(&proc);
	image_close(&img);
}

static raddr put_module(struct image *img, raddr active) {
	raddr module = image_object(img, T_PLAIN, 64), key = image_text(img, "_active"), name, modules;

	image_put_u64(img, module + img->l->module_dict, image_dict(img, &key, &active, 1));
	name = image_text(img, "threading");
	modules = image_dict(img, &name, &module, 1);
	image_put_u64(img, img->interp + img->l->interp_modules, modules);
	return module;
}

static raddr new_thread_object(struct image *img, raddr name) {
	raddr object = image_object(img, T_PLAIN, 64), key = image_text(img, "_name");

	image_put_u64(img, object + 32, image_dict(img, &key, &name, 1));
	return object;
}

static void check_names(struct image *img) {
	raddr keys[6], values[6];
	struct py_thread_names names = { 0 };
	char longest[LIMIT_NAME_CHARS + 8];

	memset(longest, 'n', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	cr_assert_eq(py_thread_names_read(&img->rt, &names), 0);
	cr_assert_null(py_thread_name(&names, IDENT), "no modules yet");
	keys[0] = image_long(img, (int64_t)IDENT);
	values[0] = new_thread_object(img, image_text(img, "worker-1"));
	keys[1] = image_long(img, -1); /* what a program may put there */
	values[1] = values[0];
	keys[2] = image_text(img, "no number");
	values[2] = values[0];
	keys[3] = image_long(img, 77);
	values[3] = new_thread_object(img, image_long(img, 5)); /* its name is no str */
	keys[4] = image_long(img, 78);
	values[4] = image_long(img, 5);
	keys[5] = image_long(img, 79);
	values[5] = new_thread_object(img, image_text(img, longest));
	put_module(img, image_dict(img, keys, values, 6));
	cr_assert_eq(py_thread_names_read(&img->rt, &names), 0, "version %x", img->rt.reader.version);
	cr_assert_str_eq(py_thread_name(&names, IDENT), "worker-1");
	cr_assert_null(py_thread_name(&names, 77));
	cr_assert_null(py_thread_name(&names, 78));
	cr_assert_null(py_thread_name(&names, UINT64_MAX));
	cr_assert_eq(strlen(py_thread_name(&names, 79)), LIMIT_NAME_CHARS);
	py_thread_names_deinit(&names);
}

Test(threads, names) {
	image_each(check_names);
}

static void check_names_that_lie(struct image *img) {
	const raddr bad[] = { 0, IMAGE_NOWHERE, UINT64_MAX, image_long(img, 3), image_text(img, "x") };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct py_thread_names names = { 0 };
		raddr module = put_module(img, bad[i]);

		cr_assert_eq(py_thread_names_read(&img->rt, &names), 0);
		py_thread_names_deinit(&names);
		image_put_u64(img, module + img->l->module_dict, bad[i]);
		cr_assert_eq(py_thread_names_read(&img->rt, &names), 0);
		py_thread_names_deinit(&names);
		image_put_u64(img, img->interp + img->l->interp_modules, bad[i]);
		cr_assert_eq(py_thread_names_read(&img->rt, &names), 0);
		py_thread_names_deinit(&names);
	}
}

Test(threads, names_that_lie) {
	image_each(check_names_that_lie);
}

static void check_view(struct image *img) {
	const struct layout *l = img->l;
	raddr thread = image_thread(img, img->interp, IDENT, 100), gil = image_take(img, 256);
	struct py_interp_view view;

	if (layout_has(l->interp_gil)) {
		image_put_u64(img, img->interp + l->interp_gil, gil);
		image_put_u64(img, gil + l->gil_last_holder, thread);
		image_put_u32(img, gil + l->gil_locked, 1);
		image_put_u64(img, gil + l->gil_switch_number, 99);
		if (layout_has(l->gil_enabled))
			image_put_u32(img, gil + l->gil_enabled, 1);
	} else {
		img->rt.tstate_current = img->rt.runtime + l->runtime_tstate_current;
		image_put_u64(img, img->rt.tstate_current, thread);
	}
	cr_assert_eq(py_interp_view(&img->rt, img->interp, &view), 0);
	cr_assert_eq(view.threads_head, thread);
	cr_assert(view.gil_known);
	cr_assert_eq(view.gil_holder, thread);
	cr_assert_not(view.collecting);
	cr_assert_neq(py_interp_view(&img->rt, IMAGE_NOWHERE, &view), 0);
	cr_assert_eq(view.gil_holder, thread, "untouched on failure");
}

Test(runtime, who_holds_the_gil) {
	image_each(check_view);
}

/* What attaching needs: sys with hexversion and abiflags, and from 3.13 on the runtime's own table. */
static void put_sys(struct image *img, uint32_t hexversion, const char *abiflags) {
	raddr keys[] = { image_text(img, "hexversion"), image_text(img, "abiflags") };
	raddr values[] = { image_long(img, hexversion), image_text(img, abiflags) };

	image_put_u64(img, img->interp + img->l->interp_sysdict, image_dict(img, keys, values, 2));
}

#define MAPS_FORMAT \
	"555555554000-555555555000 r-xp 00000000 08:01 77 /usr/bin/python3\n" \
	"%llx-%llx rw-p 00001000 08:01 77 /usr/bin/python3\n" \
	"%llx-%llx rw-p 00000000 00:00 0 [heap]\n"

static int attach(struct image *img, struct py_runtime *rt, struct err *err) {
	const pid_t tids[] = { 100 };
	struct proc proc;
	char maps[512];
	unsigned long long start = IMAGE_BASE, data = start + (2U << 20), end = start + IMAGE_BYTES;
	int r;

	snprintf(maps, sizeof(maps), MAPS_FORMAT, start, data, data, end);
	image_proc_open(tids, 1, 0, maps, &proc);
	r = py_runtime_attach(&proc, img->rt.reader.mem, rt, err);
	image_proc_close(&proc);
	return r;
}

/* 3.8 and 3.9 are found by a scan where there are no symbols; every patch release of them. */
Test(runtime, attaches_by_scan) {
	static const uint32_t versions[] = { 0x030800f0, 0x030812f0, 0x030900f0, 0x030903f0, 0x030907f0, 0x030912f0,
		0x030913f0 };

	for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
		const struct image_build build = { versions[i], LAYOUT_RELEASE };
		struct py_runtime rt = { 0 };
		struct err err = { 0 };
		struct image img;

		image_open(&img, &build);
		cr_assert_eq(attach(&img, &rt, &err), PYSPYD_E_UNSUPPORTED, "no thread");
		image_thread(&img, img.interp, IDENT, 100);
		cr_assert_neq(attach(&img, &rt, &err), 0, "no sys");
		put_sys(&img, versions[i], "");
		cr_assert_eq(attach(&img, &rt, &err), 0, "%x: %s", versions[i], err.text);
		cr_assert_eq(rt.reader.version, versions[i]);
		cr_assert_eq(rt.interp_head, img.rt.interp_head);
		cr_assert_eq(rt.runtime, img.rt.runtime);
		cr_assert_eq(py_runtime_check(&rt), 0);
		put_sys(&img, versions[i], "t");
		cr_assert_neq(attach(&img, &rt, &err), 0, "a flavour that there is not");
		put_sys(&img, 0x03100000, "");
		cr_assert_neq(attach(&img, &rt, &err), 0, "another version");
		image_put_u64(&img, img.rt.interp_head, 0);
		cr_assert_neq(py_runtime_check(&rt), 0);
		image_close(&img);
	}
}

Test(runtime, tables_of_unknown_versions) {
	static const struct image_build build = { 0x030d00f0, LAYOUT_RELEASE };
	struct py_runtime rt = { 0 };
	struct err err = { 0 };
	struct image img;

	image_open(&img, &build);
	image_put(&img, img.rt.runtime, "xdebugpy", 8);
	image_put_u64(&img, img.rt.runtime + 8, 0x031000f0);
	cr_assert_eq(attach(&img, &rt, &err), PYSPYD_E_UNSUPPORTED);
	cr_assert_not_null(strstr(err.text, "3.16.0"), "%s", err.text);
	image_put_u64(&img, img.rt.runtime + 8, 0x030d00f0);
	cr_assert_eq(attach(&img, &rt, &err), PYSPYD_E_UNSUPPORTED, "a table of zeros");
	cr_assert_eq(rt.runtime, 0, "untouched on failure");
	image_close(&img);
}

Test(find, what_else_it_is) {
	static const struct {
		const char *path, *says;
	} known[] = {
		{ "/usr/bin/node", "Node.js" },
		{ "/usr/lib/libpypy3.9-c.so", "PyPy" },
		{ "/usr/bin/python2.7", "Python 2" },
		{ "/usr/lib/jvm/libjvm.so", "Java" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		char text[256];
		proc_map_vec maps = { 0 };

		snprintf(text, sizeof(text), "400000-401000 r-xp 00000000 08:01 77 %s\n", known[i].path);
		cr_assert_eq(proc_maps_parse(text, strlen(text), &maps), 0);
		cr_assert_not_null(strstr(py_find_what_else(&maps), known[i].says));
		proc_maps_free(&maps);
	}
}
