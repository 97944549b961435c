/* SPDX-License-Identifier: MIT */
/* The map of what is near the roots: breadth first from modules and running frames.
 *
 * Modules come in the order in which people would look for a thing: those of the program, installed ones, the standard
 * library, private ones. Where a class or function stands in several modules, the one that defines it names it: a
 * function has that module's dict, and a class's __module__ is the very object that is the module's __name__. What a
 * frame has comes behind the globals, the program's frames first.
 *
 * Threads run meanwhile: what a frame's variables hold is of the moment in which they were read. */
#include "engine/leaks/roots.h"

#include "engine/base/clock.h"
#include "engine/base/limits.h"
#include "engine/leaks/roots_map.h"
#include <string.h>

#define MODULES_MAX 65536
#define STEP_OBJECTS 40000 /* entries of the map of one step */
#define NAME_BYTES 256

struct module {
	raddr object;
	raddr name; /* the object that is its __name__ */
	raddr dict;
	uint32_t text; /* what it is called, interned */
	uint8_t rank;
	uint32_t order;
};

struct build {
	struct root_map *map;
	struct root_work *work;
	const struct py_runtime *rt;
	const struct py_reader *py;
	unsigned depth;
	uint64_t until_ns;
	VEC(struct module) modules;
	raddr main; /* __main__ of the interpreter that is looked at */
};

static int map_new(const struct py_runtime *rt, size_t limit, struct root_map **ret_map) {
	struct root_map *map = calloc(1, sizeof(*map));
	int r;

	if (!map)
		return -ENOMEM;
	map->rt = rt;
	map->limit = min_of(limit, (size_t)ROOT_NONE - 1);
	r = intern_init(&map->strings);
	if (r) {
		free(map);
		return r;
	}
	*ret_map = map;
	return 0;
}

void root_map_free(struct root_map *map) {
	if (!map)
		return;
	vec_free(&map->entries);
	map_deinit(&map->index);
	intern_deinit(&map->strings);
	free(map);
}

/* Whether there is no time left, which the map remembers. */
static bool is_late(struct build *b) {
	bool late = b->until_ns && clock_mono_ns() >= b->until_ns;

	b->map->incomplete |= late;
	return late;
}

/* Modules */

enum { RANK_PROGRAM, RANK_INSTALLED, RANK_LIBRARY, RANK_PRIVATE };

static uint8_t rank_of(const char *name, const char *file) {
	if (strstr(file, "/site-packages/") || strstr(file, "/dist-packages/"))
		return RANK_INSTALLED;
	if (file[0] && !strstr(file, "/lib/python3") && !strstr(file, "/lib64/python3"))
		return RANK_PROGRAM;
	return name[0] == '_' ? RANK_PRIVATE : RANK_LIBRARY;
}

/* app.py is "app" to people. */
static uint32_t script_name(struct build *b, const char *file) {
	const char *base = strrchr(file, '/');
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };

	base = base ? base + 1 : file;
	strbuf_add_printable(&text, base, (size_t)(strchrnul(base, '.') - base));
	return text.len ? intern_add(&b->map->strings, strbuf_str(&text), text.len) : 0;
}

static int read_file(const struct build *b, raddr module, struct strbuf *file) {
	raddr text;
	int r = py_attribute(b->py, module, "__file__", &text);

	if (!r)
		r = py_text_read(b->py, text, LIMIT_PATH_CHARS, file);
	return root_is_final(r) ? r : 0;
}

static int describe_module(struct build *b, const char *name, size_t len, struct module *module) {
	_cleanup_(strbuf_deinit) struct strbuf file = { 0 };
	int r = read_file(b, module->object, &file);

	if (!r && py_attribute(b->py, module->object, "__name__", &module->name))
		module->name = 0;
	if (!r && mem_read_u64(b->py->mem, module->object + b->py->layout.module_dict, &module->dict))
		module->dict = 0;
	if (r)
		return r;
	module->rank = rank_of(name, strbuf_str(&file));
	if (!strcmp(name, "__main__")) {
		module->rank = RANK_PROGRAM;
		module->text = script_name(b, strbuf_str(&file));
	}
	if (!module->text)
		module->text = intern_add(&b->map->strings, len ? name : "?", len ? len : 1);
	return 0;
}

static int add_module(void *userdata, raddr key, raddr value) {
	_cleanup_(strbuf_deinit) struct strbuf name = { 0 }, shown = { 0 };
	struct build *b = userdata;
	struct module module = { .object = value, .order = (uint32_t)b->modules.n };
	uint32_t type = ROOT_NONE;
	raddr at;
	int r = py_text_read(b->py, key, NAME_BYTES, &name);

	if (!r)
		r = py_type_of(b->py, value, &at);
	if (!r)
		r = root_types_find(root_work_types(b->work), at, &type);
	if (r || type == ROOT_NONE)
		return root_is_final(r) ? r : 0;
	if (b->modules.n >= MODULES_MAX || is_late(b)) {
		b->map->incomplete = true;
		return PY_E_TRUNCATED;
	}
	strbuf_add_printable(&shown, strbuf_str(&name), name.len);
	r = shown.failed ? -ENOMEM : describe_module(b, strbuf_str(&shown), shown.len, &module);
	return r ? r : vec_push(&b->modules, module);
}

static int compare_modules(const void *a, const void *b) {
	const struct module *x = a, *y = b;

	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

/* They become the first entries, in the order of b->modules. */
static int add_modules(struct build *b) {
	py_interp_vec interps = { 0 };
	raddr modules;
	int r = py_interps_read(b->rt, &interps);

	for (size_t i = interps.n; !root_is_final(r) && i > 0; i--) {
		r = mem_read_u64(b->py->mem, interps.items[i - 1].addr + b->py->layout.interp_modules, &modules);
		if (!r && modules)
			r = py_dict_walk(b->py, modules, add_module, b);
	}
	vec_free(&interps);
	if (b->modules.n)
		qsort(b->modules.items, b->modules.n, sizeof(b->modules.items[0]), compare_modules);
	r = root_is_final(r) ? r : 0;
	for (size_t i = 0; !r && i < b->modules.n; i++)
		r = root_add(b->work, b->modules.items[i].object, ROOT_NONE, EDGE_MODULE, b->modules.items[i].text);
	return r;
}

/* The module of a name, by the entry of its dict; NULL where it is none. */
static const struct module *module_of(const struct build *b, uint32_t dict_entry) {
	const struct root_entry *entries = b->map->entries.items;
	raddr dict = entries[dict_entry].object, object;

	if (entries[dict_entry].parent == ROOT_NONE)
		return NULL;
	object = entries[entries[dict_entry].parent].object;
	for (size_t i = entries[dict_entry].parent; i < b->modules.n; i++)
		if (b->modules.items[i].object == object)
			return b->modules.items[i].dict == dict ? &b->modules.items[i] : NULL;
	return NULL;
}

/* What says where a class or function was defined: the object that is that module's __name__, or its dict; the other
 * one, or both, are 0. */
struct origin {
	raddr name, globals;
};

static int read_origin(struct build *b, raddr object, struct origin *ret) {
	struct root_types *types = root_work_types(b->work);
	const struct root_type *type;
	struct type_head head;
	uint32_t number;
	raddr at;
	int r = py_type_of(b->py, object, &at);

	*ret = (struct origin){ 0 };
	if (!r)
		r = root_types_find(types, at, &number);
	if (r || number == ROOT_NONE)
		return root_is_final(r) ? r : 0;
	type = &types->items.items[number];
	if (type->kind == KIND_FUNCTION) {
		r = mem_read_u64(b->py->mem, object + root_function_layout(&b->py->layout).globals, &ret->globals);
	} else if (type->kind == KIND_TYPE) {
		r = type_head_read(b->py, object, &head);
		if (!r && head.flags & TYPE_HEAP && head.dict)
			r = py_dict_get(b->py, head.dict, "__module__", &ret->name);
	}
	return root_is_final(r) ? r : 0;
}

static bool is_from(const struct module *module, const struct origin *origin) {
	return module &&
		((origin->name && module->name == origin->name) ||
			(origin->globals && module->dict == origin->globals));
}

static int compare_others(const void *a, const void *b) {
	const struct root_other *x = a, *y = b;

	return x->entry < y->entry ? -1 : x->entry > y->entry;
}

/* Gives each class and function the name that it has where it was defined. */
static int prefer_origins(struct build *b, struct root_other *others, size_t n) {
	struct origin origin = { 0 };
	int r = 0;

	if (n)
		qsort(others, n, sizeof(*others), compare_others);
	for (size_t i = 0; !r && i < n; i++) {
		struct root_entry *entry = &b->map->entries.items[others[i].entry];

		if (!i || others[i].entry != others[i - 1].entry)
			r = read_origin(b, entry->object, &origin);
		if (r || !is_from(module_of(b, others[i].parent), &origin) ||
			is_from(module_of(b, entry->parent), &origin))
			continue;
		entry->parent = others[i].parent;
		entry->key = others[i].key;
	}
	return r;
}

/* Frames */

struct frame {
	struct py_raw_frame raw;
	uint32_t name, thread; /* interned */
	uint8_t rank;
	uint32_t order;
};

struct threads {
	struct py_thread_names names;
	struct py_stack_scratch scratch;
	struct py_raw_stack stack;
	VEC(struct frame) frames;
};

/* Appends a text that a code object has; nothing where it cannot be read. */
static int read_code_text(const struct build *b, raddr code, uint32_t offset, struct strbuf *out) {
	raddr text;
	int r = mem_read_u64(b->py->mem, code + offset, &text);

	if (!r)
		r = py_text_read(b->py, text, LIMIT_PATH_CHARS, out);
	return root_is_final(r) ? r : 0;
}

static int collect_frame(struct build *b, struct threads *threads, const struct py_raw_frame *raw, uint32_t thread) {
	const struct layout *l = &b->py->layout;
	_cleanup_(strbuf_deinit) struct strbuf name = { 0 }, shown = { 0 }, file = { 0 };
	struct frame frame = { .raw = *raw, .thread = thread, .order = (uint32_t)threads->frames.n };
	int r = read_code_text(b, raw->code, layout_has(l->code_qualname) ? l->code_qualname : l->code_name, &name);

	if (!r)
		r = read_code_text(b, raw->code, l->code_filename, &file);
	if (r)
		return r;
	strbuf_add_printable(&shown, name.len ? strbuf_str(&name) : "?", name.len ? name.len : 1);
	frame.name = intern_add(&b->map->strings, strbuf_str(&shown), shown.len);
	frame.rank = rank_of("", strbuf_str(&file));
	return vec_push(&threads->frames, frame);
}

static int collect_stack(struct build *b, struct threads *threads, const struct py_thread *thread) {
	struct py_stack_plan plan;
	const char *name = py_thread_name(&threads->names, thread->ident);
	char number[32];
	uint32_t text;
	int r;

	snprintf(number, sizeof(number), "%#llx", (unsigned long long)thread->ident);
	name = name ? name : number;
	text = intern_add(&b->map->strings, name, strlen(name));
	py_stack_plan_init(&plan, thread);
	r = py_stack_capture(b->rt, &plan, &threads->scratch, &threads->stack);
	for (size_t i = 0; !r && i < threads->stack.frames.n && threads->frames.n < b->map->limit; i++)
		r = collect_frame(b, threads, &threads->stack.frames.items[i], text);
	py_stack_plan_deinit(&plan);
	return root_is_final(r) ? r : 0;
}

static int collect_interp(struct build *b, struct threads *threads, const struct py_interp *interp) {
	const struct layout *l = &b->py->layout;
	struct py_thread thread = { .interp = interp->addr, .interp_id = interp->id };
	int r = mem_read_u64(b->py->mem, interp->addr + l->interp_threads_head, &thread.tstate);

	for (unsigned i = 0; !r && thread.tstate && i < LIMIT_THREADS && !is_late(b); i++) {
		r = mem_read_u64(b->py->mem, thread.tstate + l->tstate_thread_id, &thread.ident);
		if (!r)
			r = collect_stack(b, threads, &thread);
		if (!r)
			r = mem_read_u64(b->py->mem, thread.tstate + l->tstate_next, &thread.tstate);
	}
	return root_is_final(r) ? r : 0;
}

static int compare_frames(const void *a, const void *b) {
	const struct frame *x = a, *y = b;

	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

/* The entry of a frame stands for no object: nobody finds it by its address. */
static int add_frame(struct build *b, const struct frame *frame) {
	struct root_map *map = b->map;
	uint32_t number = (uint32_t)map->entries.n;
	int r;

	if (map->entries.n >= map->limit)
		return 0;
	r = vec_push(&map->entries,
		(struct root_entry){
			.key = frame->name | (uint64_t)frame->thread << 32, .parent = ROOT_NONE, .edge = EDGE_FRAME });
	return r ? r : root_add_locals(b->work, &frame->raw, number);
}

/* The program's own frames first, of each thread the innermost. */
static int add_frames(struct build *b) {
	struct threads threads = { 0 };
	py_interp_vec interps = { 0 };
	int r = py_stack_scratch_init(&threads.scratch);

	if (!r)
		r = py_thread_names_read(b->rt, &threads.names);
	if (!root_is_final(r))
		r = py_interps_read(b->rt, &interps);
	for (size_t i = 0; !r && i < interps.n; i++)
		r = collect_interp(b, &threads, &interps.items[i]);
	if (threads.frames.n)
		qsort(threads.frames.items, threads.frames.n, sizeof(threads.frames.items[0]), compare_frames);
	for (size_t i = 0; !r && i < threads.frames.n && !is_late(b); i++)
		r = add_frame(b, &threads.frames.items[i]);
	vec_free(&interps);
	vec_free(&threads.frames);
	py_raw_stack_deinit(&threads.stack);
	py_stack_scratch_deinit(&threads.scratch);
	py_thread_names_deinit(&threads.names);
	return root_is_final(r) ? r : 0;
}

/* The walk */

/* Gathers the next ones to go into. */
static size_t next_batch(const struct build *b, size_t *at, size_t end, uint32_t *batch) {
	size_t n = 0;

	for (; n < ROOT_BATCH && *at < end; ++*at) {
		const struct root_entry *entry = &b->map->entries.items[*at];

		if (!entry->hidden && entry->object && entry->steps < b->depth)
			batch[n++] = (uint32_t)*at;
	}
	return n;
}

/* Goes into the entries from *at to `end`, or into all there will be. */
static int expand_to(struct build *b, size_t *at, size_t end) {
	uint32_t batch[ROOT_BATCH];
	int r = 0;

	while (!r && *at < min_of(end, b->map->entries.n)) {
		size_t n;

		if (is_late(b))
			return 0;
		n = next_batch(b, at, min_of(end, b->map->entries.n), batch);
		r = n ? root_expand(b->work, batch, n) : 0;
	}
	return r;
}

static int build(struct build *b) {
	struct root_other *others _free_ = NULL;
	size_t at = 0, n = 0;
	int r = add_modules(b);

	root_work_note_others(b->work);
	if (!r)
		r = expand_to(b, &at, b->map->entries.n);
	root_work_others(b->work, &others, &n);
	if (!r)
		r = prefer_origins(b, others, n);
	if (!r)
		r = add_frames(b);
	return r ? r : expand_to(b, &at, SIZE_MAX);
}

int root_map_build(const struct py_runtime *rt, const struct root_limits *limits, struct root_map **ret_map) {
	static const struct root_limits defaults;
	const struct root_limits *l = limits ? limits : &defaults;
	struct build b = {
		.rt = rt,
		.py = &rt->reader,
		.depth = min_of(l->depth ? l->depth : ROOT_DEPTH, 200U),
		.until_ns = l->until_ns,
	};
	int r = map_new(rt, l->objects ? l->objects : ROOT_OBJECTS, &b.map);

	if (!r)
		r = root_work_new(b.map, &b.work);
	if (!r)
		r = build(&b);
	root_work_free(b.work);
	vec_free(&b.modules);
	if (r)
		root_map_free(b.map);
	else
		*ret_map = b.map;
	return r;
}

size_t root_map_count(const struct root_map *map) {
	return map->index.n;
}

bool root_map_is_incomplete(const struct root_map *map) {
	return map->incomplete;
}

bool root_map_has(const struct root_map *map, raddr object, unsigned *ret_steps) {
	uint64_t entry;

	if (!map_get(&map->index, object, &entry))
		return false;
	if (ret_steps)
		*ret_steps = map->entries.items[entry].steps;
	return true;
}

int root_map_path(const struct root_map *map, raddr object, struct strbuf *out) {
	return root_map_path_to(map, object, "", out);
}

int root_map_path_to(const struct root_map *map, raddr object, const char *rest, struct strbuf *out) {
	const struct root_entry *root;
	uint64_t entry;
	int r;

	if (!map_get(&map->index, object, &entry))
		return PY_E_TYPE;
	r = root_write(map, (uint32_t)entry, out);
	if (r)
		return r;
	strbuf_adds(out, rest);
	for (root = &map->entries.items[entry]; root->parent != ROOT_NONE;)
		root = &map->entries.items[root->parent];
	if (root->edge == EDGE_FRAME)
		strbuf_addf(out, " (in thread %s)", intern_str(&map->strings, (uint32_t)(root->key >> 32)));
	return out->failed ? -ENOMEM : 0;
}

int root_step(const struct py_runtime *rt, raddr from, raddr to, struct strbuf *out) {
	struct root_map *map = NULL;
	struct root_work *work = NULL;
	uint64_t entry;
	int r = map_new(rt, STEP_OBJECTS, &map);

	if (!r)
		r = root_work_new(map, &work);
	if (!r)
		r = root_add(work, from, ROOT_NONE, EDGE_START, 0);
	if (!r && map->entries.n)
		r = root_expand(work, &(uint32_t){ 0 }, 1);
	if (!r && map_get(&map->index, to, &entry) && entry)
		r = root_write(map, (uint32_t)entry, out);
	else if (!r && root_work_met_long(work))
		strbuf_adds(out, "[…]");
	root_work_free(work);
	root_map_free(map);
	return r ? r : out->failed ? -ENOMEM : 0;
}
