/* SPDX-License-Identifier: MIT */
/* Native libraries of a process: out of its mappings, with what their files say of themselves.
 *
 * A name is the soname, or where there is none the name of a file that begins with "lib": up to ".so", without the hash
 * that tools which repair wheels put there ("libgfortran-040039e1.so.5.0.0"). Extension modules have neither, mostly.
 */
#include "engine/pipeline/libraries.h"

#include "engine/base/cursor.h"
#include "engine/base/strbuf.h"
#include <ctype.h>
#include <elf.h>
#include <string.h>

#define DELETED " (deleted)"
#define BUILD_ID_MAX 64
#define SONAME_MAX 256
#define DYNAMIC_MAX 4096 /* entries */
#define WHEEL_HASH 8     /* digits of it */

static int read_string(const struct elf_image *img, uint64_t table, uint64_t size, uint64_t offset, char **ret) {
	char text[SONAME_MAX + 1] = "";
	size_t len;

	if (offset >= size || table + offset < table)
		return -ENOENT;
	len = (size_t)min_of(size - offset, (uint64_t)SONAME_MAX);
	if (elf_image_read_vaddr(img, table + offset, text, len) || !text[0])
		return -ENOENT;
	*ret = strdup(text);
	return *ret ? 0 : -ENOMEM;
}

int library_soname(const struct elf_image *img, uint64_t dynamic, uint64_t size, char **ret_soname) {
	uint64_t soname = UINT64_MAX, table = 0, table_size = 0;

	for (uint64_t i = 0; i < min_of(size / sizeof(Elf64_Dyn), (uint64_t)DYNAMIC_MAX); i++) {
		Elf64_Dyn entry;

		if (elf_image_read_vaddr(img, dynamic + i * sizeof(entry), &entry, sizeof(entry)) ||
			entry.d_tag == DT_NULL)
			break;
		if (entry.d_tag == DT_SONAME)
			soname = entry.d_un.d_val;
		else if (entry.d_tag == DT_STRTAB)
			table = entry.d_un.d_ptr;
		else if (entry.d_tag == DT_STRSZ)
			table_size = entry.d_un.d_val;
	}
	return read_string(img, table, table_size, soname, ret_soname);
}

static int read_image(int fd, struct pyspyd_library *library) {
	uint8_t id[BUILD_ID_MAX];
	struct elf_image *img;
	uint64_t dynamic, size;
	size_t len;
	int r = elf_image_open(fd, &img);

	if (r)
		return r == -ENOMEM ? r : 0;
	if (!elf_image_build_id(img, id, sizeof(id), &len)) {
		_cleanup_(strbuf_deinit) struct strbuf text = { 0 };

		for (size_t i = 0; i < len; i++)
			strbuf_addf(&text, "%02x", id[i]);
		library->build_id = strbuf_take(&text);
	}
	if (!elf_image_segment(img, PT_DYNAMIC, &dynamic, &size))
		r = library_soname(img, dynamic, size, &library->soname);
	elf_image_free(img);
	return r == -ENOMEM ? r : 0;
}

static void library_deinit(struct pyspyd_library *library) {
	free(library->path);
	free(library->soname);
	free(library->build_id);
	free(library->same_as);
	free(library->other_version);
}

static int add_library(const struct proc *proc, const struct proc_map *map, library_vec *libraries) {
	size_t len = strlen(map->path), suffix = strlen(DELETED);
	struct pyspyd_library library = { .address = map->start };
	_close_ int fd = -1;
	int r;

	library.deleted = len > suffix && !strcmp(map->path + len - suffix, DELETED);
	library.path = strndup(map->path, library.deleted ? len - suffix : len);
	if (!library.path)
		return -ENOMEM;
	r = proc_map_open(proc, map, &fd);
	if (!r)
		r = read_image(fd, &library);
	if (r == -ENOENT || r == -EACCES)
		r = 0;
	if (!r)
		r = vec_push(libraries, library);
	if (r)
		library_deinit(&library);
	return r;
}

static bool same_file(const struct proc_map *a, const struct proc_map *b) {
	return a->inode == b->inode && a->dev == b->dev && !strcmp(a->path, b->path);
}

/* A file's mappings lie side by side, but for some that are mapped again elsewhere. */
static bool is_first(const proc_map_vec *maps, const size_t *code, size_t code_n, size_t i) {
	for (size_t k = code_n; k > 0; k--)
		if (same_file(&maps->items[code[k - 1]], &maps->items[i]))
			return false;
	return true;
}

static int compare_paths(const void *a, const void *b) {
	return strcmp(((const struct pyspyd_library *)a)->path, ((const struct pyspyd_library *)b)->path);
}

static int add_libraries(
	const struct proc *proc, const proc_map_vec *maps, library_vec *libraries, bool *ret_incomplete) {
	size_t *code _free_ = calloc(LIBRARIES_MAX, sizeof(*code));
	size_t n = 0;
	int r = code ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < maps->n; i++) {
		const struct proc_map *map = &maps->items[i];

		if (!map->exec || !map->inode || map->path[0] != '/' || !is_first(maps, code, n, i))
			continue;
		if (n == LIBRARIES_MAX) {
			*ret_incomplete = true;
			break;
		}
		code[n++] = i;
		r = add_library(proc, map, libraries);
	}
	return r;
}

int libraries_read(const struct proc *proc, library_vec *ret_libraries, bool *ret_incomplete) {
	library_vec libraries = { 0 };
	proc_map_vec maps = { 0 };
	int r = proc_maps_read(proc, &maps);

	if (!r)
		r = add_libraries(proc, &maps, &libraries, ret_incomplete);
	proc_maps_free(&maps);
	if (!r && libraries.n) {
		qsort(libraries.items, libraries.n, sizeof(*libraries.items), compare_paths);
		r = libraries_mark(libraries.items, libraries.n);
	}
	if (r)
		libraries_free(libraries.items, libraries.n);
	else
		*ret_libraries = libraries;
	return r;
}

void libraries_free(struct pyspyd_library *libraries, size_t n) {
	for (size_t i = 0; i < n; i++)
		library_deinit(&libraries[i]);
	free(libraries);
}

/* Marks */

static const char *base_name(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static size_t without_hash(const char *name, size_t len) {
	if (len <= WHEEL_HASH + 1 || name[len - WHEEL_HASH - 1] != '-')
		return len;
	for (size_t i = len - WHEEL_HASH; i < len; i++)
		if (!isxdigit((unsigned char)name[i]))
			return len;
	return len - WHEEL_HASH - 1;
}

/* Return: length of the name, 0: it has none. */
static size_t stem(const struct pyspyd_library *library, const char **ret_name) {
	const char *name = library->soname ? library->soname : base_name(library->path), *end;

	if (!library->soname && strncmp(name, "lib", 3))
		return 0;
	*ret_name = name;
	end = strstr(name, ".so");
	return end ? without_hash(name, (size_t)(end - name)) : 0;
}

static bool same_name(const struct pyspyd_library *a, const struct pyspyd_library *b) {
	const char *x, *y;
	size_t n = stem(a, &x);

	return n && n == stem(b, &y) && !memcmp(x, y, n);
}

static int mark(char **mark, const char *path) {
	if (*mark)
		return 0;
	*mark = strdup(path);
	return *mark ? 0 : -ENOMEM;
}

static int mark_pair(struct pyspyd_library *a, struct pyspyd_library *b) {
	bool ids = a->build_id && b->build_id;
	int r;

	if (ids && !strcmp(a->build_id, b->build_id)) {
		r = mark(&a->same_as, b->path);
		return r ? r : mark(&b->same_as, a->path);
	}
	if (!same_name(a, b))
		return 0;
	r = mark(&a->other_version, b->path);
	return r ? r : mark(&b->other_version, a->path);
}

int libraries_mark(struct pyspyd_library *libraries, size_t n) {
	int r = 0;

	for (size_t i = 0; !r && i < n; i++)
		for (size_t k = i + 1; !r && k < n; k++)
			r = mark_pair(&libraries[i], &libraries[k]);
	return r;
}
