/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_TESTS_FUZZ_LAYOUTS_H
#define PYSPYD_TESTS_FUZZ_LAYOUTS_H

#include "engine/cpython/layout.h"
#include "engine/cpython/reader.h"

#include <stdlib.h>

/* One build of each way in which objects are laid out; an input's byte chooses. */

static const struct fuzz_layout {
	uint32_t version;
	unsigned flavour;
} fuzz_layouts[] = {
	{ 0x03060ff0, LAYOUT_RELEASE },
	{ 0x030812f0, LAYOUT_RELEASE },
	{ 0x030b07f0, LAYOUT_RELEASE },
	{ 0x030c01f0, LAYOUT_RELEASE },
	{ 0x030d00f0, LAYOUT_RELEASE },
	{ 0x030d05f0, LAYOUT_FREE_THREADED },
	{ 0x030e0af0, LAYOUT_RELEASE },
	{ 0x030f02f0, LAYOUT_RELEASE },
};

#define FUZZ_LAYOUTS (sizeof(fuzz_layouts) / sizeof(fuzz_layouts[0]))

/* A reader without memory. */
static inline struct py_reader fuzz_reader(uint8_t choice) {
	const struct fuzz_layout *layout = &fuzz_layouts[choice % FUZZ_LAYOUTS];
	const struct layout_row *row = layout_find(layout->version, layout->flavour);

	if (!row)
		abort();
	return (struct py_reader){ .layout = row->layout, .version = layout->version, .flavour = layout->flavour };
}

#endif
