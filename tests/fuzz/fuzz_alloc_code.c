/* SPDX-License-Identifier: MIT */
/* Machine code of an allocator, at its entry and around a comparison: whatever it is, places lie within it. */
#include "engine/base/util.h"
#include "engine/sample/alloc_code.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct alloc_place *place, size_t size) {
	if (place->at >= size)
		abort();
	if (place->size.a != ALLOC_NO_REG && place->size.a > 15)
		abort();
	if (place->size.b != ALLOC_NO_REG && place->size.b > 15)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct alloc_pointer pointer;
	struct alloc_place place;
	uint64_t at, callee;

	if (size < 16)
		return 0;
	memcpy(&at, data, sizeof(at));
	memcpy(&callee, data + 8, sizeof(callee));
	data += 16;
	size -= 16;
	alloc_pointer_of(data, size, at, &pointer);
	for (int args = ALLOC_MALLOC; args <= ALLOC_C_REALLOC; args++) {
		if (!alloc_place_at_entry(data, size, (enum alloc_args)args, &place))
			check(&place, size);
		for (size_t from = 0; from < size; from++)
			if (!alloc_place_inlined(data, size, at, from, callee, (enum alloc_args)args, &place))
				check(&place, size);
	}
	return 0;
}
