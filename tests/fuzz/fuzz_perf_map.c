/* SPDX-License-Identifier: MIT */
/* A perf map file, and its names demangled. */
#include "engine/native/demangle.h"
#include "engine/native/perf_map.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct symbol_table table = { 0 };
	uint64_t start;
	char name[64];

	perf_map_parse((const char *)data, size, &table);
	vec_foreach (row, &table.rows) {
		const char *found = symbol_table_find(&table, row->vaddr, &start);

		if (!found || start > row->vaddr)
			abort();
		native_demangle(found, name, sizeof(name));
		if (strnlen(name, sizeof(name)) == sizeof(name))
			abort();
	}
	symbol_table_deinit(&table);
	return 0;
}
