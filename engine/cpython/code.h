/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_CODE_H
#define PYSPYD_CPYTHON_CODE_H

#include "engine/base/intern.h"
#include "engine/cpython/frames.h"
#include "engine/cpython/lines.h"

/* The second stage of a sample: from raw words to function, file and line, through a cache of decoded code objects.
 *
 * A code object's address is reused after it is freed. What tells a new one from the one that was decoded: the
 * interpreter's counter, where it has one (3.13+: it stands still while no code object was made or freed), else, and
 * when the counter moved, the object's own fields; up to 3.11, where a new one may have all its parts where the old one
 * had them, also the ends of its texts. */

#define PY_CODE_TEXTS 3 /* name, file, line table */

/* The end of a text in the target's memory. */
struct py_text_end {
	raddr at;
	uint64_t len; /* of the whole text */
	uint32_t n;   /* bytes of the end */
};

struct py_code {
	raddr addr;
	uint64_t serial;   /* never reused; tells two code objects apart that had the same address */
	uint64_t checked;  /* counter or clock when it was last found unchanged */
	uint64_t checksum; /* of the object's fields */
	struct py_text_end ends[PY_CODE_TEXTS];
	uint64_t texts;                        /* what those bytes say; where no version tells code objects apart */
	uint32_t check;                        /* as in py_raw_frame; 0: none */
	raddr bytecode;                        /* 3.11+: first instruction */
	raddr tlbc;                            /* free-threaded: array of thread-local copies, 0 none */
	uint32_t bytecode_len;                 /* bytes */
	uint32_t name, qualname, file, module; /* interned in the cache's strings */
	int first_line;
	uint8_t *linetable;
	size_t linetable_len;
};

struct py_code_cache {
	const struct py_runtime *rt;
	struct intern *strings; /* borrowed */
	VEC(struct py_code) codes;
	struct map index; /* address → index of the code object that is there now */
	uint64_t serials;
	raddr code_type;    /* the type object of code objects, once it was seen */
	raddr last_globals; /* the dictionary whose __name__ was looked up last, and what it said */
	uint32_t last_module;
	uint64_t last_globals_ns;           /* when; an old answer may be another dictionary's at the same address */
	uint64_t decoded, reused_addresses; /* for the accuracy account */
};

void py_code_cache_init(struct py_code_cache *cache, const struct py_runtime *rt, struct intern *strings);
void py_code_cache_deinit(struct py_code_cache *cache);

/* Whether each code object of this version has a co_version of its own, never given twice (3.12+). */
bool py_code_has_unique_version(const struct py_runtime *rt);

/* Where a str keeps the hash of what it says. */
uint32_t py_str_hash_offset(const struct layout *l);

/* The decoded code object of a raw frame. `generation` as in py_raw_stack, `now_ns` any steady clock, `leaf` for the
 * innermost frame. The pointer is good until the next call. Return: 0; PY_E_TORN: no code object there, or the
 * instruction is outside it; PY_E_TYPE: the frame has a check, and another code object is at its address by now;
 * MEM_E_*; -ENOMEM. */
int py_code_lookup(struct py_code_cache *cache, const struct py_raw_frame *frame, uint64_t generation, uint64_t now_ns,
	bool leaf, const struct py_code **ret_code);

/* Before the look-ups of a whole stack: reads all that they would read again one by one, at once. */
void py_code_check_many(
	struct py_code_cache *cache, const struct py_raw_frame *frames, size_t n, uint64_t generation, uint64_t now_ns);

/* Offset of the frame's instruction in the bytecode, in bytes; negative before the first. */
int64_t py_code_offset(const struct py_code_cache *cache, const struct py_code *code, const struct py_raw_frame *frame);

/* The line of that instruction; 0: none. */
int py_code_line(const struct py_code_cache *cache, const struct py_code *code, int64_t offset);

#endif
