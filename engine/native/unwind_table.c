/* SPDX-License-Identifier: MIT */
/* The rows of a file's functions, sorted and packed into words.
 *
 * Functions are put in the order of their addresses. In a broken file they may overlap: one ends where the next one
 * starts. What no function covers gets a row "no rule". */
#include "engine/native/unwind_table.h"

#include <elf.h>

#define PAGE_BYTES (1U << UNWIND_PAGE_BITS)
#define LOW_MASK (PAGE_BYTES - 1)

struct packer {
	VEC(uint32_t) words;
	uint32_t pages;
	uint32_t page; /* the next one to be begun */
	uint16_t rule; /* that holds now */
	int failed;
};

static void push_row(struct packer *p, uint32_t low, uint16_t rule) {
	if (!p->failed)
		p->failed = vec_push(&p->words, low << UNWIND_PAGE_BITS | rule);
}

static void begin_page(struct packer *p, uint16_t rule) {
	p->words.items[p->page++] = (uint32_t)p->words.n;
	push_row(p, 0, rule);
}

/* From `offset` on, `rule` holds. Offsets come ascending, and may repeat. */
static void put(struct packer *p, uint32_t offset, uint16_t rule) {
	uint32_t page = offset >> UNWIND_PAGE_BITS, low = offset & LOW_MASK, last;

	while (p->page < p->pages && (p->page < page || (p->page == page && low)))
		begin_page(p, p->rule);
	if (page >= p->pages)
		return;
	if (p->page == page)
		begin_page(p, rule);
	else if (rule != p->rule) {
		last = p->words.items[p->words.n - 1];
		if (last >> UNWIND_PAGE_BITS == low)
			p->words.items[p->words.n - 1] = low << UNWIND_PAGE_BITS | rule;
		else
			push_row(p, low, rule);
	}
	p->rule = rule;
}

static int by_start(const void *a, const void *b) {
	const struct cfi_range *x = a, *y = b;

	return x->start != y->start ? (x->start < y->start ? -1 : 1) : (x->first < y->first ? -1 : 1);
}

static void put_range(struct packer *p, const struct cfi *cfi, const struct cfi_range *range, uint32_t end) {
	for (uint32_t i = range->first; i < range->first + range->n; i++)
		if (cfi->rows.items[i].offset < end)
			put(p, cfi->rows.items[i].offset, cfi->rows.items[i].rule);
	if (range->start < end)
		put(p, end, UNWIND_RULE_NONE);
}

static int finish(struct packer *p, const struct cfi *cfi, uint64_t vaddr, struct unwind_table **ret_table) {
	struct unwind_table *table = calloc(1, sizeof(*table));
	void *words;

	if (!table)
		return -ENOMEM;
	p->words.items[p->pages] = (uint32_t)p->words.n;
	words = realloc(p->words.items, p->words.n * sizeof(*p->words.items));
	*table = (struct unwind_table){
		.vaddr = vaddr,
		.pages = p->pages,
		.words_n = (uint32_t)p->words.n,
		.words = words ? words : p->words.items,
		.broken = cfi->broken,
		.unknown = cfi->unknown,
	};
	p->words.items = NULL;
	*ret_table = table;
	return 0;
}

static uint32_t end_of(const struct cfi *cfi) {
	uint32_t end = 0;

	vec_foreach (range, &cfi->ranges)
		end = max_of(end, range->end);
	return end;
}

int unwind_table_pack(struct cfi *cfi, uint64_t vaddr, struct unwind_table **ret_table) {
	struct packer p = { .rule = UNWIND_RULE_NONE };
	int r;

	if (!cfi->ranges.n)
		return -ENOENT;
	qsort(cfi->ranges.items, cfi->ranges.n, sizeof(*cfi->ranges.items), by_start);
	p.pages = (uint32_t)(((uint64_t)end_of(cfi) + LOW_MASK) >> UNWIND_PAGE_BITS);
	r = vec_reserve(&p.words, p.pages + 1 + cfi->rows.n);
	if (r)
		return r;
	p.words.n = p.pages + 1;
	for (size_t i = 0; i < cfi->ranges.n; i++) {
		const struct cfi_range *range = &cfi->ranges.items[i];

		put_range(&p, cfi, range, i + 1 < cfi->ranges.n ? min_of(range->end, range[1].start) : range->end);
	}
	while (p.page < p.pages)
		begin_page(&p, p.rule);
	r = p.failed ? p.failed : finish(&p, cfi, vaddr, ret_table);
	vec_free(&p.words);
	return r;
}

static int read_section(struct elf_image *img, struct cfi_section *section, uint8_t **data) {
	int r = elf_image_section_read(img, ".eh_frame", CFI_SECTION_MAX, data, &section->len, &section->vaddr);

	section->eh_frame = !r;
	if (r == -ENOENT)
		r = elf_image_section_read(img, ".debug_frame", CFI_SECTION_MAX, data, &section->len, &section->vaddr);
	section->data = *data;
	return r;
}

int unwind_table_new(struct elf_image *img, struct unwind_rules *rules, struct unwind_table **ret_table) {
	struct cfi_section section = { .machine = elf_image_machine(img) };
	_free_ uint8_t *data = NULL;
	struct cfi cfi = { 0 };
	uint64_t end;
	int r = elf_image_code(img, &section.start, &end);

	if (!r)
		r = read_section(img, &section, &data);
	if (r)
		return r;
	section.code_len = end - section.start;
	r = cfi_read(&section, rules, &cfi);
	if (!r)
		r = unwind_table_pack(&cfi, section.start, ret_table);
	cfi_deinit(&cfi);
	return r;
}

void unwind_table_free(struct unwind_table *table) {
	if (!table)
		return;
	free(table->words);
	free(table);
}

/* The index of the row that holds at an offset; 0: it is outside. */
static uint32_t find_row(const struct unwind_table *table, uint64_t vaddr) {
	uint64_t offset = vaddr - table->vaddr, page = offset >> UNWIND_PAGE_BITS;
	uint32_t key = (uint32_t)(offset & LOW_MASK) << UNWIND_PAGE_BITS | LOW_MASK, low, high;

	if (vaddr < table->vaddr || page >= table->pages)
		return 0;
	low = table->words[page];
	high = table->words[page + 1];
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (table->words[middle] <= key)
			low = middle;
		else
			high = middle;
	}
	return low;
}

uint16_t unwind_table_find(const struct unwind_table *table, uint64_t vaddr) {
	uint32_t row = find_row(table, vaddr);

	return row ? (uint16_t)(table->words[row] & UINT16_MAX) : UNWIND_RULE_NONE;
}

bool unwind_table_has_gap(const struct unwind_table *table, uint64_t from, uint64_t to) {
	uint32_t first = find_row(table, from), last = find_row(table, to);

	if (!first || !last || from > to)
		return true;
	for (uint32_t i = first; i <= last; i++)
		if ((table->words[i] & UINT16_MAX) == UNWIND_RULE_NONE)
			return true;
	return false;
}
