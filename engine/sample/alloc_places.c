/* SPDX-License-Identifier: MIT */
/* From an interpreter's file and memory to the places of the probes.
 *
 * PyObject_Malloc and PyMem_Malloc, which every build exports, call through a pointer; that is where the allocator that
 * is in use stands: pymalloc, mimalloc, the C library's, or the debug hooks. Its entry is where a probe sees most
 * calls. Builds with profile-guided optimisation have the usual allocator inside of hundreds of its callers as well,
 * behind a comparison of that pointer: the jump after each comparison is a place too.
 *
 * Not followed: pointers that change later (tracemalloc that is started), and what does not ask these pointers. */
#include "engine/sample/alloc_places.h"

#include "engine/elf/elf_image.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define FILES_MAX 2048
#define PROBES_MAX 4096
#define CODE_BYTES_MAX (128U << 20)
#define DOMAINS 2
#define FUNCTIONS 3 /* malloc, calloc, realloc; as struct PyMemAllocatorEx has them, behind ctx */

struct finder {
	const struct proc *proc;
	struct mem *mem;
	proc_map_vec maps;
	struct alloc_places *places;
	raddr done[DOMAINS * FUNCTIONS]; /* functions that have their probes */
	size_t done_n;
};

static bool is_file(const struct proc_map *map) {
	return map->inode && map->path[0] == '/';
}

static bool is_first_of_file(const proc_map_vec *maps, const struct proc_map *map) {
	return map == maps->items || map[-1].inode != map->inode || map[-1].dev != map->dev;
}

static const struct proc_map *code_map(const proc_map_vec *maps, raddr addr) {
	vec_foreach (map, maps)
		if (map->exec && addr >= map->start && addr < map->end)
			return is_file(map) ? map : NULL;
	return NULL;
}

/* A function of a file by its exported name. Return: 0: it has none. */
static raddr symbol_of(const struct finder *f, const struct proc_map *map, const char *name) {
	struct elf_image *image = NULL;
	int fd _close_ = -1;
	uint64_t bias, vaddr, size;
	raddr found = 0;

	if (proc_map_open(f->proc, map, &fd) || elf_image_open(fd, &image))
		return 0;
	if (!elf_image_bias(image, &f->maps, map, &bias) && !elf_image_symbol(image, name, &vaddr, &size))
		found = vaddr + bias;
	elf_image_free(image);
	return found;
}

/* The first file that has a function of the name. */
static raddr find_symbol(const struct finder *f, const char *name) {
	size_t files = 0;

	vec_foreach (map, &f->maps) {
		raddr found;

		if (!is_file(map) || !is_first_of_file(&f->maps, map) || ++files > FILES_MAX)
			continue;
		found = symbol_of(f, map, name);
		if (found)
			return found;
	}
	return 0;
}

/* Code of the file, not of memory, where probes may stand already. Return: bytes read; 0: none. */
static size_t read_code(const struct finder *f, raddr addr, uint8_t *buf, size_t cap) {
	const struct proc_map *map = code_map(&f->maps, addr);
	int fd _close_ = -1;
	ssize_t n;

	if (!map || proc_map_open(f->proc, map, &fd))
		return 0;
	n = pread(fd, buf, min_of((uint64_t)cap, map->end - addr), (off_t)(addr - map->start + map->offset));
	return n > 0 ? (size_t)n : 0;
}

/* The three functions behind the pointer that an exported function calls. Return: 0; -ENOENT. */
static int read_pointers(const struct finder *f, const char *name, raddr ret_functions[FUNCTIONS]) {
	uint8_t code[ALLOC_CODE_BYTES];
	struct alloc_pointer pointer;
	raddr at = find_symbol(f, name), where;
	size_t n = at ? read_code(f, at, code, sizeof(code)) : 0;

	if (!n || alloc_pointer_of(code, n, at, &pointer))
		return -ENOENT;
	where = pointer.address;
	if (pointer.indirect) {
		if (mem_read_u64(f->mem, where, &where))
			return -ENOENT;
		where += (uint64_t)(int64_t)pointer.disp;
	}
	if (mem_read(f->mem, where, ret_functions, FUNCTIONS * sizeof(raddr)))
		return -ENOENT;
	for (size_t i = 0; i < FUNCTIONS; i++)
		if (!code_map(&f->maps, ret_functions[i]))
			return -ENOENT;
	return 0;
}

/* The file that code lies in, as one of ours. Return: 0; -ENOENT: it is another one. */
static int take_file(struct finder *f, const struct proc_map *map, struct alloc_file *file) {
	struct stat now, st;
	int fd _close_ = -1;
	int r = proc_map_open(f->proc, map, &fd);

	if (r)
		return r > 0 ? PYSPYD_E_GONE : r;
	if (file->fd < 0) {
		file->fd = take_fd(&fd);
		return 0;
	}
	if (fstat(fd, &now) || fstat(file->fd, &st))
		return -errno;
	return now.st_dev == st.st_dev && now.st_ino == st.st_ino ? 0 : -ENOENT;
}

static int add_probe(struct alloc_file *file, const struct alloc_probe *probe) {
	vec_foreach (other, &file->probes)
		if (other->offset == probe->offset)
			return 0;
	return file->probes.n < PROBES_MAX ? vec_push(&file->probes, *probe) : -E2BIG;
}

static bool calls_others(enum alloc_args args, bool native) {
	return native || args == ALLOC_REALLOC || args == ALLOC_C_REALLOC;
}

static int add_entry(struct finder *f, struct alloc_file *file, raddr function, enum alloc_args args, bool native) {
	const struct proc_map *map = code_map(&f->maps, function);
	uint8_t code[ALLOC_CODE_BYTES];
	struct alloc_place place;
	size_t n = map ? read_code(f, function, code, sizeof(code)) : 0;

	if (!n || alloc_place_at_entry(code, n, args, &place))
		return -ENOENT;
	return add_probe(file,
		&(struct alloc_probe){ .offset = function - map->start + map->offset + place.at,
			.size = place.size,
			.sp_up = place.sp_up,
			.outer = calls_others(args, native),
			.inner = args == ALLOC_MALLOC || args >= ALLOC_C_MALLOC });
}

/* All comparisons with the function's address in the code around it. */
struct text {
	const struct proc_map *map;
	const uint8_t *code;
	size_t n;
};

static int add_inlined(struct finder *f, struct alloc_file *file, const struct text *text, size_t from, raddr function,
	enum alloc_args args) {
	struct alloc_place place;
	int r = alloc_place_inlined(text->code, text->n, text->map->start, from, function, args, &place);

	if (r == -ENOENT)
		return 0;
	f->places->inlined++;
	if (r) {
		f->places->not_seen++;
		return 0;
	}
	return add_probe(file,
		&(struct alloc_probe){
			.offset = text->map->offset + place.at, .size = place.size, .outer = true, .inlined = true });
}

/* The address is in the instruction that compares (cmp $imm32: two or three bytes before it), or in one that puts it
 * into a register, relative to the next instruction (lea: three bytes). */
static int scan_text(
	struct finder *f, struct alloc_file *file, const struct text *text, raddr function, enum alloc_args args) {
	int r = 0;

	for (size_t i = 3; !r && i + 4 <= text->n; i++) {
		uint32_t word;
		bool absolute;

		memcpy(&word, text->code + i, sizeof(word));
		absolute = word == (uint32_t)function && function <= INT32_MAX;
		if (!absolute && word + (uint32_t)(text->map->start + i + 4) != (uint32_t)function)
			continue;
		if (absolute && text->code[i - 1] == 0x3d)
			r = add_inlined(f, file, text, i - 2, function, args);
		else if ((absolute && text->code[i - 2] == 0x81) || (!absolute && text->code[i - 2] == 0x8d))
			r = add_inlined(f, file, text, i - 3, function, args);
	}
	return r;
}

static int add_all_inlined(struct finder *f, struct alloc_file *file, raddr function, enum alloc_args args) {
	struct text text = { .map = code_map(&f->maps, function) };
	uint8_t *code _free_ = NULL;
	ssize_t n;

	if (!text.map || text.map->end - text.map->start > CODE_BYTES_MAX)
		return 0;
	code = malloc(text.map->end - text.map->start);
	if (!code)
		return -ENOMEM;
	n = pread(file->fd, code, text.map->end - text.map->start, (off_t)text.map->offset);
	if (n <= 0)
		return 0;
	text.code = code;
	text.n = (size_t)n;
	return scan_text(f, file, &text, function, args);
}

static bool is_done(struct finder *f, raddr function) {
	for (size_t i = 0; i < f->done_n; i++)
		if (f->done[i] == function)
			return true;
	f->done[f->done_n++] = function;
	return false;
}

static int add_function(struct finder *f, raddr function, enum alloc_args args, bool native) {
	struct alloc_file *file = &f->places->files[0];
	int r;

	if (is_done(f, function))
		return 0;
	r = take_file(f, code_map(&f->maps, function), file);
	if (!r)
		r = add_entry(f, file, function, args, native);
	return r ? r : add_all_inlined(f, file, function, args);
}

static int add_domain(struct finder *f, const char *name, bool native, struct err *err) {
	static const enum alloc_args args[FUNCTIONS] = { ALLOC_MALLOC, ALLOC_CALLOC, ALLOC_REALLOC };
	raddr functions[FUNCTIONS];
	int r = read_pointers(f, name, functions);

	if (r)
		return err_set(err, PYSPYD_E_UNSUPPORTED, "the allocator behind %s was not found", name);
	for (size_t i = 0; !r && i < FUNCTIONS; i++)
		r = add_function(f, functions[i], args[i], native);
	if (r == -ENOENT)
		return err_set(err, PYSPYD_E_UNSUPPORTED,
			"no instruction of the allocator behind %s can take a probe that is cheap enough", name);
	return r;
}

/* Which of several files is asked for memory: one that replaces the C library's allocator, or that; not the loader. */
static int rank_of(const struct proc_map *map) {
	const char *name = strrchr(map->path, '/') + 1;

	if (!strncmp(name, "ld-", 3))
		return strncmp(name, "ld-musl", 7) ? 0 : 1;
	return strncmp(name, "libc.", 5) && strncmp(name, "libc-", 5) ? 2 : 1;
}

static const struct proc_map *find_c_library(const struct finder *f) {
	const struct proc_map *best = NULL;
	size_t files = 0;

	vec_foreach (map, &f->maps) {
		if (!is_file(map) || !is_first_of_file(&f->maps, map) || ++files > FILES_MAX)
			continue;
		if (rank_of(map) && (!best || rank_of(map) > rank_of(best)) && symbol_of(f, map, "malloc"))
			best = map;
	}
	return best;
}

static int add_c_library(struct finder *f, struct err *err) {
	static const char *const names[FUNCTIONS] = { "malloc", "calloc", "realloc" };
	static const enum alloc_args args[FUNCTIONS] = { ALLOC_C_MALLOC, ALLOC_C_CALLOC, ALLOC_C_REALLOC };
	const struct proc_map *map = find_c_library(f);
	struct alloc_file *file = &f->places->files[1];
	int r = map ? take_file(f, map, file) : -ENOENT;

	for (size_t i = 0; !r && i < FUNCTIONS; i++) {
		raddr function = symbol_of(f, map, names[i]);

		r = function ? add_entry(f, file, function, args[i], true) : -ENOENT;
	}
	if (r == -ENOENT)
		return err_set(err, PYSPYD_E_UNSUPPORTED, "no probe is possible at the C library's malloc");
	return r;
}

int alloc_places_find(
	const struct proc *proc, struct mem *mem, bool native, struct alloc_places *ret_places, struct err *err) {
	struct alloc_places places = { .files = { { .fd = -1 }, { .fd = -1 } } };
	struct finder f = { .proc = proc, .mem = mem, .places = &places };
	int r = proc_maps_read(proc, &f.maps);

	r = r > 0 ? PYSPYD_E_GONE : r;
	if (!r)
		r = add_domain(&f, "PyObject_Malloc", native, err);
	if (!r)
		r = add_domain(&f, "PyMem_Malloc", native, err);
	if (!r && native)
		r = add_c_library(&f, err);
	proc_maps_free(&f.maps);
	if (r == PYSPYD_E_GONE)
		err_set(err, r, "process %d has ended", (int)proc->pid);
	if (r) {
		alloc_places_deinit(&places);
		return r;
	}
	*ret_places = places;
	return 0;
}

void alloc_places_deinit(struct alloc_places *places) {
	for (size_t i = 0; i < ALLOC_FILES; i++) {
		close_fd(&places->files[i].fd);
		vec_free(&places->files[i].probes);
	}
}
