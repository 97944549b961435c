/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_TESTS_UNIT_IMAGE_H
#define PYSPYD_TESTS_UNIT_IMAGE_H

#include "engine/cpython/runtime.h"

/* A target's memory by hand: objects, code, frames and threads as one version of CPython lays them out. Everything is
 * at addresses from IMAGE_BASE on; nothing is ever freed. */

#define IMAGE_BASE UINT64_C(0x7f0000000000)
#define IMAGE_BYTES (24U << 20)
#define IMAGE_NOWHERE UINT64_C(0x7e0000000000) /* not mapped, and aligned */

enum image_type { T_LONG, T_TUPLE, T_BYTES, T_STR, T_DICT, T_CODE, T_CELL, T_PLAIN, IMAGE_TYPES };

struct image {
	uint8_t *bytes;
	size_t used;
	const struct layout *l;
	struct py_runtime rt; /* its memory is the image's */
	raddr interp;
};

/* The builds that the tests go through: one of each way in which stacks are laid out. */
struct image_build {
	uint32_t version;
	unsigned flavour;
};
extern const struct image_build image_builds[];
extern const size_t image_builds_n;

/* A runtime with one interpreter and no thread. */
void image_open(struct image *img, const struct image_build *build);
void image_close(struct image *img);

/* Calls check(img) on a fresh image of each build. */
void image_each(void (*check)(struct image *img));

/* From now on only the bytes below `end` can be read. */
void image_cut(struct image *img, raddr end);

raddr image_take(struct image *img, size_t bytes);
void image_put(struct image *img, raddr at, const void *bytes, size_t n);
void image_put_u64(struct image *img, raddr at, uint64_t value);
void image_put_u32(struct image *img, raddr at, uint32_t value);
void image_put_u8(struct image *img, raddr at, uint8_t value);
uint64_t image_u64(const struct image *img, raddr at);

raddr image_type_at(enum image_type type);
raddr image_object(struct image *img, enum image_type type, size_t bytes);
raddr image_text(struct image *img, const char *ascii);
raddr image_bytes(struct image *img, const void *bytes, size_t n);
raddr image_long(struct image *img, int64_t value);
raddr image_tuple(struct image *img, const raddr *items, size_t n);
raddr image_dict(struct image *img, const raddr *keys, const raddr *values, size_t n);

/* A code object with 64 bytes of bytecode and a line table that says `line` for all of them. */
raddr image_code(struct image *img, const char *name, const char *file, int line);

/* A thread state, linked in as the newest of its interpreter. */
raddr image_thread(struct image *img, raddr interp, uint64_t ident, pid_t tid);
raddr image_interp(struct image *img, int64_t id);

/* A frame's members, wherever the frame is. `owner` is left out where the version has none. */
void image_frame(struct image *img, raddr at, raddr previous, raddr code, uint64_t instr, uint8_t owner);
size_t image_frame_bytes(const struct image *img);

/* A captured /proc with one process, 100, and these threads; ns_first > 0: in a PID namespace of their own, where they
 * are numbered from there. */
void image_proc_open(const pid_t *tids, size_t n, pid_t ns_first, const char *maps, struct proc *ret_proc);
void image_proc_close(struct proc *proc);

#endif
