/* SPDX-License-Identifier: MIT */
/* Decoded code objects, by address, and when to trust them again. */
#include "engine/cpython/code.h"

#include "engine/base/clock.h"
#include "engine/base/cursor.h"
#include "engine/base/limits.h"
#include "engine/cpython/objects.h"
#include <string.h>

#define CODE_BYTES_MAX 512          /* of a code object without its bytecode: larger than any version's */
#define RECHECK_NS (20 * NS_PER_MS) /* callers that nothing vouches for are looked at again this often */
#define NEVER 0
#define GLOBALS_LOOKED_AT 16  /* __name__ is among the first entries of a module's dictionary */
#define CHECKED_TEXT_BYTES 32 /* as PYB_TEXT of bpf/sample.h */
#define CHECKED_AT_ONCE 32
#define BYTECODE_MAX_BYTES (64U << 20)

struct code_image {
	uint8_t bytes[CODE_BYTES_MAX];
	uint32_t len;
};

void py_code_cache_init(struct py_code_cache *cache, const struct py_runtime *rt, struct intern *strings) {
	*cache = (struct py_code_cache){ .rt = rt, .strings = strings };
}

static void forget_codes(struct py_code_cache *cache) {
	vec_foreach (code, &cache->codes)
		free(code->linetable);
	cache->codes.n = 0;
	map_clear(&cache->index);
}

void py_code_cache_deinit(struct py_code_cache *cache) {
	forget_codes(cache);
	vec_free(&cache->codes);
	map_deinit(&cache->index);
}

static uint64_t image_u64(const struct code_image *image, uint32_t offset) {
	return layout_has(offset) ? peek_u64(image->bytes, image->len, offset) : 0;
}

static uint32_t image_u32(const struct code_image *image, uint32_t offset) {
	return layout_has(offset) ? peek_u32(image->bytes, image->len, offset) : 0;
}

static bool has_inline_bytecode(const struct layout *l) {
	return layout_has(l->code_adaptive);
}

static uint32_t image_len(const struct py_code_cache *cache) {
	const struct layout *l = &cache->rt->reader.layout;

	return min_of(has_inline_bytecode(l) ? l->code_adaptive : l->code_size, (uint32_t)CODE_BYTES_MAX);
}

static int read_image(const struct py_code_cache *cache, raddr addr, struct code_image *image) {
	image->len = image_len(cache);
	return mem_read(cache->rt->reader.mem, addr, image->bytes, image->len);
}

/* Fields that never change in a code object's life and, all together, in no other one at its address. */
static uint64_t checksum(const struct layout *l, const struct code_image *image) {
	const uint64_t words[] = {
		image_u64(image, l->object_type),
		image_u64(image, l->code_name),
		image_u64(image, l->code_filename),
		image_u64(image, l->code_qualname),
		image_u64(image, l->code_linetable),
		image_u64(image, l->code_consts),
		image_u64(image, l->code_names),
		image_u64(image, l->code_code),
		has_inline_bytecode(l) ? image_u64(image, l->var_size) : 0,
		(uint64_t)image_u32(image, l->code_firstlineno) << 32 | image_u32(image, l->code_argcount),
		(uint64_t)image_u32(image, l->code_flags) << 32 | image_u32(image, l->code_nlocalsplus),
		image_u32(image, l->code_version),
	};

	return hash_bytes(words, sizeof(words), 0);
}

bool py_code_has_unique_version(const struct py_runtime *rt) {
	return PY_MINOR(rt->reader.version) >= 0x030c && layout_has(rt->reader.layout.code_version);
}

uint32_t py_str_hash_offset(const struct layout *l) {
	return l->unicode_length + 8;
}

static uint64_t mix(uint64_t a, uint64_t b) {
	a = (a ^ b) * UINT64_C(0x9e3779b97f4a7c15);
	return a ^ a >> 29;
}

/* The end of what a str or bytes object holds. */
static struct py_text_end text_end(
	const struct py_code_cache *cache, raddr object, uint32_t len_offset, uint32_t data_offset) {
	struct py_text_end end = { 0 };

	(void)!mem_read_u64(cache->rt->reader.mem, object + len_offset, &end.len);
	end.n = (uint32_t)min_of(end.len, (uint64_t)CHECKED_TEXT_BYTES);
	end.at = object + data_offset + end.len - end.n;
	return end;
}

static void ends_of(
	const struct py_code_cache *cache, const struct code_image *image, struct py_text_end ends[PY_CODE_TEXTS]) {
	const struct layout *l = &cache->rt->reader.layout;

	ends[0] = text_end(cache, image_u64(image, l->code_name), l->unicode_length, l->unicode_ascii_size);
	ends[1] = text_end(cache, image_u64(image, l->code_filename), l->unicode_length, l->unicode_ascii_size);
	ends[2] = text_end(cache, image_u64(image, l->code_linetable), l->var_size, l->bytes_data);
}

static uint64_t mix_words(uint64_t len, const uint64_t words[CHECKED_TEXT_BYTES / 8]) {
	for (size_t i = 0; i < CHECKED_TEXT_BYTES / 8; i++)
		len = mix(len, words[i]);
	return len;
}

static uint64_t mix_end(const struct py_code_cache *cache, const struct py_text_end *end) {
	uint64_t words[CHECKED_TEXT_BYTES / 8] = { 0 };

	if (mem_read(cache->rt->reader.mem, end->at, words, end->n))
		memset(words, 0, sizeof(words));
	return mix_words(end->len, words);
}

static uint64_t mix_ends(const struct py_code_cache *cache, const struct py_text_end ends[PY_CODE_TEXTS]) {
	uint64_t hash = 0;

	for (size_t i = 0; i < PY_CODE_TEXTS; i++)
		hash = mix(hash, mix_end(cache, &ends[i]));
	return hash;
}

/* The same numbers as the sampling program's, out of the same fields (bpf/walk.h). */
static uint32_t check_of(const struct py_code_cache *cache, const struct code_image *image) {
	const struct layout *l = &cache->rt->reader.layout;
	struct py_text_end ends[PY_CODE_TEXTS];
	uint64_t hash = 0;

	if (py_code_has_unique_version(cache->rt))
		return image_u32(image, l->code_version);
	(void)!mem_read_u64(cache->rt->reader.mem, image_u64(image, l->code_name) + py_str_hash_offset(l), &hash);
	hash = mix(hash, image_u32(image, l->code_firstlineno));
	ends_of(cache, image, ends);
	for (size_t i = 0; i < PY_CODE_TEXTS; i++)
		hash = mix(hash, mix_end(cache, &ends[i]));
	return (uint32_t)hash | 1;
}

static int intern_text(struct py_code_cache *cache, raddr object, size_t max_chars, uint32_t *ret_id) {
	struct strbuf _cleanup_(strbuf_deinit) text = { 0 };
	int r;

	if (!object)
		return PY_E_TORN;
	r = py_text_read(&cache->rt->reader, object, max_chars, &text);
	if (r && r != PY_E_TRUNCATED)
		return r == PY_E_TYPE ? PY_E_TORN : r;
	*ret_id = intern_add(cache->strings, strbuf_str(&text), text.len);
	return 0;
}

struct name_search {
	struct py_code_cache *cache;
	uint32_t module;
	unsigned looked_at;
};

static int try_module_name(void *userdata, raddr key, raddr value) {
	struct name_search *search = userdata;
	struct strbuf _cleanup_(strbuf_deinit) name = { 0 };

	if (++search->looked_at > GLOBALS_LOOKED_AT)
		return 1;
	if (py_text_read(&search->cache->rt->reader, key, 16, &name) || strcmp(strbuf_str(&name), "__name__"))
		return 0;
	if (intern_text(search->cache, value, LIMIT_NAME_CHARS, &search->module))
		search->module = 0;
	return 1;
}

/* Functions of one module are met together, so the last answer is good for most. */
static uint32_t module_of(struct py_code_cache *cache, raddr globals) {
	struct name_search search = { .cache = cache };

	if (!globals)
		return 0;
	if (globals != cache->last_globals) {
		py_dict_walk(&cache->rt->reader, globals, try_module_name, &search);
		cache->last_globals = globals;
		cache->last_module = search.module;
	}
	return cache->last_module;
}

static bool is_code(struct py_code_cache *cache, raddr object, raddr type) {
	char name[8];

	if (type && type == cache->code_type)
		return true;
	if (py_type_name(&cache->rt->reader, object, name, sizeof(name)) || strcmp(name, "code"))
		return false;
	cache->code_type = type;
	return true;
}

/* Fills what the image and the objects it points to say. Return: 0; PY_E_TORN; MEM_E_*; -ENOMEM. */
static int decode(struct py_code_cache *cache, const struct py_raw_frame *frame, const struct code_image *image,
	struct py_code *code) {
	const struct layout *l = &cache->rt->reader.layout;
	uint64_t units;
	int r;

	if (!is_code(cache, frame->code, image_u64(image, l->object_type)))
		return PY_E_TORN;
	code->first_line = (int)image_u32(image, l->code_firstlineno);
	r = intern_text(cache, image_u64(image, l->code_name), LIMIT_NAME_CHARS, &code->name);
	if (!r)
		r = intern_text(cache, image_u64(image, l->code_filename), LIMIT_PATH_CHARS, &code->file);
	code->qualname = code->name;
	if (!r && layout_has(l->code_qualname))
		r = intern_text(cache, image_u64(image, l->code_qualname), LIMIT_NAME_CHARS, &code->qualname);
	if (!r)
		r = py_bytes_read(&cache->rt->reader, image_u64(image, l->code_linetable), LIMIT_LINETABLE_BYTES,
			&code->linetable, &code->linetable_len);
	if (r == PY_E_TYPE)
		return PY_E_TORN;
	if (r && r != PY_E_TRUNCATED)
		return r;
	if (has_inline_bytecode(l)) {
		units = image_u64(image, l->var_size);
		if (units > BYTECODE_MAX_BYTES / 2)
			return PY_E_TORN;
		code->bytecode = frame->code + l->code_adaptive;
		code->bytecode_len = (uint32_t)units * 2;
		code->tlbc = image_u64(image, l->code_tlbc);
	}
	code->module = module_of(cache, frame->globals);
	return 0;
}

static int add(struct py_code_cache *cache, const struct py_raw_frame *frame, const struct code_image *image,
	uint64_t checked, size_t at) {
	struct py_code code = { .addr = frame->code,
		.checksum = checksum(&cache->rt->reader.layout, image),
		.checked = checked,
		.serial = ++cache->serials };
	int r = decode(cache, frame, image, &code);

	if (!py_code_has_unique_version(cache->rt)) {
		ends_of(cache, image, code.ends);
		code.texts = mix_ends(cache, code.ends);
	}
	if (!r && at == cache->codes.n) {
		r = vec_push(&cache->codes, (struct py_code){ 0 });
		if (!r)
			r = map_put(&cache->index, frame->code, at);
	}
	if (r) {
		free(code.linetable);
		return r;
	}
	free(cache->codes.items[at].linetable);
	cache->codes.items[at] = code;
	cache->decoded++;
	return 0;
}

/* Whether what was decoded last is to be believed unread. */
static bool still_good(
	const struct py_code *code, const struct py_raw_frame *frame, uint64_t generation, uint64_t now_ns, bool leaf) {
	if (frame->check)
		return code->check == frame->check;
	return generation ? code->checked == generation
			  : code->checked == now_ns || (!leaf && now_ns - code->checked < RECHECK_NS);
}

/* What one code object is checked by. */
struct check {
	struct py_code *code;
	struct code_image image;
	uint64_t texts[PY_CODE_TEXTS][CHECKED_TEXT_BYTES / 8];
};

#define CHECK_RANGES (1 + PY_CODE_TEXTS)

static void ask(const struct py_code_cache *cache, struct check *check, struct mem_range ranges[CHECK_RANGES]) {
	check->image.len = image_len(cache);
	ranges[0] = (struct mem_range){ .addr = check->code->addr, .len = check->image.len, .buf = check->image.bytes };
	memset(check->texts, 0, sizeof(check->texts));
	for (size_t i = 0; i < PY_CODE_TEXTS; i++)
		ranges[1 + i] = (struct mem_range){
			.addr = check->code->ends[i].at, .len = check->code->ends[i].n, .buf = check->texts[i]
		};
}

static bool is_same(const struct py_code_cache *cache, const struct check *check) {
	uint64_t texts = 0;

	if (checksum(&cache->rt->reader.layout, &check->image) != check->code->checksum)
		return false;
	if (py_code_has_unique_version(cache->rt))
		return true;
	for (size_t i = 0; i < PY_CODE_TEXTS; i++)
		texts = mix(texts, mix_words(check->code->ends[i].len, check->texts[i]));
	return texts == check->code->texts;
}

/* Where no counter tells whether code was freed, the frames next to the leaf are never believed unread. */
void py_code_check_many(struct py_code_cache *cache, const struct py_raw_frame *frames, size_t n, uint64_t generation,
	uint64_t now_ns) {
	struct check checks[CHECKED_AT_ONCE];
	struct mem_range ranges[CHECKED_AT_ONCE * CHECK_RANGES];
	size_t asked_n = 0, done = 0;

	for (size_t i = 0; i < n && asked_n < CHECKED_AT_ONCE; i++) {
		uint64_t at;

		if (frames[i].check || !map_get(&cache->index, frames[i].code, &at) ||
			still_good(&cache->codes.items[at], &frames[i], generation, now_ns, true))
			continue;
		checks[asked_n].code = &cache->codes.items[at];
		checks[asked_n].code->checked = generation ? generation : now_ns; /* recursion asks for it once */
		ask(cache, &checks[asked_n], &ranges[asked_n * CHECK_RANGES]);
		asked_n++;
	}
	if (!asked_n)
		return;
	(void)!mem_read_together(cache->rt->reader.mem, ranges, asked_n * CHECK_RANGES, &done);
	for (size_t i = 0; i < asked_n; i++) {
		if ((i + 1) * CHECK_RANGES > done || !is_same(cache, &checks[i]))
			checks[i].code->checked = NEVER;
	}
}

/* An allocator writes an address over the first word of what is freed, where a living object counts its references: 32
 * bits, and flags in the upper 16. Free-threaded builds keep an address there themselves, and count behind it: the
 * references of the owning thread in 32 bits, those of others above two bits of flags (Include/object.h). */
static bool is_alive(const struct py_code_cache *cache, const struct code_image *image) {
	uint32_t type = cache->rt->reader.layout.object_type;
	uint64_t references = image_u64(image, type - 8);

	if (cache->rt->reader.flavour & LAYOUT_FREE_THREADED)
		return image_u32(image, type - 12) || references >> 2;
	return (uint32_t)references && !(references >> 32 & 0xffff);
}

/* The texts of a code object are read after the object; it may have been freed in between. */
static int check_again(const struct py_code_cache *cache, const struct py_raw_frame *frame) {
	struct code_image image;
	int r = read_image(cache, frame->code, &image);

	if (!r && !is_alive(cache, &image))
		return PY_E_TYPE;
	return r ? r : check_of(cache, &image) == frame->check ? 0 : PY_E_TYPE;
}

/* Reads the fields of the code object that is at the frame's address now, and tells whether it is `known` still (NULL:
 * none was decoded there). Return: 0; MEM_E_*; negative errno. */
static int look_at(const struct py_code_cache *cache, const struct py_raw_frame *frame, struct py_code *known,
	struct check *check, bool *ret_same) {
	struct mem_range ranges[CHECK_RANGES];
	size_t done = 0;
	int r;

	if (!known) {
		*ret_same = false;
		return read_image(cache, frame->code, &check->image);
	}
	check->code = known;
	ask(cache, check, ranges);
	r = mem_read_many(cache->rt->reader.mem, ranges, CHECK_RANGES, &done);
	if (r && !done)
		return r;
	*ret_same = !r && is_same(cache, check);
	return 0;
}

static void forget_globals(struct py_code_cache *cache, uint64_t now_ns) {
	if (now_ns - cache->last_globals_ns <= RECHECK_NS)
		return;
	cache->last_globals = 0;
	cache->last_globals_ns = now_ns;
}

int py_code_lookup(struct py_code_cache *cache, const struct py_raw_frame *frame, uint64_t generation, uint64_t now_ns,
	bool leaf, const struct py_code **ret_code) {
	struct check check;
	uint64_t at = cache->codes.n;
	struct py_code *code = NULL;
	bool same;
	int r;

	if (map_get(&cache->index, frame->code, &at)) {
		code = &cache->codes.items[at];
		if (still_good(code, frame, generation, now_ns, leaf)) {
			*ret_code = code;
			return 0;
		}
	} else if (cache->codes.n >= LIMIT_CODES) {
		forget_codes(cache);
		at = 0;
	}
	forget_globals(cache, now_ns);
	r = look_at(cache, frame, code, &check, &same);
	if (r)
		return r;
	if (frame->check && check_of(cache, &check.image) != frame->check)
		return PY_E_TYPE;
	if (same && (!code->check || !frame->check || code->check == frame->check)) {
		code->checked = generation ? generation : now_ns;
		code->check = frame->check ? frame->check : code->check;
		*ret_code = code;
		return 0;
	}
	cache->reused_addresses += code != NULL;
	r = add(cache, frame, &check.image, generation ? generation : now_ns, at);
	if (!r && frame->check && (r = check_again(cache, frame)))
		cache->codes.items[at].checksum ^= UINT64_MAX; /* not to be found again */
	if (r)
		return r;
	cache->codes.items[at].check = frame->check;
	*ret_code = &cache->codes.items[at];
	return 0;
}

/* Free-threaded 3.14+: thread `index` runs its own copy of the bytecode. _PyCodeArray is {size, entries…}. */
static raddr thread_local_bytecode(const struct py_code_cache *cache, const struct py_code *code, uint64_t index) {
	uint64_t size, entry;

	if (mem_read_u64(cache->rt->reader.mem, code->tlbc, &size) || index >= size ||
		mem_read_u64(cache->rt->reader.mem, code->tlbc + 8 + index * 8, &entry))
		return 0;
	return entry;
}

int64_t py_code_offset(
	const struct py_code_cache *cache, const struct py_code *code, const struct py_raw_frame *frame) {
	raddr base = code->bytecode;

	if (!base)
		return frame->instr;
	if (frame->code_base && code->tlbc)
		base = thread_local_bytecode(cache, code, frame->code_base);
	return (int64_t)((uint64_t)frame->instr - base);
}

int py_code_line(const struct py_code_cache *cache, const struct py_code *code, int64_t offset) {
	return lines_lookup(lines_format_of(cache->rt->reader.version), code->linetable, code->linetable_len,
		code->first_line, offset);
}
