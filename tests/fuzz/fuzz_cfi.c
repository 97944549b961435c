/* SPDX-License-Identifier: MIT */
/* A section of call frame information, of either kind, on either machine, to a table; every address then asked for. */
#include "engine/base/util.h"
#include "engine/native/unwind_table.h"

#include <elf.h>

#define CODE_LEN 0x40000U

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct unwind_table *table, const struct unwind_rules *rules) {
	uint64_t end = table->vaddr + ((uint64_t)table->pages << UNWIND_PAGE_BITS);

	if (table->words[table->pages] != table->words_n)
		abort();
	for (uint32_t page = 0; page < table->pages; page++)
		if (table->words[page] <= table->pages || table->words[page] >= table->words[page + 1] ||
			table->words[table->words[page]] >> UNWIND_PAGE_BITS)
			abort();
	for (uint32_t i = table->pages + 1; i < table->words_n; i++)
		if ((table->words[i] & UINT16_MAX) >= rules->items.n)
			abort();
	for (uint64_t at = table->vaddr - 8; at < end + 8; at += 37)
		if (unwind_table_find(table, at) >= rules->items.n)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct unwind_rules rules;
	struct unwind_table *table;
	struct cfi cfi = { 0 };
	struct cfi_section section = { .start = 0x1000, .code_len = CODE_LEN, .vaddr = 0x2000 };

	if (!size || unwind_rules_init(&rules))
		return 0;
	section.machine = data[0] & 1 ? EM_AARCH64 : EM_X86_64;
	section.eh_frame = !(data[0] & 2);
	section.data = data + 1;
	section.len = size - 1;
	if (!cfi_read(&section, &rules, &cfi) && !unwind_table_pack(&cfi, section.start, &table)) {
		check(table, &rules);
		unwind_table_free(table);
	}
	cfi_deinit(&cfi);
	unwind_rules_deinit(&rules);
	return 0;
}
