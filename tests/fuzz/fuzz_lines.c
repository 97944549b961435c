/* SPDX-License-Identifier: MIT */
/* Line tables: byte 0 is the format, bytes 1 and 2 the offset, 3 and 4 the first line, the rest the table. */
#include "engine/cpython/lines.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	uint16_t offset, first;

	if (size < 5)
		return 0;
	memcpy(&offset, data + 1, sizeof(offset));
	memcpy(&first, data + 3, sizeof(first));
	if (lines_lookup((enum lines_format)(data[0] % 3), data + 5, size - 5, first, offset) < 0)
		abort();
	return 0;
}
