/* SPDX-License-Identifier: MIT */
/* Unwind tables in one array for all files.
 *
 * One array, not a map of maps: a word is one load there, without a call, a new table needs no wait for programs that
 * look at the old one, and its size is the bound. Tables lie in it without an order; a file's is written once, for all
 * processes that have it mapped, and its place is free when the last of them is gone. A program that began before may
 * still look at it, for microseconds: so a place rests before it is used again.
 *
 * A file's table is made when user space unwinds through it for the first time (native/modules.h). Until then the
 * program finds a mapping that is to be told later, and hands a copy of the stack over: that is how user space comes to
 * unwind through it.
 *
 * The list of a process's mappings is one value of a hash map: a program sees the old one or the new one, and what it
 * has made of one that was replaced meanwhile it throws away. */
#include "engine/sample/bpf_tables.h"

#include "engine/base/clock.h"
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define REST_NS NS_PER_SEC

/* A file's table in the array. */
struct extent {
	uint64_t file; /* native_file.id */
	uint32_t first, n;
	uint32_t processes; /* that have it */
	uint64_t free_ns;   /* since when there are none */
};

struct told {
	pid_t pid;
	uint64_t serial, read_ns;
	size_t loaded;          /* mappings whose file was looked for */
	uint32_t first_telling; /* of this serial */
	VEC(uint64_t) files;
};

struct bpf_tables {
	struct bpf_tables_maps maps;
	uint32_t *words; /* the map's memory, and the rules' */
	struct unwind_rule *rules;
	size_t rules_n;
	VEC(struct extent) extents; /* ascending */
	VEC(struct told) told;
	uint32_t telling;
	struct pyb_codes codes; /* that is being made */
};

static size_t rules_bytes(void) {
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (UNWIND_RULES_MAX * sizeof(struct unwind_rule) + page - 1) / page * page;
}

static int map_memory(int fd, size_t bytes, void **ret_memory) {
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (memory == MAP_FAILED)
		return -errno;
	*ret_memory = memory;
	return 0;
}

int bpf_tables_new(const struct bpf_tables_maps *maps, struct bpf_tables **ret_tables) {
	struct bpf_tables *tables = calloc(1, sizeof(*tables));
	int r;

	if (!tables)
		return -ENOMEM;
	tables->maps = *maps;
	r = map_memory(maps->tables_fd, maps->tables_bytes, (void **)&tables->words);
	if (!r)
		r = map_memory(maps->rules_fd, rules_bytes(), (void **)&tables->rules);
	if (r) {
		bpf_tables_free(tables);
		return r;
	}
	*ret_tables = tables;
	return 0;
}

void bpf_tables_free(struct bpf_tables *tables) {
	if (!tables)
		return;
	if (tables->words)
		munmap(tables->words, tables->maps.tables_bytes);
	if (tables->rules)
		munmap(tables->rules, rules_bytes());
	vec_foreach (told, &tables->told)
		vec_free(&told->files);
	vec_free(&tables->told);
	vec_free(&tables->extents);
	free(tables);
}

size_t bpf_tables_used(const struct bpf_tables *tables) {
	size_t words = 0;

	vec_foreach (extent, &tables->extents)
		words += extent->processes ? extent->n : 0;
	return words * sizeof(uint32_t);
}

static struct told *find_told(const struct bpf_tables *tables, pid_t pid) {
	vec_foreach (told, &tables->told)
		if (told->pid == pid)
			return told;
	return NULL;
}

static struct extent *find_extent(const struct bpf_tables *tables, uint64_t file) {
	vec_foreach (extent, &tables->extents)
		if (extent->file == file)
			return extent;
	return NULL;
}

static void drop_rested(struct bpf_tables *tables, uint64_t now_ns) {
	size_t kept = 0;

	vec_foreach (extent, &tables->extents)
		if (extent->processes || now_ns < extent->free_ns + REST_NS)
			tables->extents.items[kept++] = *extent;
	tables->extents.n = kept;
}

/* The first gap that is large enough. Return: its place among the extents; UINT32_MAX: there is none. */
static uint32_t find_room(const struct bpf_tables *tables, uint32_t n, uint32_t *ret_first) {
	uint32_t words = (uint32_t)(tables->maps.tables_bytes / sizeof(uint32_t)), first = 0;

	for (size_t i = 0; i <= tables->extents.n; i++) {
		const struct extent *next = i < tables->extents.n ? &tables->extents.items[i] : NULL;

		if ((next ? next->first : words) - first >= n) {
			*ret_first = first;
			return (uint32_t)i;
		}
		if (next)
			first = next->first + next->n;
	}
	return UINT32_MAX;
}

/* The file's table in the array, written where it is not there. Return: NULL: there is no room. */
static struct extent *need_extent(struct bpf_tables *tables, const struct native_file *file, uint64_t now_ns) {
	struct extent *extent = find_extent(tables, file->id);
	struct extent fresh = { .file = file->id, .n = file->table->words_n, .free_ns = now_ns };
	uint32_t at;

	if (extent)
		return extent;
	drop_rested(tables, now_ns);
	at = find_room(tables, fresh.n, &fresh.first);
	if (at == UINT32_MAX || vec_push(&tables->extents, fresh))
		return NULL;
	extent = &tables->extents.items[at];
	memmove(extent + 1, extent, (tables->extents.n - 1 - at) * sizeof(*extent));
	*extent = fresh;
	memcpy(tables->words + fresh.first, file->table->words, (size_t)fresh.n * sizeof(uint32_t));
	return extent;
}

static void let_go(struct bpf_tables *tables, const uint64_t *files, size_t n, uint64_t now_ns) {
	for (size_t i = 0; i < n; i++) {
		struct extent *extent = find_extent(tables, files[i]);

		if (extent && !--extent->processes)
			extent->free_ns = now_ns;
	}
}

/* One mapping. Each that shares a file holds its table. Return: 0; -ENOMEM. */
static int fill_code(struct bpf_tables *tables, const struct native_module *module, struct told *told, uint64_t now_ns,
	struct pyb_code *code) {
	const struct native_file *file = module->file;
	bool has_none = module->kind == NATIVE_ANONYMOUS || module->kind == NATIVE_OTHER ||
		(module->loaded && (!file || !file->table));
	struct extent *extent;
	int r;

	*code = (struct pyb_code){
		.start = module->start, .end = module->end, .table = has_none ? PYB_TABLE_NONE : PYB_TABLE_LATER
	};
	if (has_none || !module->loaded)
		return 0;
	extent = need_extent(tables, file, now_ns);
	if (!extent)
		return 0;
	r = vec_push(&told->files, file->id);
	if (r)
		return r;
	extent->processes++;
	code->base = module->bias + file->table->vaddr;
	code->table = extent->first;
	code->pages = file->table->pages;
	return 0;
}

static void add_rules(struct bpf_tables *tables, const struct unwind_rules *rules) {
	for (; tables->rules_n < min_of(rules->items.n, (size_t)UNWIND_RULES_MAX); tables->rules_n++)
		tables->rules[tables->rules_n] = rules->items.items[tables->rules_n];
}

/* Says all of it. What was held for it before is let go by the caller. */
static int tell(
	struct bpf_tables *tables, const struct bpf_tables_process *process, struct told *told, uint64_t now_ns) {
	const struct native_modules *modules = process->modules;
	uint32_t key = (uint32_t)process->pid;
	int r = 0;

	tables->codes.n = (uint32_t)min_of(modules->items.n, (size_t)PYB_CODES_MAX);
	tables->codes.telling = ++tables->telling;
	for (uint32_t i = 0; !r && i < tables->codes.n; i++)
		r = fill_code(tables, &modules->items.items[i], told, now_ns, &tables->codes.codes[i]);
	add_rules(tables, native_cache_rules(modules->cache));
	if (r)
		return r;
	return bpf_map_update_elem(tables->maps.codes_fd, &key, &tables->codes, BPF_ANY);
}

static size_t count_loaded(const struct native_modules *modules) {
	size_t n = 0;

	vec_foreach (module, &modules->items)
		n += module->loaded;
	return n;
}

int bpf_tables_tell(struct bpf_tables *tables, const struct bpf_tables_process *process, uint64_t now_ns) {
	struct told *told = find_told(tables, process->pid);
	struct told now = { .pid = process->pid, .serial = process->serial, .read_ns = process->read_ns };
	int r = 0;

	now.loaded = count_loaded(process->modules);
	if (told && told->serial == now.serial && told->read_ns == now.read_ns && told->loaded == now.loaded)
		return 0;
	now.first_telling = told && told->serial == now.serial ? told->first_telling : tables->telling + 1;
	if (!told) {
		r = vec_push(&tables->told, (struct told){ .pid = process->pid });
		told = r ? NULL : &tables->told.items[tables->told.n - 1];
	}
	if (!r)
		r = tell(tables, process, &now, now_ns);
	if (r) {
		let_go(tables, now.files.items, now.files.n, now_ns);
		vec_free(&now.files);
		bpf_tables_remove(tables, process->pid, now_ns);
		return r;
	}
	let_go(tables, told->files.items, told->files.n, now_ns);
	vec_free(&told->files);
	*told = now;
	return 0;
}

bool bpf_tables_holds(const struct bpf_tables *tables, pid_t pid, uint64_t serial, uint32_t telling) {
	const struct told *told = find_told(tables, pid);

	return told && told->serial == serial && telling >= told->first_telling;
}

void bpf_tables_remove(struct bpf_tables *tables, pid_t pid, uint64_t now_ns) {
	struct told *told = find_told(tables, pid);
	uint32_t key = (uint32_t)pid;

	if (!told)
		return;
	bpf_map_delete_elem(tables->maps.codes_fd, &key);
	let_go(tables, told->files.items, told->files.n, now_ns);
	vec_free(&told->files);
	*told = tables->told.items[--tables->told.n];
}
