/* SPDX-License-Identifier: MIT */
/* Memory of a live process and of a byte array, behind one interface. A live process is identified by its pid at the
 * time of the read; whoever holds a pidfd checks that it is still the same one. */
#include "engine/mem/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>

#define PAGE_BYTES 4096

struct mem_live {
	struct mem mem;
	pid_t pid;
	int mem_fd; /* /proc/PID/mem; -1: it could not be opened */
};

static int condition_of(int error) {
	switch (error) {
	case ESRCH: return MEM_E_GONE;
	case EFAULT:
	case EIO:
	case EINVAL: return MEM_E_FAULT;
	default: return -error;
	}
}

/* How many ranges lie whole within the first `bytes` bytes. */
static size_t ranges_within(const struct mem_range *ranges, size_t n, size_t bytes) {
	size_t i = 0;

	for (; i < n && ranges[i].len <= bytes; i++)
		bytes -= ranges[i].len;
	return i;
}

static int vm_read(pid_t pid, const struct mem_range *ranges, size_t n, size_t *done) {
	struct iovec local[MEM_RANGES_MAX], remote[MEM_RANGES_MAX];
	size_t total = 0;
	ssize_t got;

	for (size_t i = 0; i < n; i++) {
		local[i] = (struct iovec){ .iov_base = ranges[i].buf, .iov_len = ranges[i].len };
		remote[i] = (struct iovec){ .iov_base = (void *)(uintptr_t)ranges[i].addr, .iov_len = ranges[i].len };
		total += ranges[i].len;
	}
	got = process_vm_readv(pid, local, n, remote, n, 0);
	if (got < 0)
		return condition_of(errno);
	*done = (size_t)got == total ? n : ranges_within(ranges, n, (size_t)got);
	return (size_t)got == total ? 0 : MEM_E_FAULT;
}

/* The address space that was opened is no more: the process has ended, or executes another program. */
static int end_condition(pid_t pid) {
	size_t unused;

	return vm_read(pid, &(struct mem_range){ .len = 1, .buf = &(char){ 0 } }, 1, &unused) == MEM_E_GONE
		? MEM_E_GONE
		: MEM_E_FAULT;
}

static int file_read(const struct mem_live *live, const struct mem_range *ranges, size_t n, size_t *done) {
	for (; *done < n; ++*done) {
		const struct mem_range *range = &ranges[*done];
		ssize_t got = pread(live->mem_fd, range->buf, range->len, (off_t)range->addr);

		if (got < 0)
			return condition_of(errno);
		if (got == 0 && range->len)
			return end_condition(live->pid);
		if ((size_t)got < range->len)
			return MEM_E_FAULT;
	}
	return 0;
}

static int live_read_many(struct mem *mem, const struct mem_range *ranges, size_t n, size_t *ret_done) {
	const struct mem_live *live = (const struct mem_live *)mem;
	size_t done = 0;
	int r;

	if (n > MEM_RANGES_MAX)
		return -E2BIG;
	r = live->mem_fd >= 0 ? file_read(live, ranges, n, &done) : vm_read(live->pid, ranges, n, &done);
	if (ret_done)
		*ret_done = done;
	return r;
}

/* A seccomp filter may forbid the system call, and have nothing against reading files. */
static int live_read_together(struct mem *mem, const struct mem_range *ranges, size_t n, size_t *ret_done) {
	const struct mem_live *live = (const struct mem_live *)mem;
	size_t done = 0;
	int r = n > MEM_RANGES_MAX ? -E2BIG : vm_read(live->pid, ranges, n, &done);

	if ((r == -ENOSYS || r == -EPERM) && live->mem_fd >= 0)
		return live_read_many(mem, ranges, n, ret_done);
	if (ret_done)
		*ret_done = done;
	return r;
}

static void live_free(struct mem *mem) {
	struct mem_live *live = (struct mem_live *)mem;

	close_fd(&live->mem_fd);
	free(live);
}

int mem_live_new(pid_t pid, struct mem **ret_mem) {
	static const struct mem_ops ops = {
		.read_many = live_read_many, .read_together = live_read_together, .free = live_free
	};
	struct mem_live *live = calloc(1, sizeof(*live));
	char path[64];

	if (!live)
		return -ENOMEM;
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	*live = (struct mem_live){ .mem.ops = &ops, .pid = pid, .mem_fd = open(path, O_RDONLY | O_CLOEXEC) };
	*ret_mem = &live->mem;
	return 0;
}

struct mem_bytes {
	struct mem mem;
	size_t n;
	struct mem_segment segments[];
};

static int bytes_read_one(const struct mem_bytes *bytes, const struct mem_range *range) {
	if (!range->len) /* wherever it is, as for a live process */
		return 0;
	for (size_t i = 0; i < bytes->n; i++) {
		const struct mem_segment *s = &bytes->segments[i];

		if (range->addr < s->addr || range->addr - s->addr > s->len ||
			s->len - (range->addr - s->addr) < range->len)
			continue;
		memcpy(range->buf, (const char *)s->bytes + (range->addr - s->addr), range->len);
		return 0;
	}
	return MEM_E_FAULT;
}

static int bytes_read_many(struct mem *mem, const struct mem_range *ranges, size_t n, size_t *ret_done) {
	size_t done = 0;
	int r = 0;

	if (n > MEM_RANGES_MAX)
		return -E2BIG;
	while (done < n && !(r = bytes_read_one((struct mem_bytes *)mem, &ranges[done])))
		done++;
	if (ret_done)
		*ret_done = done;
	return r;
}

static void bytes_free(struct mem *mem) {
	free(mem);
}

int mem_bytes_new(const struct mem_segment *segments, size_t n, struct mem **ret_mem) {
	static const struct mem_ops ops = { .read_many = bytes_read_many, .free = bytes_free };
	struct mem_bytes *bytes = calloc(1, sizeof(*bytes) + n * sizeof(*segments));

	if (!bytes)
		return -ENOMEM;
	bytes->mem.ops = &ops;
	bytes->n = n;
	memcpy(bytes->segments, segments, n * sizeof(*segments));
	*ret_mem = &bytes->mem;
	return 0;
}

struct mem_borrowed {
	struct mem mem;
	struct mem *of;
};

static int borrowed_read_many(struct mem *mem, const struct mem_range *ranges, size_t n, size_t *ret_done) {
	return mem_read_many(((struct mem_borrowed *)mem)->of, ranges, n, ret_done);
}

static int borrowed_read_together(struct mem *mem, const struct mem_range *ranges, size_t n, size_t *ret_done) {
	return mem_read_together(((struct mem_borrowed *)mem)->of, ranges, n, ret_done);
}

int mem_borrow(struct mem *of, struct mem **ret_mem) {
	static const struct mem_ops ops = {
		.read_many = borrowed_read_many, .read_together = borrowed_read_together, .free = bytes_free
	};
	struct mem_borrowed *borrowed = calloc(1, sizeof(*borrowed));

	if (!borrowed)
		return -ENOMEM;
	*borrowed = (struct mem_borrowed){ .mem.ops = &ops, .of = of };
	*ret_mem = &borrowed->mem;
	return 0;
}

void mem_free(struct mem *mem) {
	if (mem)
		mem->ops->free(mem);
}

int mem_read_cstr(struct mem *mem, raddr addr, char *buf, size_t size) {
	size_t pos = 0;

	while (pos + 1 < size) {
		size_t step = min_of(PAGE_BYTES - (addr + pos) % PAGE_BYTES, size - 1 - pos);
		int r = mem_read(mem, addr + pos, buf + pos, step);

		if (r)
			return r;
		if (memchr(buf + pos, '\0', step))
			return 0;
		pos += step;
	}
	buf[pos] = '\0';
	return 0;
}
