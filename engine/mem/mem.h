/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_MEM_MEM_H
#define PYSPYD_MEM_MEM_H

#include "engine/base/util.h"
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A target's memory behind one interface: a live process, or bytes in a test; later a core file and a snapshot.
 * Everything that reads CPython sees only this. */

enum {
	MEM_E_FAULT = 1, /* an address is not mapped, or not readable */
	MEM_E_GONE = 2,  /* the process has ended */
};

struct mem_range {
	raddr addr;
	size_t len;
	void *buf; /* the caller's, `len` bytes */
};

#define MEM_RANGES_MAX 1024 /* of one call; the kernel's limit for one process_vm_readv */

struct mem;

struct mem_ops {
	/* As mem_read_many. */
	int (*read_many)(struct mem *mem, const struct mem_range *ranges, size_t n, size_t *ret_done);
	/* As mem_read_together; NULL: read_many does. */
	int (*read_together)(struct mem *mem, const struct mem_range *ranges, size_t n, size_t *ret_done);
	void (*free)(struct mem *mem);
};

struct mem {
	const struct mem_ops *ops;
	uint64_t reads; /* calls made, by any thread; bounds what a hostile target makes us read */
};

/* A live process, read through /proc/PID/mem; where that is not to be had, by process_vm_readv, which makes the kernel
 * copy each page that the process shares with another since a fork: reading the heaps of forked workers so would take
 * the memory that sharing saves them. `pid` is as this process sees it. Return: 0, -ENOMEM. Nothing is read yet, so a
 * denied access shows at the first read (-EPERM). When it executes another program nothing can be read any more. */
int mem_live_new(pid_t pid, struct mem **ret_mem);

/* One or several segments of bytes, for tests. The bytes stay the caller's. */
struct mem_segment {
	raddr addr;
	size_t len;
	const void *bytes;
};
int mem_bytes_new(const struct mem_segment *segments, size_t n, struct mem **ret_mem);

/* Another handle on a memory, which it leaves alone when it is freed. Return: 0; -ENOMEM. */
int mem_borrow(struct mem *of, struct mem **ret_mem);

/* Pages of another memory, each read once until mem_cache_clear: what is read again is as old as that. `below` becomes
 * the cache's own. Bounded. Return: 0; -ENOMEM (`below` stays the caller's). */
int mem_cache_new(struct mem *below, struct mem **ret_mem);
void mem_cache_clear(struct mem *cache);

void mem_free(struct mem *mem);

/* Reads up to MEM_RANGES_MAX ranges in their order. A range that cannot be read ends the call: *ret_done (may be NULL)
 * is the number of ranges that were read whole before it. Return: 0 all were read; MEM_E_FAULT; MEM_E_GONE; -EPERM;
 * another negative errno. */
static inline int mem_read_many(struct mem *mem, const struct mem_range *ranges, size_t n, size_t *ret_done) {
	__atomic_add_fetch(&mem->reads, 1, __ATOMIC_RELAXED);
	return mem->ops->read_many(mem, ranges, n, ret_done);
}

/* As mem_read_many; of a live process by one process_vm_readv, where that is permitted: little time passes between the
 * first range and the last. For few pages, see mem_live_new. */
static inline int mem_read_together(struct mem *mem, const struct mem_range *ranges, size_t n, size_t *ret_done) {
	__atomic_add_fetch(&mem->reads, 1, __ATOMIC_RELAXED);
	return (mem->ops->read_together ? mem->ops->read_together : mem->ops->read_many)(mem, ranges, n, ret_done);
}

/* Reads one range whole. Return: as mem_read_many. */
static inline int mem_read(struct mem *mem, raddr addr, void *buf, size_t len) {
	return mem_read_many(mem, &(struct mem_range){ .addr = addr, .len = len, .buf = buf }, 1, NULL);
}

static inline int mem_read_u64(struct mem *mem, raddr addr, uint64_t *ret) {
	return mem_read(mem, addr, ret, sizeof(*ret));
}

/* Reads a NUL-terminated string of at most `size` - 1 bytes, page by page so that it may end right before an unmapped
 * one. A longer one is cut. `buf` always ends with NUL after success. Return: as mem_read_many. */
int mem_read_cstr(struct mem *mem, raddr addr, char *buf, size_t size);

#endif
