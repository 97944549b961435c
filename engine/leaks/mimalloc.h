/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_LEAKS_MIMALLOC_H
#define PYSPYD_LEAKS_MIMALLOC_H

#include "engine/cpython/reader.h"
#include "engine/leaks/regions.h"

/* The heaps of mimalloc: of every free-threaded build, and of others under PYTHONMALLOC=mimalloc.
 *
 * A segment is 32 MiB, aligned to that, or one huge block of its own length. Its header describes slices of 64 KiB; one
 * or several of them in a row are a page, of blocks of one size (CPython 3.13
 * Include/internal/mimalloc/mimalloc/types.h). Blocks up to `capacity` have been made; each is in use, or a link in one
 * of three lists: those ready for use, those that the page's own thread has freed, and those that others have. */

#define MIMALLOC_SEGMENT_BYTES (UINT64_C(32) << 20)
#define MIMALLOC_SLICE_BYTES (UINT64_C(64) << 10)
#define MIMALLOC_BEGIN_BYTES 512 /* of a segment: enough to recognise it */
#define MIMALLOC_PAGE_BYTES 128  /* of a page's description at most */
#define MIMALLOC_BLOCKS_MAX 8192 /* of a page */
#define MIMALLOC_READ_BYTES (1U << 20)

/* Heaps of free-threaded builds: what the blocks of a page were asked for. Others have one heap, MIMALLOC_MEM. */
enum mimalloc_tag {
	MIMALLOC_MEM,    /* tables, buffers */
	MIMALLOC_OBJECT, /* objects that the collector does not know, and what they own */
	MIMALLOC_GC,     /* objects that it may know: nothing stands before them */
	MIMALLOC_GC_PRE, /* the same with two words before: a dict, weak references */
	MIMALLOC_TAGS,
};

/* Where a build keeps what. Two generations of the library: 2.1 (3.13, and 3.14 at first) and 2.5 (3.14.10, 3.15), each
 * with and without the GIL, release and debug. */
struct mimalloc_format {
	unsigned flavour;    /* enum layout_flavour, or-ed */
	uint16_t page_bytes; /* of a page's description */
	uint16_t info;       /* slices that a segment's header takes */
	/* in a segment */
	uint16_t abandoned, pages, cookie, length, info_at, kind, entries, slices;
	/* in a page's description */
	uint16_t used, used_bytes, size, size_bytes, local_free, thread_free;
	uint16_t start;          /* MIMALLOC_NONE: computed */
	uint16_t keys;           /* of its lists; MIMALLOC_NONE: they are plain */
	uint16_t tag, tag_shift; /* a byte, and bits of it that are something else */
	uint16_t padding;        /* at a block's end */
};
#define MIMALLOC_NONE UINT16_MAX

extern const struct mimalloc_format mimalloc_formats[];
extern const size_t mimalloc_formats_n;

struct mimalloc_segment {
	raddr addr;
	uint64_t length;  /* slices, with those of the header */
	uint32_t entries; /* of them that are described */
	uint64_t key;     /* the same in all segments; another one for another copy of the library in the process */
};

struct mimalloc_page {
	raddr meta;        /* its description */
	raddr start;       /* its first block */
	uint64_t size;     /* of a block */
	uint64_t span;     /* bytes from its first block to its end */
	uint32_t capacity; /* blocks that were ever made: the first ones */
	uint32_t used;     /* … of which so many are in use, or freed by other threads since */
	uint8_t tag;       /* enum mimalloc_tag */
};

struct mimalloc_lists {
	raddr heads[3];
	uint64_t keys[2];
	bool has_keys;
};

/* Return: whether MIMALLOC_BEGIN_BYTES at `head` begin a segment at `addr`. */
bool mimalloc_segment_recognise(
	const struct mimalloc_format *format, const uint8_t *head, raddr addr, struct mimalloc_segment *ret_segment);

/* Return: whether `bytes`, format->page_bytes of them, describe a page with blocks. `index` is that of its first slice
 * in the segment. */
bool mimalloc_page_recognise(const struct mimalloc_format *format, const struct mimalloc_segment *segment,
	uint64_t index, const uint8_t *bytes, struct mimalloc_page *ret_page, struct mimalloc_lists *ret_lists);

/* Marks the free ones among the blocks of a page, of which the first `len` bytes from `start` on were copied. free[]
 * has MIMALLOC_BLOCKS_MAX entries. Return: whether the lists are as long as the page says: else it changed while it was
 * read. */
bool mimalloc_mark_free(const struct mimalloc_page *page, const struct mimalloc_lists *lists, const uint8_t *bytes,
	size_t len, bool *free);

/* The heaps of one process: which pages there are. Less than 0.1 % of their memory. */
struct mimalloc {
	const struct mimalloc_format *format;
	uint64_t key;
	VEC(struct mimalloc_page) pages; /* ascending */
	uint64_t segments;
	bool incomplete; /* a limit was met */
};

/* Finds them in the regions that may be heaps. `object`: any object of Python's that was not there from the start, such
 * as the dict of sys.modules, since libraries may bring a copy of mimalloc with them; its segment says which is
 * Python's. 0: the first that is found. Return: 0; PY_E_TYPE: none, or the object is in none; MEM_E_GONE; negative
 * errno. */
int mimalloc_find(const struct py_reader *py, const struct regions *regions, raddr object, struct mimalloc *ret_heap);
void mimalloc_deinit(struct mimalloc *heap);

/* The page whose blocks an address lies in; NULL none. And the block; the caller has asked for its page. */
const struct mimalloc_page *mimalloc_page_of(const struct mimalloc *heap, raddr addr);
raddr mimalloc_block_of(const struct mimalloc_page *page, raddr addr);

/* A block in use, copied. */
struct mimalloc_block {
	raddr addr;
	uint64_t size; /* that it takes */
	enum mimalloc_tag tag;
	const uint8_t *bytes; /* `len` of them: all that may be used, or the first MIMALLOC_READ_BYTES */
	size_t len;
};

struct mimalloc_totals {
	uint64_t blocks;     /* as sys.getallocatedblocks() says */
	uint64_t pages;      /* with blocks in use … */
	uint64_t page_bytes; /* … and their memory */
	uint64_t free_bytes; /* in them, not in use */
	uint64_t moved;      /* pages that changed while they were read */
};

/* Calls visit for every block in use, ascending; what it returns other than 0 ends the walk and is returned. The target
 * goes on meanwhile. Blocks that another thread has freed last in a page that was full count as in use until the page's
 * own thread hears of it; objects in them have no references any more. Return: 0; MEM_E_GONE; negative errno.
 * *ret_totals is set on success. */
typedef int mimalloc_visit(void *userdata, const struct mimalloc_block *block);
int mimalloc_walk(const struct py_reader *py, const struct mimalloc *heap, mimalloc_visit *visit, void *userdata,
	struct mimalloc_totals *ret_totals);

#endif
