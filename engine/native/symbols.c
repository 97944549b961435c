/* SPDX-License-Identifier: MIT */
/* Names for addresses, and where they come from.
 *
 * A separate file is believed only where its build id is the file's, or, by .gnu_debuglink, where its checksum is the
 * one that the file names. It is looked for below the target's root first; the one below ours may have been installed
 * later, by whoever looks. Nothing is fetched from elsewhere. */
#include "engine/native/symbols.h"

#include "engine/native/cold.h"
#include "engine/native/demangle.h"
#include "engine/native/perf_map.h"
#include "engine/native/plt.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#define DEBUG_ROOT "/usr/lib/debug"
#define EVALUATION_LOOP "_PyEval_EvalFrameDefault" /* merge.c needs all of it */
#define LINK_MAX 4096
#define CHECKSUM_BYTES_MAX (1ULL << 30)

static int open_regular(const char *path, int *ret_fd) {
	_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return -ENOENT;
	*ret_fd = take_fd(&fd);
	return 0;
}

static bool has_build_id(int fd, const uint8_t *id, size_t len) {
	uint8_t other[NATIVE_BUILD_ID_MAX];
	struct elf_image *img;
	size_t other_len;
	bool same;

	if (elf_image_open(fd, &img))
		return false;
	same = !elf_image_build_id(img, other, sizeof(other), &other_len) && other_len == len &&
		!memcmp(id, other, len);
	elf_image_free(img);
	return same;
}

static bool has_checksum(int fd, uint32_t want) {
	uLong sum = crc32(0, NULL, 0);
	uint8_t piece[1 << 14];
	uint64_t at = 0;
	ssize_t n;

	while (at < CHECKSUM_BYTES_MAX && (n = pread(fd, piece, sizeof(piece), (off_t)at)) > 0) {
		sum = crc32(sum, piece, (uInt)n);
		at += (uint64_t)n;
	}
	return sum == want;
}

struct wanted {
	const struct native_modules *modules;
	const uint8_t *build_id;
	size_t build_id_len; /* 0: by the checksum */
	uint32_t checksum;
};

static bool is_wanted(const struct wanted *wanted, int fd) {
	return wanted->build_id_len ? has_build_id(fd, wanted->build_id, wanted->build_id_len)
				    : has_checksum(fd, wanted->checksum);
}

/* Return: 0 and *ret_fd; -ENOENT; PROC_E_GONE. */
static int try_path(const struct wanted *wanted, const char *path, int *ret_fd) {
	for (int ours = 0; ours < 2; ours++) {
		_close_ int fd = -1;
		int r = ours ? open_regular(path, &fd) : proc_root_open(wanted->modules->proc, path, &fd);

		if (r == PROC_E_GONE)
			return r;
		if (!r && is_wanted(wanted, fd)) {
			*ret_fd = take_fd(&fd);
			return 0;
		}
	}
	return -ENOENT;
}

static int try_build_id(const struct wanted *wanted, int *ret_fd) {
	char path[sizeof(DEBUG_ROOT "/.build-id/") + 2 * NATIVE_BUILD_ID_MAX + 16];
	int n = snprintf(path, sizeof(path), DEBUG_ROOT "/.build-id/%02x/", wanted->build_id[0]);

	for (size_t i = 1; i < wanted->build_id_len; i++)
		n += snprintf(path + n, sizeof(path) - (size_t)n, "%02x", wanted->build_id[i]);
	snprintf(path + n, sizeof(path) - (size_t)n, ".debug");
	return try_path(wanted, path, ret_fd);
}

/* The three places that gdb looks at, too. */
static int try_link(const struct wanted *wanted, const char *of, const char *name, int *ret_fd) {
	static const char *const forms[] = { "%.*s/%s", "%.*s/.debug/%s", DEBUG_ROOT "%.*s/%s" };
	const char *slash = strrchr(of, '/');
	char path[LINK_MAX];
	int r = -ENOENT;

	if (!slash || strchr(name, '/') || !*name)
		return -ENOENT;
	for (size_t i = 0; r == -ENOENT && i < ARRAY_SIZE(forms); i++) {
		int n = snprintf(path, sizeof(path), forms[i], (int)(slash - of), of, name);

		if (n > 0 && (size_t)n < sizeof(path))
			r = try_path(wanted, path, ret_fd);
	}
	return r;
}

/* .gnu_debuglink: a name, zeros up to a multiple of four, a checksum. */
static int by_link(struct wanted *wanted, struct elf_image *img, const char *of, int *ret_fd) {
	_free_ char *data = NULL;
	size_t len, name_len;
	uint64_t ignored;

	if (elf_image_section_read(img, ".gnu_debuglink", LINK_MAX, &data, &len, &ignored) || len < 8)
		return -ENOENT;
	name_len = strnlen(data, len);
	if (name_len > len - 5)
		return -ENOENT;
	memcpy(&wanted->checksum, data + len - 4, 4);
	return try_link(wanted, of, data, ret_fd);
}

int native_debug_file_open(
	const struct native_modules *modules, const struct native_module *module, struct elf_image *img, int *ret_fd) {
	const struct native_file *file = module->file;
	struct wanted wanted = { .modules = modules, .build_id = file->build_id, .build_id_len = file->build_id_len };
	int r = wanted.build_id_len ? try_build_id(&wanted, ret_fd) : -ENOENT;

	if (r == -ENOENT)
		r = by_link(&wanted, img, native_module_path(modules, module), ret_fd);
	return r;
}

/* Return: 0, also where there is none; -ENOMEM. */
static int add_debug_file(const struct native_modules *modules, const struct native_module *module,
	struct elf_image *img, struct symbol_table *table) {
	struct elf_image *debug;
	_close_ int fd = -1;
	int r;

	if (native_debug_file_open(modules, module, img, &fd) || elf_image_open(fd, &debug))
		return 0;
	r = symbol_table_add_image(table, debug);
	elf_image_free(debug);
	return r == -ENOMEM ? r : 0;
}

static int fill(const struct native_modules *modules, const struct native_module *module, struct symbol_table *table) {
	struct elf_image *img;
	_close_ int fd = -1;
	int r = native_module_open(modules, module, &fd);

	if (!r)
		r = elf_image_open(fd, &img);
	if (r)
		return r == -ENOMEM ? r : 0;
	r = elf_image_code(img, &table->start, &table->end);
	if (!r)
		r = symbol_table_add_image(table, img);
	if (!r)
		r = symbol_table_add_debugdata(table, img);
	if (!r)
		r = symbol_table_add_plt(table, img);
	if (!r && module->kind == NATIVE_FILE)
		r = add_debug_file(modules, module, img, table);
	if (!r)
		r = symbol_table_add_cold(table, img, EVALUATION_LOOP);
	elf_image_free(img);
	return r == -ENOMEM ? r : 0;
}

static int need_symbols(const struct native_modules *modules, const struct native_module *module) {
	struct symbol_table *table;
	int r;

	if (module->file->symbols)
		return 0;
	table = calloc(1, sizeof(*table));
	r = table ? fill(modules, module, table) : -ENOMEM;
	if (r) {
		if (table)
			symbol_table_deinit(table);
		free(table);
		return r;
	}
	symbol_table_sort(table);
	module->file->symbols = table;
	return 0;
}

static int need_perf_map(struct native_modules *modules) {
	int r;

	if (modules->perf_map)
		return 0;
	modules->perf_map = calloc(1, sizeof(*modules->perf_map));
	if (!modules->perf_map)
		return -ENOMEM;
	r = perf_map_read(modules->proc, modules->perf_map);
	return r == -ENOMEM ? r : 0;
}

int native_symbolize(struct native_modules *modules, raddr at, struct native_place *ret_place) {
	const struct native_module *module = native_modules_find(modules, at);
	struct native_place place = { .module = module };
	uint64_t vaddr = at, start;
	int r = 0;

	if (module && module->file) {
		vaddr = at - module->bias;
		r = need_symbols(modules, module);
		if (!r)
			place.symbol = symbol_table_find(module->file->symbols, vaddr, &start);
	} else if (module && module->kind == NATIVE_ANONYMOUS) {
		r = need_perf_map(modules);
		if (!r)
			place.symbol = symbol_table_find(modules->perf_map, vaddr, &start);
	}
	if (r)
		return r;
	place.offset = place.symbol ? vaddr - start : vaddr;
	if (place.symbol)
		native_demangle(place.symbol, place.name, sizeof(place.name));
	*ret_place = place;
	return 0;
}
