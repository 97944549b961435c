/* SPDX-License-Identifier: MIT */
/* Stubs of the PLT, by what they look like. A stub begins at a multiple of 8.
 *
 *   x86-64:   [endbr64] [bnd] jmp *slot(%rip)            .plt, .plt.sec, .plt.got
 *             [endbr64] push $n; [bnd] jmp …             .plt beside .plt.sec: the n'th slot of .rela.plt
 *   aarch64:  [bti c] adrp x16, page; ldr x17, [x16, #…]
 *
 * Where the sections are guessed, all code is looked through: what jumps through a slot at such a place is a stub, or a
 * function that is nothing else. */
#include "engine/native/plt.h"

#include "engine/base/cursor.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#define CODE_MAX (64U << 20)
#define NAME_MAX_BYTES 4096
#define STEP 8

struct slot {
	uint64_t vaddr;
	uint32_t order, name; /* offset in names */
};

struct stubs {
	VEC(struct slot) by_vaddr;
	VEC(struct slot) by_order;
	VEC(char) names;
	struct symbol_table *table;
	uint16_t machine;
	bool guessed;
};

static int add_slot(const struct elf_slot *from, void *userdata) {
	struct stubs *stubs = userdata;
	struct slot slot = { .vaddr = from->vaddr, .order = from->order, .name = (uint32_t)stubs->names.n };
	size_t len = strlen(from->name) + 1;
	int r;

	if (len > NAME_MAX_BYTES || len > SYMBOL_NAMES_MAX - stubs->names.n)
		return 0;
	r = vec_reserve(&stubs->names, stubs->names.n + len);
	if (r)
		return r;
	memcpy(stubs->names.items + stubs->names.n, from->name, len);
	stubs->names.n += len;
	r = vec_push(&stubs->by_vaddr, slot);
	/* Their orders come ascending. */
	return r || slot.order == UINT32_MAX ? r : vec_push(&stubs->by_order, slot);
}

static int by_vaddr(const void *a, const void *b) {
	const struct slot *x = a, *y = b;

	return x->vaddr != y->vaddr ? (x->vaddr < y->vaddr ? -1 : 1) : (x->name > y->name) - (x->name < y->name);
}

static int by_order(const void *a, const void *b) {
	const struct slot *x = a, *y = b;

	return (x->order > y->order) - (x->order < y->order);
}

static const struct slot *slot_at(const struct stubs *stubs, uint64_t vaddr) {
	const struct slot key = { .vaddr = vaddr };
	size_t low = 0, high = stubs->by_vaddr.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (stubs->by_vaddr.items[middle].vaddr < key.vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	return low < stubs->by_vaddr.n && stubs->by_vaddr.items[low].vaddr == vaddr ? &stubs->by_vaddr.items[low]
										    : NULL;
}

static const struct slot *slot_of_order(const struct stubs *stubs, uint32_t order) {
	const struct slot key = { .order = order };

	return stubs->by_order.n ? bsearch(&key, stubs->by_order.items, stubs->by_order.n, sizeof(key), by_order)
				 : NULL;
}

/* What stands at code[at], whose address is `vaddr`. Return: the slot; NULL: no stub begins there. */
static const struct slot *x86_stub(
	const struct stubs *stubs, const uint8_t *code, size_t len, size_t at, uint64_t vaddr, uint64_t *ret_size) {
	static const uint8_t endbr64[] = { 0xf3, 0x0f, 0x1e, 0xfa }, nop2[] = { 0x66, 0x90 };
	size_t begin = at;

	if (len - at >= sizeof(endbr64) && !memcmp(code + at, endbr64, sizeof(endbr64)))
		at += sizeof(endbr64);
	*ret_size = 16;
	if (len - at >= 11 && code[at] == 0x68 && (code[at + 5] == 0xe9 || code[at + 5] == 0xf2) && !stubs->guessed)
		return slot_of_order(stubs, peek_u32(code, len, at + 1));
	if (len - at >= 7 && code[at] == 0xf2)
		at++;
	if (len - at < 6 || code[at] != 0xff || code[at + 1] != 0x25)
		return NULL;
	if (at == begin && len - at >= 8 && !memcmp(code + at + 6, nop2, sizeof(nop2)))
		*ret_size = 8;
	return slot_at(stubs, vaddr + (at - begin) + 6 + (uint64_t)(int64_t)(int32_t)peek_u32(code, len, at + 2));
}

static const struct slot *aarch64_stub(
	const struct stubs *stubs, const uint8_t *code, size_t len, size_t at, uint64_t vaddr, uint64_t *ret_size) {
	uint32_t adrp, ldr;
	uint64_t pages;

	*ret_size = 16;
	if (len - at >= 4 && peek_u32(code, len, at) == 0xd503245f) { /* bti c */
		at += 4;
		vaddr += 4;
		*ret_size = 24;
	}
	adrp = peek_u32(code, len, at);
	ldr = peek_u32(code, len, at + 4);
	if (len - at < 8 || (adrp & 0x9f00001f) != 0x90000010 || (ldr & 0xffc003ff) != 0xf9400211)
		return NULL;
	pages = (uint64_t)(adrp >> 5 & 0x7ffff) << 2 | (adrp >> 29 & 3);
	pages = pages << 43; /* a number of 21 bits with a sign */
	return slot_at(stubs,
		(vaddr & ~0xfffULL) + (uint64_t)((int64_t)pages >> 43) * 4096 + (uint64_t)(ldr >> 10 & 0xfff) * 8);
}

static int add_stub(struct stubs *stubs, const struct slot *slot, uint64_t vaddr, uint64_t size) {
	char name[NAME_MAX_BYTES + 8];
	const struct elf_symbol symbol = { .name = name, .vaddr = vaddr, .size = size, .local = true };

	snprintf(name, sizeof(name), "%s@plt", stubs->names.items + slot->name);
	return symbol_table_add(stubs->table, &symbol);
}

static int look_through(struct stubs *stubs, const uint8_t *code, size_t len, uint64_t vaddr) {
	uint64_t size = 0;
	int r = 0;

	for (size_t at = 0; !r && at < len; at += STEP) {
		const struct slot *slot = stubs->machine == EM_X86_64
			? x86_stub(stubs, code, len, at, vaddr + at, &size)
			: aarch64_stub(stubs, code, len, at, vaddr + at, &size);

		if (slot)
			r = add_stub(stubs, slot, vaddr + at, size);
	}
	return r;
}

static int look_in(struct stubs *stubs, struct elf_image *img, const char *section) {
	_free_ uint8_t *code = NULL;
	uint64_t vaddr;
	size_t len;
	int r = elf_image_section_read(img, section, CODE_MAX, &code, &len, &vaddr);

	if (r)
		return r == -ENOENT || r == -EFBIG || r == -EIO ? 0 : r;
	return look_through(stubs, code, len, vaddr);
}

int symbol_table_add_plt(struct symbol_table *table, struct elf_image *img) {
	static const char *const sections[] = { ".plt", ".plt.sec", ".plt.got", NULL },
				 *const all[] = { ".text", NULL };
	struct stubs stubs = {
		.table = table, .machine = elf_image_machine(img), .guessed = elf_image_is_guessed(img)
	};
	int r = 0;

	if (stubs.machine == EM_X86_64 || stubs.machine == EM_AARCH64)
		r = elf_image_each_slot(img, add_slot, &stubs);
	if (!r && stubs.by_vaddr.n) {
		qsort(stubs.by_vaddr.items, stubs.by_vaddr.n, sizeof(*stubs.by_vaddr.items), by_vaddr);
		for (const char *const *section = stubs.guessed ? all : sections; !r && *section; section++)
			r = look_in(&stubs, img, *section);
	}
	vec_free(&stubs.by_vaddr);
	vec_free(&stubs.by_order);
	vec_free(&stubs.names);
	return r;
}
