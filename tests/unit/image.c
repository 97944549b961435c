/* SPDX-License-Identifier: MIT */
/* Builds memory images and proc trees for the tests. Only what the readers look at is filled in. */
#include "tests/unit/image.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>

#define TYPE_BYTES 1024
#define BYTECODE_BYTES 64
#define PROC_PID 100

static const struct {
	const char *name;
	uint64_t flags;
} types[] = {
	[T_LONG] = { "int", 1U << 24 },
	[T_TUPLE] = { "tuple", 1U << 26 },
	[T_BYTES] = { "bytes", 1U << 27 },
	[T_STR] = { "str", 1U << 28 },
	[T_DICT] = { "dict", 1U << 29 },
	[T_CODE] = { "code", 0 },
	[T_CELL] = { "cell", 0 },
	[T_PLAIN] = { "Thread", 0 },
};

const struct image_build image_builds[] = {
	{ 0x030812f0, LAYOUT_RELEASE },
	{ 0x030a0df0, LAYOUT_RELEASE },
	{ 0x030b07f0, LAYOUT_RELEASE },
	{ 0x030c01f0, LAYOUT_RELEASE },
	{ 0x030d00f0, LAYOUT_RELEASE },
	{ 0x030d05f0, LAYOUT_FREE_THREADED },
	{ 0x030e00f0, LAYOUT_RELEASE },
	{ 0x030f00f0, LAYOUT_RELEASE },
};
const size_t image_builds_n = ARRAY_SIZE(image_builds);

raddr image_take(struct image *img, size_t bytes) {
	raddr at = IMAGE_BASE + img->used;

	img->used += (bytes + 15) & ~(size_t)15;
	cr_assert_leq(img->used, IMAGE_BYTES);
	return at;
}

void image_put(struct image *img, raddr at, const void *bytes, size_t n) {
	cr_assert(at >= IMAGE_BASE && at - IMAGE_BASE <= IMAGE_BYTES - n);
	memcpy(img->bytes + (at - IMAGE_BASE), bytes, n);
}

void image_put_u64(struct image *img, raddr at, uint64_t value) {
	image_put(img, at, &value, sizeof(value));
}

void image_put_u32(struct image *img, raddr at, uint32_t value) {
	image_put(img, at, &value, sizeof(value));
}

void image_put_u8(struct image *img, raddr at, uint8_t value) {
	image_put(img, at, &value, sizeof(value));
}

uint64_t image_u64(const struct image *img, raddr at) {
	uint64_t value;

	memcpy(&value, img->bytes + (at - IMAGE_BASE), sizeof(value));
	return value;
}

raddr image_type_at(enum image_type type) {
	return IMAGE_BASE + (uint64_t)type * TYPE_BYTES;
}

static void put_types(struct image *img) {
	image_take(img, (size_t)IMAGE_TYPES * TYPE_BYTES);
	for (enum image_type t = 0; t < IMAGE_TYPES; t++) {
		raddr name = image_take(img, 32);

		image_put(img, name, types[t].name, strlen(types[t].name) + 1);
		image_put_u64(img, image_type_at(t) + img->l->type_name, name);
		image_put_u64(img, image_type_at(t) + img->l->type_flags, types[t].flags);
		image_put_u64(img, image_type_at(t) + img->l->type_basicsize, img->l->object_size);
	}
	image_put_u64(img, image_type_at(T_PLAIN) + img->l->type_dictoffset, 32);
}

void image_cut(struct image *img, raddr end) {
	struct mem_segment segment = { IMAGE_BASE, end - IMAGE_BASE, img->bytes };

	mem_free(img->rt.reader.mem);
	cr_assert_eq(mem_bytes_new(&segment, 1, &img->rt.reader.mem), 0);
}

void image_open(struct image *img, const struct image_build *build) {
	const struct layout_row *row = layout_find(build->version, build->flavour);

	cr_assert_not_null(row);
	*img = (struct image){ .bytes = calloc(1, IMAGE_BYTES) };
	cr_assert_not_null(img->bytes);
	img->rt = (struct py_runtime){ .pthread_tid = LAYOUT_NONE };
	img->rt.reader =
		(struct py_reader){ .layout = row->layout, .version = build->version, .flavour = build->flavour };
	img->l = &img->rt.reader.layout;
	image_cut(img, IMAGE_BASE + IMAGE_BYTES);
	put_types(img);
	img->rt.runtime = image_take(img, layout_has(img->l->runtime_size) ? img->l->runtime_size : 64);
	img->rt.interp_head = img->rt.runtime +
		(layout_has(img->l->runtime_interpreters_head) ? img->l->runtime_interpreters_head : 0);
	img->interp = image_interp(img, 0);
}

void image_close(struct image *img) {
	mem_free(img->rt.reader.mem);
	free(img->bytes);
}

void image_each(void (*check)(struct image *img)) {
	for (size_t i = 0; i < image_builds_n; i++) {
		struct image img;

		image_open(&img, &image_builds[i]);
		check(&img);
		image_close(&img);
	}
}

raddr image_object(struct image *img, enum image_type type, size_t bytes) {
	raddr at = image_take(img, max_of(bytes, (size_t)256));

	image_put_u64(img, at + img->l->object_type - 8, 1); /* references; free-threaded: those of other threads … */
	if (img->rt.reader.flavour & LAYOUT_FREE_THREADED)
		image_put_u32(img, at + img->l->object_type - 12, 1); /* … and of its own */
	image_put_u64(img, at + img->l->object_type, image_type_at(type));
	return at;
}

raddr image_text(struct image *img, const char *ascii) {
	const struct layout *l = img->l;
	size_t n = strlen(ascii);
	raddr at = image_object(img, T_STR, l->unicode_ascii_size + n + 1);

	image_put_u64(img, at + l->unicode_length, n);
	image_put_u32(img, at + l->unicode_state,
		1U << l->unicode_kind_bit | 1U << l->unicode_compact_bit | 1U << l->unicode_ascii_bit);
	image_put(img, at + l->unicode_ascii_size, ascii, n);
	return at;
}

raddr image_bytes(struct image *img, const void *bytes, size_t n) {
	raddr at = image_object(img, T_BYTES, img->l->bytes_data + n + 1);

	image_put_u64(img, at + img->l->var_size, n);
	image_put(img, at + img->l->bytes_data, bytes, n);
	return at;
}

raddr image_long(struct image *img, int64_t value) {
	raddr at = image_object(img, T_LONG, 64);
	uint64_t left = value < 0 ? -(uint64_t)value : (uint64_t)value;
	uint64_t n = 0;

	for (; left; left >>= 30, n++)
		image_put_u32(img, at + img->l->long_digits + n * 4, left & 0x3fffffff);
	if (layout_has(img->l->long_tag))
		image_put_u64(img, at + img->l->long_tag, n << 3 | (value < 0 ? 2 : n ? 0 : 1));
	else
		image_put_u64(img, at + img->l->var_size, value < 0 ? -n : n);
	return at;
}

raddr image_tuple(struct image *img, const raddr *items, size_t n) {
	raddr at = image_object(img, T_TUPLE, img->l->tuple_items + n * 8);

	image_put_u64(img, at + img->l->var_size, n);
	for (size_t i = 0; i < n; i++)
		image_put_u64(img, at + img->l->tuple_items + i * 8, items[i]);
	return at;
}

/* Keys of any kind, with an index of eight slots that nobody reads. */
raddr image_dict(struct image *img, const raddr *keys, const raddr *values, size_t n) {
	const struct layout *l = img->l;
	raddr at = image_object(img, T_DICT, 64), table = image_take(img, l->keys_indices + 8 + n * 24);

	cr_assert_leq(n, 8);
	image_put_u64(img, at + l->dict_used, n);
	image_put_u64(img, at + l->dict_keys, table);
	if (layout_has(l->keys_size)) {
		image_put_u64(img, table + l->keys_size, 8);
	} else {
		image_put_u8(img, table + l->keys_log2_size, 3);
		image_put_u8(img, table + l->keys_log2_index_bytes, 3);
	}
	image_put_u64(img, table + l->keys_nentries, n);
	for (size_t i = 0; i < n; i++) {
		image_put_u64(img, table + l->keys_indices + 8 + i * 24 + 8, keys[i]);
		image_put_u64(img, table + l->keys_indices + 8 + i * 24 + 16, values[i]);
	}
	return at;
}

/* One entry that covers eight code units (3.11+), or 64 bytes: no line change. */
static raddr line_table(struct image *img) {
	static const uint8_t locations[] = { 0xef, 0x00, 0xef, 0x00, 0xef, 0x00, 0xef, 0x00 }; /* no columns, delta 0 */
	static const uint8_t linetable[] = { 64, 0 };
	uint32_t minor = PY_MINOR(img->rt.reader.version);

	if (minor >= 0x030b)
		return image_bytes(img, locations, sizeof(locations));
	return image_bytes(img, linetable, minor == 0x030a ? sizeof(linetable) : 0);
}

raddr image_code(struct image *img, const char *name, const char *file, int line) {
	const struct layout *l = img->l;
	raddr at = image_object(img, T_CODE, l->code_size + BYTECODE_BYTES);
	raddr text = image_text(img, name);

	image_put_u64(img, at + l->code_name, text);
	image_put_u64(img, at + l->code_filename, image_text(img, file));
	if (layout_has(l->code_qualname))
		image_put_u64(img, at + l->code_qualname, text);
	image_put_u64(img, at + l->code_linetable, line_table(img));
	image_put_u32(img, at + l->code_firstlineno, (uint32_t)line);
	if (layout_has(l->code_adaptive))
		image_put_u64(img, at + l->var_size, BYTECODE_BYTES / 2);
	return at;
}

raddr image_interp(struct image *img, int64_t id) {
	raddr at = image_take(img, img->l->interp_size);

	image_put_u64(img, at + img->l->interp_next, image_u64(img, img->rt.interp_head));
	image_put_u64(img, img->rt.interp_head, at);
	if (layout_has(img->l->interp_id))
		image_put_u64(img, at + img->l->interp_id, (uint64_t)id);
	return at;
}

raddr image_thread(struct image *img, raddr interp, uint64_t ident, pid_t tid) {
	const struct layout *l = img->l;
	raddr at = image_take(img, l->tstate_size), head = interp + l->interp_threads_head;

	image_put_u64(img, at + l->tstate_next, image_u64(img, head));
	if (image_u64(img, head))
		image_put_u64(img, image_u64(img, head) + l->tstate_prev, at);
	image_put_u64(img, at + l->tstate_interp, interp);
	image_put_u64(img, at + l->tstate_thread_id, ident);
	if (layout_has(l->tstate_native_thread_id))
		image_put_u64(img, at + l->tstate_native_thread_id, (uint64_t)tid);
	image_put_u64(img, head, at);
	return at;
}

size_t image_frame_bytes(const struct image *img) {
	return layout_has(img->l->frame_lasti) ? img->l->frame_size : img->l->frame_localsplus + 16;
}

void image_frame(struct image *img, raddr at, raddr previous, raddr code, uint64_t instr, uint8_t owner) {
	const struct layout *l = img->l;

	image_put_u64(img, at + l->frame_previous, previous);
	image_put_u64(img, at + l->frame_code, code);
	if (layout_has(l->frame_lasti))
		image_put_u32(img, at + l->frame_lasti, (uint32_t)instr);
	else
		image_put_u64(img, at + l->frame_instr, instr);
	if (layout_has(l->frame_owner))
		image_put_u8(img, at + l->frame_owner, owner);
}

static char proc_root[] = "/tmp/pyspyd-image-XXXXXX";

static void write_file(const char *path, const char *text) {
	FILE *file = fopen(path, "w");

	cr_assert_not_null(file);
	cr_assert_geq(fputs(text, file), 0);
	cr_assert_eq(fclose(file), 0);
}

static void write_task(const char *folder, pid_t tid, pid_t ns_tid) {
	char path[128], text[256], ns[32] = "";

	cr_assert_eq(mkdir(folder, 0700), 0);
	snprintf(path, sizeof(path), "%s/stat", folder);
	snprintf(text, sizeof(text),
		"%d (python3) S 1 1 1 0 -1 4194304 1 0 0 0 4 1 3 1 20 0 3 0 136519 16961536 3335 1 1 1 0 0 0 0 0 0 2 0 "
		"0 "
		"0 17 5 0 0 0 0 0 1 2 3 4 5 6 7 0\n",
		(int)tid);
	write_file(path, text);
	snprintf(path, sizeof(path), "%s/status", folder);
	if (ns_tid)
		snprintf(ns, sizeof(ns), "\t%d", (int)ns_tid);
	snprintf(text, sizeof(text),
		"Name:\tpython3\nState:\tS (sleeping)\nTgid:\t%d\nPid:\t%d\nPPid:\t1\nTracerPid:\t0\nUid:\t0\t0\t0\t0\n"
		"Gid:\t0\t0\t0\t0\nNSpid:\t%d%s\nSeccomp:\t0\nvoluntary_ctxt_switches:\t1\n"
		"nonvoluntary_ctxt_switches:\t1\n",
		PROC_PID, (int)tid, (int)tid, ns);
	write_file(path, text);
}

void image_proc_open(const pid_t *tids, size_t n, pid_t ns_first, const char *maps, struct proc *ret_proc) {
	char path[96];

	strcpy(proc_root + sizeof(proc_root) - 7, "XXXXXX");
	cr_assert_not_null(mkdtemp(proc_root));
	snprintf(path, sizeof(path), "%s/%d", proc_root, PROC_PID);
	write_task(path, PROC_PID, ns_first);
	snprintf(path, sizeof(path), "%s/%d/maps", proc_root, PROC_PID);
	write_file(path, maps);
	snprintf(path, sizeof(path), "%s/%d/task", proc_root, PROC_PID);
	cr_assert_eq(mkdir(path, 0700), 0);
	for (size_t i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%d/task/%d", proc_root, PROC_PID, (int)tids[i]);
		write_task(path, tids[i], ns_first ? ns_first + (pid_t)i : 0);
	}
	cr_assert_eq(proc_open(proc_root, PROC_PID, ret_proc), 0);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

void image_proc_close(struct proc *proc) {
	proc_close(proc);
	cr_assert_eq(nftw(proc_root, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}
