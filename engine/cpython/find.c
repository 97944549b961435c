/* SPDX-License-Identifier: MIT */
/* Looking for interpreters in the files that a process has mapped, and in its data.
 *
 * In a file: the section .PyRuntime (3.10+; it survives strip), then the symbols _PyRuntime (3.7+) and interp_head
 * (3.6), and those of variables that older versions have nowhere else. In memory, where a file has neither: the cookie
 * of the debug offsets (3.13+), and words that lead to an interpreter and its first thread, which must point back (3.6
 * to 3.9, whose four layouts agree in these two fields).
 */
#include "engine/cpython/find.h"

#include "engine/elf/elf_image.h"
#include <errno.h>
#include <string.h>

#define FILES_MAX 2048             /* distinct mapped files that are opened */
#define SCAN_BYTES_MAX (16U << 20) /* of writable data that are scanned */
#define SCAN_BLOCK_BYTES (256U << 10)
#define SCAN_CANDIDATES_MAX 16
#define FIRST_WITH_TRACEMALLOC 0x030c0000U /* in _PyRuntime */
#define OLD_THREADS_HEAD 8                 /* PyInterpreterState.tstate_head, 3.6 to 3.9 */
#define OLD_TSTATE_INTERP 16               /* PyThreadState.interp, 3.6 to 3.9 */

static const char *base_name(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The executable is the first file in the list of mappings on Linux but for a shared object started by hand, so both
 * count. */
static bool is_likely(const struct proc_map *map, const struct proc_map *first) {
	return (map->inode == first->inode && map->dev == first->dev) || strstr(base_name(map->path), "python");
}

static bool is_file(const struct proc_map *map) {
	return map->inode && map->path[0] == '/' && strncmp(map->path, "/dev/", 5) && strncmp(map->path, "/memfd:", 7);
}

/* Where each file is mapped first, each file once. */
static bool is_first_of_file(const proc_map_vec *maps, const struct proc_map *map) {
	return map == maps->items || map[-1].inode != map->inode || map[-1].dev != map->dev;
}

static uint32_t version_in_file(struct elf_image *image) {
	uint64_t vaddr, size, version = 0;

	/* const unsigned long Py_Version, 3.11+ */
	if (elf_image_symbol(image, "Py_Version", &vaddr, &size) || size != sizeof(version) ||
		elf_image_read_vaddr(image, vaddr, &version, sizeof(version)) || version > UINT32_MAX)
		return 0;
	return (uint32_t)version;
}

static raddr symbol_addr(struct elf_image *image, uint64_t bias, const char *name, uint64_t *ret_size) {
	uint64_t vaddr, size;

	if (elf_image_symbol(image, name, &vaddr, &size))
		return 0;
	if (ret_size)
		*ret_size = size;
	return vaddr + bias;
}

static void find_statics(struct elf_image *image, uint64_t bias, struct py_candidate *candidate) {
	struct py_statics *s = &candidate->statics;

	if (candidate->version >= FIRST_WITH_TRACEMALLOC)
		return;
	s->traced_config = symbol_addr(image, bias, "_Py_tracemalloc_config", NULL);
	if (!s->traced_config) /* to 3.7 */
		s->traced_config = symbol_addr(image, bias, "tracemalloc_config", NULL);
	s->traced_memory = symbol_addr(image, bias, "tracemalloc_traced_memory", NULL);
	s->traced_peak = symbol_addr(image, bias, "tracemalloc_peak_traced_memory", NULL);
	s->traces = symbol_addr(image, bias, "tracemalloc_traces", NULL);
	if (candidate->runtime)
		return;
	s->gc_stats = symbol_addr(image, bias, "generation_stats", NULL);
	s->gc_collecting = symbol_addr(image, bias, "collecting", NULL);
	s->gc_enabled = symbol_addr(image, bias, "enabled", NULL);
}

static int add_from_image(struct elf_image *image, uint64_t bias, py_candidate_vec *candidates) {
	struct py_candidate candidate = { 0 };
	uint64_t vaddr;

	if (!elf_image_section(image, ".PyRuntime", &vaddr, &candidate.runtime_bytes))
		candidate.runtime = vaddr + bias;
	else
		candidate.runtime = symbol_addr(image, bias, "_PyRuntime", &candidate.runtime_bytes);
	if (!candidate.runtime)
		candidate.interp_head = symbol_addr(image, bias, "interp_head", NULL);
	if (!candidate.runtime && !candidate.interp_head)
		return 0;
	candidate.tstate_current = symbol_addr(image, bias, "_PyThreadState_Current", NULL);
	candidate.version = version_in_file(image);
	find_statics(image, bias, &candidate);
	return vec_push(candidates, candidate);
}

bool py_find_in_file(int fd) {
	struct elf_image *image = NULL;
	uint64_t vaddr, size;
	bool found;

	if (elf_image_open(fd, &image))
		return false;
	found = !elf_image_section(image, ".PyRuntime", &vaddr, &size) ||
		!elf_image_symbol(image, "_PyRuntime", &vaddr, &size) ||
		!elf_image_symbol(image, "interp_head", &vaddr, &size);
	elf_image_free(image);
	return found;
}

static int look_into_file(
	const struct proc *proc, const proc_map_vec *maps, const struct proc_map *map, py_candidate_vec *candidates) {
	struct elf_image *image = NULL;
	int fd _close_ = -1;
	uint64_t bias;
	int r = proc_map_open(proc, map, &fd);

	if (r)
		return r == PROC_E_GONE ? r : 0; /* a file that cannot be had has nothing to say */
	if (elf_image_open(fd, &image))
		return 0;
	r = elf_image_bias(image, maps, map, &bias) ? 0 : add_from_image(image, bias, candidates);
	elf_image_free(image);
	return r;
}

static int look_into_files(
	const struct proc *proc, const proc_map_vec *maps, bool likely, py_candidate_vec *candidates) {
	size_t files = 0;
	int r = 0;

	for (size_t i = 0; !r && i < maps->n && files < FILES_MAX; i++) {
		const struct proc_map *map = &maps->items[i];

		if (!is_file(map) || !is_first_of_file(maps, map) || is_likely(map, maps->items) != likely)
			continue;
		files++;
		r = look_into_file(proc, maps, map, candidates);
	}
	return r;
}

struct scan {
	struct mem *mem;
	const proc_map_vec *maps;
	py_candidate_vec *candidates;
	size_t scanned;
	uint8_t *block;
};

static bool in_writable(const struct scan *scan, raddr addr) {
	size_t low = 0, high = scan->maps->n;

	while (low < high) {
		size_t mid = (low + high) / 2;
		const struct proc_map *map = &scan->maps->items[mid];

		if (addr < map->start)
			high = mid;
		else if (addr >= map->end)
			low = mid + 1;
		else
			return map->write && !(addr & 7);
	}
	return false;
}

/* Does this word lead to an interpreter whose newest thread points back to it? */
static bool leads_to_interpreter(const struct scan *scan, uint64_t word) {
	uint64_t tstate, back;

	return in_writable(scan, word) && !mem_read_u64(scan->mem, word + OLD_THREADS_HEAD, &tstate) &&
		in_writable(scan, tstate) && !mem_read_u64(scan->mem, tstate + OLD_TSTATE_INTERP, &back) &&
		back == word;
}

static int scan_block(struct scan *scan, raddr addr, size_t len) {
	int r = 0;

	for (size_t at = 0; !r && at + 8 <= len && scan->candidates->n < SCAN_CANDIDATES_MAX; at += 8) {
		uint64_t word;

		memcpy(&word, scan->block + at, sizeof(word));
		if (!memcmp(&word, "xdebugpy", sizeof(word)))
			r = vec_push(scan->candidates, (struct py_candidate){ .runtime = addr + at });
		else if (word && leads_to_interpreter(scan, word))
			r = vec_push(scan->candidates, (struct py_candidate){ .interp_head = addr + at });
	}
	return r;
}

static int scan_map(struct scan *scan, const struct proc_map *map) {
	int r = 0;

	for (raddr addr = map->start; !r && addr < map->end && scan->scanned < SCAN_BYTES_MAX;
		addr += SCAN_BLOCK_BYTES) {
		size_t len = (size_t)min_of((uint64_t)SCAN_BLOCK_BYTES, map->end - addr);

		scan->scanned += len;
		r = mem_read(scan->mem, addr, scan->block, len);
		if (r == MEM_E_FAULT) {
			r = 0;
			continue;
		}
		if (!r)
			r = scan_block(scan, addr, len);
	}
	return r;
}

/* Data of a file, and the anonymous mapping right behind it, which is the rest of its .bss. */
static bool is_data_of_likely(const proc_map_vec *maps, const struct proc_map *map) {
	if (!map->write || map->shared)
		return false;
	if (is_file(map))
		return is_likely(map, maps->items);
	return map > maps->items && !map->inode && !map->path[0] && map[-1].end == map->start && is_file(&map[-1]) &&
		is_likely(&map[-1], maps->items);
}

static int scan_data(struct mem *mem, const proc_map_vec *maps, py_candidate_vec *candidates) {
	uint8_t *block _free_ = malloc(SCAN_BLOCK_BYTES);
	struct scan scan = { .mem = mem, .maps = maps, .candidates = candidates, .block = block };
	int r = 0;

	if (!block)
		return -ENOMEM;
	for (size_t i = 0; !r && i < maps->n; i++)
		if (is_data_of_likely(maps, &maps->items[i]))
			r = scan_map(&scan, &maps->items[i]);
	return r;
}

int py_find(const struct proc *proc, struct mem *mem, const proc_map_vec *maps, enum py_find_pass pass,
	py_candidate_vec *ret_candidates) {
	py_candidate_vec candidates = { 0 };
	int r;

	if (pass == PY_FIND_SCAN)
		r = scan_data(mem, maps, &candidates);
	else
		r = look_into_files(proc, maps, pass == PY_FIND_LIKELY, &candidates);
	if (r) {
		vec_free(&candidates);
		return r;
	}
	*ret_candidates = candidates;
	return 0;
}

const char *py_find_what_else(const proc_map_vec *maps) {
	static const struct {
		const char *name, *what;
	} known[] = {
		{ "libpypy", "this is PyPy, not CPython" },
		{ "pypy", "this is PyPy, not CPython" },
		{ "libpython2.", "this is a Python 2, which is not supported" },
		{ "python2", "this is a Python 2, which is not supported" },
		{ "node", "this is a Node.js process, not a Python" },
		{ "libjvm.so", "this is a Java process, not a Python" },
		{ "ruby", "this is a Ruby process, not a Python" },
		{ "perl", "this is a Perl process, not a Python" },
	};

	for (size_t i = 0; i < maps->n; i++) {
		if (!is_file(&maps->items[i]) || !is_first_of_file(maps, &maps->items[i]))
			continue;
		for (size_t k = 0; k < ARRAY_SIZE(known); k++) {
			const char *name = base_name(maps->items[i].path);

			if (!strncmp(name, known[k].name, strlen(known[k].name)))
				return known[k].what;
		}
	}
	return NULL;
}
