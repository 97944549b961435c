/* SPDX-License-Identifier: MIT */
/* One ELF file: its functions, those packed in it, the stubs of its PLT, the cold part of one, and its unwind table. */
#include "engine/native/cold.h"
#include "engine/native/plt.h"
#include "engine/native/unwind_table.h"

#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask(struct elf_image *img) {
	struct symbol_table table = { .end = UINT64_MAX };
	struct unwind_rules rules;
	struct unwind_table *unwind;
	uint64_t start;

	symbol_table_add_image(&table, img);
	symbol_table_add_debugdata(&table, img);
	symbol_table_add_plt(&table, img);
	symbol_table_add_cold(&table, img, "f");
	symbol_table_sort(&table);
	vec_foreach (row, &table.rows)
		if (!symbol_table_find(&table, row->vaddr, &start) && row->size)
			abort();
	symbol_table_deinit(&table);
	if (unwind_rules_init(&rules))
		return;
	if (!unwind_table_new(img, &rules, &unwind)) {
		unwind_table_find(unwind, unwind->vaddr + 1);
		unwind_table_free(unwind);
	}
	unwind_rules_deinit(&rules);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	_close_ int fd = memfd_create("elf", MFD_CLOEXEC);
	struct elf_image *img;

	if (fd < 0 || write(fd, data, size) != (ssize_t)size || elf_image_open(fd, &img))
		return 0;
	ask(img);
	elf_image_free(img);
	return 0;
}
