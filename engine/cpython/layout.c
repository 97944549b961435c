/* SPDX-License-Identifier: MIT */
/* Finds the row of the generated tables for a version. The tables are few and small, and asked once for each process:
 * it looks at all of them. It does not read a target: checking that a row fits is the caller's task. */
#include "engine/cpython/layout.h"

static uint32_t minor_of(uint32_t version) {
	return version >> 16;
}

const struct layout_row *layout_find(uint32_t version, unsigned flavour) {
	const struct layout_row *below = NULL, *above = NULL;

	for (size_t i = 0; i < layout_rows_n; i++) {
		const struct layout_row *row = &layout_rows[i];
		if (row->flavour != flavour || minor_of(row->first_version) != minor_of(version))
			continue;
		if (row->first_version <= version && version <= row->last_version)
			return row;
		if (row->last_version < version)
			below = row;
		else if (!above)
			above = row;
	}
	return below ? below : above;
}
