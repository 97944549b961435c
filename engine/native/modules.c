/* SPDX-License-Identifier: MIT */
/* The executable mappings of a process, and the cache of what their files say.
 *
 * A file is known again by device, inode, size and the times of its last changes. Not by its build id: a target could
 * put somebody else's into a file of its own, and what that file says would be believed of the other one. The vdso is
 * the kernel's, but a process may have changed its copy: each process has a file of its own for it. */
#include "engine/native/modules.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define VDSO_NAME "[vdso]"
#define VDSO_MAX (256U << 10)
#define MODULES_MAX 4096
#define HELD_BYTES_MAX (512U << 20) /* of all tables: more are not made */

struct key {
	uint64_t dev, inode, size;
	struct timespec modified, changed;
};

struct cached {
	struct native_file file; /* first: a file is its entry */
	struct key key;
	uint64_t used; /* order of last use */
	bool shared;
};

struct native_cache {
	struct unwind_rules rules;
	VEC(struct cached *) files;
	size_t idle_bytes_max;
	size_t tables_bytes; /* of all tables */
	uint64_t clock, last_id;
};

int native_cache_new(size_t idle_bytes, struct native_cache **ret_cache) {
	struct native_cache *cache = calloc(1, sizeof(*cache));
	int r = cache ? unwind_rules_init(&cache->rules) : -ENOMEM;

	if (r) {
		free(cache);
		return r;
	}
	cache->idle_bytes_max = idle_bytes;
	*ret_cache = cache;
	return 0;
}

static size_t symbols_bytes(const struct cached *cached) {
	const struct symbol_table *symbols = cached->file.symbols;

	return symbols ? symbols->rows.cap * sizeof(*symbols->rows.items) + symbols->names.cap : 0;
}

static size_t table_bytes(const struct cached *cached) {
	return cached->file.table ? cached->file.table->words_n * sizeof(uint32_t) : 0;
}

static void symbols_free(struct symbol_table *symbols) {
	if (!symbols)
		return;
	symbol_table_deinit(symbols);
	free(symbols);
}

static void cached_free(struct native_cache *cache, struct cached *cached) {
	cache->tables_bytes -= table_bytes(cached);
	unwind_table_free(cached->file.table);
	symbols_free(cached->file.symbols);
	free(cached->file.path);
	free(cached);
}

void native_cache_free(struct native_cache *cache) {
	if (!cache)
		return;
	vec_foreach (cached, &cache->files)
		cached_free(cache, *cached);
	vec_free(&cache->files);
	unwind_rules_deinit(&cache->rules);
	free(cache);
}

const struct unwind_rules *native_cache_rules(const struct native_cache *cache) {
	return &cache->rules;
}

/* Forgets the files that nobody holds, the longest unused first, until the rest is small enough. */
static void shrink(struct native_cache *cache) {
	for (;;) {
		size_t idle_bytes = 0, oldest = SIZE_MAX;

		for (size_t i = 0; i < cache->files.n; i++) {
			const struct cached *cached = cache->files.items[i];

			if (cached->file.refs)
				continue;
			idle_bytes += table_bytes(cached) + symbols_bytes(cached) + sizeof(*cached);
			if (oldest == SIZE_MAX || cached->used < cache->files.items[oldest]->used)
				oldest = i;
		}
		if (idle_bytes <= cache->idle_bytes_max)
			return;
		cached_free(cache, cache->files.items[oldest]);
		cache->files.items[oldest] = cache->files.items[--cache->files.n];
	}
}

static bool same_time(struct timespec a, struct timespec b) {
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool same_key(const struct key *a, const struct key *b) {
	return a->dev == b->dev && a->inode == b->inode && a->size == b->size && same_time(a->modified, b->modified) &&
		same_time(a->changed, b->changed);
}

static struct cached *find_cached(struct native_cache *cache, const struct key *key) {
	vec_foreach (cached, &cache->files)
		if (same_key(&(*cached)->key, key))
			return *cached;
	return NULL;
}

static int key_of(int fd, struct key *ret_key) {
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	*ret_key = (struct key){
		.dev = st.st_dev,
		.inode = st.st_ino,
		.size = (uint64_t)st.st_size,
		.modified = st.st_mtim,
		.changed = st.st_ctim,
	};
	return 0;
}

static int cached_new(struct native_cache *cache, struct elf_image *img, const char *path, struct cached **ret_cached) {
	struct cached *cached = calloc(1, sizeof(*cached));
	struct native_file *file;

	if (!cached)
		return -ENOMEM;
	file = &cached->file;
	file->path = strdup(path);
	if (!file->path) {
		free(cached);
		return -ENOMEM;
	}
	if (elf_image_build_id(img, file->build_id, sizeof(file->build_id), &file->build_id_len))
		file->build_id_len = 0;
	file->table_error =
		cache->tables_bytes < HELD_BYTES_MAX ? unwind_table_new(img, &cache->rules, &file->table) : -EFBIG;
	cache->tables_bytes += table_bytes(cached);
	file->id = ++cache->last_id;
	*ret_cached = cached;
	return 0;
}

/* The file's entry, made where it is not there. Return: 0; -ENOMEM; negative errno. */
static int need_cached(
	struct native_cache *cache, struct elf_image *img, int fd, const char *path, struct cached **ret_cached) {
	struct cached *cached;
	struct key key;
	int r = key_of(fd, &key);

	if (r)
		return r;
	cached = find_cached(cache, &key);
	if (!cached) {
		r = cached_new(cache, img, path, &cached);
		if (r)
			return r;
		cached->key = key;
		cached->shared = true;
		r = vec_push(&cache->files, cached);
		if (r) {
			cached_free(cache, cached);
			return r;
		}
	}
	cached->used = ++cache->clock;
	*ret_cached = cached;
	return 0;
}

static int load_image(struct native_modules *modules, struct native_module *module, struct elf_image *img, int fd) {
	const struct proc_map *map = &modules->maps.items[module->map];
	struct cached *cached;
	uint64_t bias;
	int r = elf_image_bias(img, &modules->maps, map, &bias);

	if (!r)
		r = need_cached(modules->cache, img, fd, map->path, &cached);
	if (r)
		return r;
	module->file = &cached->file;
	module->file->refs++;
	module->bias = bias;
	return 0;
}

static int load_vdso_image(struct native_modules *modules, struct native_module *module, struct elf_image *img) {
	struct cached *cached;
	uint64_t start, end;
	int r = elf_image_code(img, &start, &end);

	if (!r)
		r = cached_new(modules->cache, img, VDSO_NAME, &cached);
	if (r)
		return r;
	module->file = &cached->file;
	module->file->refs++;
	module->bias = module->start - start;
	return 0;
}

static int open_vdso(const struct native_modules *modules, const struct native_module *module, int *ret_fd) {
	size_t len = min_of(module->end - module->start, (raddr)VDSO_MAX);
	_free_ uint8_t *bytes = malloc(len);
	_close_ int fd = memfd_create("vdso", MFD_CLOEXEC);
	int r;

	if (!bytes)
		return -ENOMEM;
	if (fd < 0)
		return -errno;
	r = mem_read(modules->mem, module->start, bytes, len);
	if (r)
		return r == MEM_E_GONE ? PROC_E_GONE : r < 0 ? r : -ENOENT;
	if (pwrite(fd, bytes, len, 0) != (ssize_t)len)
		return -EIO;
	*ret_fd = take_fd(&fd);
	return 0;
}

int native_module_open(const struct native_modules *modules, const struct native_module *module, int *ret_fd) {
	if (module->kind == NATIVE_VDSO)
		return open_vdso(modules, module, ret_fd);
	return proc_map_open(modules->proc, &modules->maps.items[module->map], ret_fd);
}

/* A file that cannot be had, or is none that we understand, has nothing to say. */
static void load(struct native_modules *modules, struct native_module *module) {
	struct elf_image *img;
	_close_ int fd = -1;
	int r;

	module->loaded = true;
	if (module->kind != NATIVE_FILE && module->kind != NATIVE_VDSO)
		return;
	r = native_module_open(modules, module, &fd);
	if (!r)
		r = elf_image_open(fd, &img);
	if (!r) {
		r = module->kind == NATIVE_VDSO ? load_vdso_image(modules, module, img)
						: load_image(modules, module, img, fd);
		elf_image_free(img);
	}
	if (r)
		module->kind = NATIVE_OTHER;
}

static enum native_kind kind_of(const struct proc_map *map) {
	if (map->inode)
		return NATIVE_FILE;
	if (!strcmp(map->path, VDSO_NAME))
		return NATIVE_VDSO;
	return !map->path[0] || !strcmp(map->path, "[heap]") || !strncmp(map->path, "[anon", 5) ? NATIVE_ANONYMOUS
												: NATIVE_OTHER;
}

static int add_modules(struct native_modules *modules) {
	int r = proc_maps_read(modules->proc, &modules->maps);

	for (size_t i = 0; !r && i < modules->maps.n && modules->items.n < MODULES_MAX; i++) {
		const struct proc_map *map = &modules->maps.items[i];
		struct native_module module = { .start = map->start, .end = map->end, .kind = kind_of(map), .map = i };

		if (map->exec)
			r = vec_push(&modules->items, module);
	}
	return r;
}

int native_modules_new(
	const struct proc *proc, struct mem *mem, struct native_cache *cache, struct native_modules **ret_modules) {
	struct native_modules *modules = calloc(1, sizeof(*modules));
	int r;

	if (!modules)
		return -ENOMEM;
	modules->proc = proc;
	modules->mem = mem;
	modules->cache = cache;
	r = add_modules(modules);
	if (r) {
		native_modules_free(modules);
		return r;
	}
	*ret_modules = modules;
	return 0;
}

static void drop_file(struct native_cache *cache, struct native_file *file) {
	struct cached *cached = (struct cached *)file;

	if (file && !--file->refs && !cached->shared)
		cached_free(cache, cached);
}

void native_modules_free(struct native_modules *modules) {
	if (!modules)
		return;
	vec_foreach (module, &modules->items)
		drop_file(modules->cache, module->file);
	vec_free(&modules->items);
	proc_maps_free(&modules->maps);
	symbols_free(modules->perf_map);
	shrink(modules->cache);
	free(modules);
}

const struct native_module *native_modules_load(struct native_modules *modules, size_t i) {
	if (!modules->items.items[i].loaded)
		load(modules, &modules->items.items[i]);
	return &modules->items.items[i];
}

const struct native_module *native_modules_find(struct native_modules *modules, raddr at) {
	size_t low = 0, high = modules->items.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (modules->items.items[middle].end <= at)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == modules->items.n || at < modules->items.items[low].start)
		return NULL;
	return native_modules_load(modules, low);
}
