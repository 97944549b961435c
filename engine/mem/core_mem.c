/* SPDX-License-Identifier: MIT */
/* The memory of a core: what was dumped, and read-only parts of files that are proven to be the ones that the process
 * had. Where a mapping could be written to and was not dumped, nobody knows what it held. */
#include "engine/mem/core_internal.h"

#include <errno.h>
#include <string.h>

#define OPEN_FILES 32
#define PAGE_BYTES 4096U

struct open_file {
	size_t file;
	int fd;
};

struct mem_core {
	struct mem mem;
	struct core *core;
	struct open_file open[OPEN_FILES]; /* the one used longest ago is closed for another one */
	uint64_t used[OPEN_FILES], clock;
};

const struct core_segment *core_segment_at(const struct core *core, raddr addr) {
	size_t low = 0, high = core->segments.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (core->segments.items[middle].end <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low < core->segments.n && core->segments.items[low].start <= addr ? &core->segments.items[low] : NULL;
}

const struct core_mapping *core_mapping_at(const struct core *core, raddr addr) {
	size_t low = 0, high = core->mappings.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (core->mappings.items[middle].end <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low < core->mappings.n && core->mappings.items[low].start <= addr ? &core->mappings.items[low] : NULL;
}

/* Bytes of a segment that were dumped, from an address in it on. */
static uint64_t dumped_from(const struct core_segment *segment, raddr addr) {
	uint64_t at = addr - segment->start;

	return at < segment->bytes ? segment->bytes - at : 0;
}

static int fault_of(int r) {
	return r == -ENODATA ? MEM_E_FAULT : r;
}

int core_read_dumped(const struct core *core, raddr addr, void *buf, size_t len) {
	const struct core_segment *segment = core_segment_at(core, addr);

	if (!segment || dumped_from(segment, addr) < len)
		return MEM_E_FAULT;
	return fault_of(core_pread(core, segment->offset + (addr - segment->start), buf, len));
}

static int need_fd(struct mem_core *mem, size_t file, int *ret_fd) {
	size_t oldest = 0;
	int fd, r;

	for (size_t i = 0; i < OPEN_FILES; i++) {
		if (mem->open[i].fd >= 0 && mem->open[i].file == file) {
			mem->used[i] = ++mem->clock;
			*ret_fd = mem->open[i].fd;
			return 0;
		}
		if (mem->used[i] < mem->used[oldest])
			oldest = i;
	}
	r = core_file_open(mem->core, &mem->core->files.items[file], &fd);
	if (r)
		return r == -ENOMEM ? r : MEM_E_FAULT;
	close_fd(&mem->open[oldest].fd);
	mem->open[oldest] = (struct open_file){ .file = file, .fd = fd };
	mem->used[oldest] = ++mem->clock;
	*ret_fd = fd;
	return 0;
}

/* Behind the end of a file its last page is zeros, and then there is nothing. */
static int read_file(int fd, uint64_t offset, void *buf, size_t len) {
	size_t done = 0;

	if (offset > INT64_MAX || len > INT64_MAX - offset)
		return MEM_E_FAULT;
	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	if (done < len && (offset + done) / PAGE_BYTES != (offset + len - 1) / PAGE_BYTES)
		return MEM_E_FAULT;
	memset((char *)buf + done, 0, len - done);
	return 0;
}

/* Where the next segment begins behind an address that is in none. */
static raddr next_segment(const struct core *core, raddr addr) {
	size_t low = 0, high = core->segments.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (core->segments.items[middle].start <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low < core->segments.n ? core->segments.items[low].start : UINT64_MAX;
}

static int read_undumped(
	struct mem_core *mem, const struct core_segment *segment, raddr addr, void *buf, size_t len, size_t *ret_len) {
	const struct core_mapping *mapping = core_mapping_at(mem->core, addr);
	raddr end = segment ? segment->end : next_segment(mem->core, addr);
	int fd, r;

	if (!mapping || (segment && segment->write) ||
		mem->core->files.items[mapping->file].state != CORE_FILE_VERIFIED)
		return MEM_E_FAULT;
	*ret_len = min_of((uint64_t)len, min_of(end, mapping->end) - addr);
	r = need_fd(mem, mapping->file, &fd);
	return r ? r : read_file(fd, mapping->offset + (addr - mapping->start), buf, *ret_len);
}

/* Reads from the first byte on, as far as one source goes. */
static int read_piece(struct mem_core *mem, raddr addr, void *buf, size_t len, size_t *ret_len) {
	const struct core_segment *segment = core_segment_at(mem->core, addr);
	uint64_t dumped = segment ? dumped_from(segment, addr) : 0;

	if (!dumped)
		return read_undumped(mem, segment, addr, buf, len, ret_len);
	*ret_len = min_of((uint64_t)len, dumped);
	return fault_of(core_pread(mem->core, segment->offset + (addr - segment->start), buf, *ret_len));
}

static int read_one(struct mem_core *mem, const struct mem_range *range) {
	size_t done = 0;

	if (range->addr > UINT64_MAX - range->len)
		return MEM_E_FAULT;
	while (done < range->len) {
		size_t n = 0;
		int r = read_piece(mem, range->addr + done, (char *)range->buf + done, range->len - done, &n);

		if (r)
			return r;
		done += n;
	}
	return 0;
}

static int core_read_many(struct mem *mem, const struct mem_range *ranges, size_t n, size_t *ret_done) {
	size_t done = 0;
	int r = 0;

	if (n > MEM_RANGES_MAX)
		return -E2BIG;
	while (done < n && !(r = read_one((struct mem_core *)mem, &ranges[done])))
		done++;
	if (ret_done)
		*ret_done = done;
	return r;
}

static void core_mem_free(struct mem *mem) {
	struct mem_core *core = (struct mem_core *)mem;

	for (size_t i = 0; i < OPEN_FILES; i++)
		close_fd(&core->open[i].fd);
	free(core);
}

int core_mem_new(struct core *core, struct mem **ret_mem) {
	static const struct mem_ops ops = { .read_many = core_read_many, .free = core_mem_free };
	struct mem_core *mem = calloc(1, sizeof(*mem));

	if (!mem)
		return -ENOMEM;
	mem->mem.ops = &ops;
	mem->core = core;
	for (size_t i = 0; i < OPEN_FILES; i++)
		mem->open[i].fd = -1;
	*ret_mem = &mem->mem;
	return 0;
}
