/* SPDX-License-Identifier: MIT */
/* What stands beside installed modules: METADATA, RECORD or top_level.txt, by the first byte. */
#include "engine/base/util.h"
#include "engine/pipeline/distributions.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_metadata(const char *text, size_t len) {
	struct distribution found = { 0 };

	if (distribution_parse_metadata(text, len, &found)) {
		if (found.name || found.version)
			abort();
		return;
	}
	if (!*found.name || !*found.version || strlen(found.name) >= len || strlen(found.version) >= len)
		abort();
	free(found.name);
	free(found.version);
}

static void read_lists(char kind, const char *text, size_t len) {
	static const char *const wanted[] = { "a.py", "a/__init__.py", "odd, name.py" };
	struct distribution_root root;
	int r = 0;

	distribution_root_init(&root, strdup("/x"));
	for (size_t i = 0; !r && i < ARRAY_SIZE(wanted); i++)
		r = distribution_root_want(&root, wanted[i]);
	if (!r && kind == 'R')
		r = distribution_scan_record(text, len, &root.owners, 0);
	else if (!r)
		r = distribution_scan_tops(text, len, &root.tops, 0);
	/* It has no distributions: nobody may be found. */
	for (size_t i = 0; !r && i < ARRAY_SIZE(wanted); i++)
		if (distribution_of_file(&root, wanted[i]) || distribution_of_name(&root, wanted[i], 1))
			abort();
	distribution_root_deinit(&root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	/* A copy of its own: what is read behind its end is noticed. */
	char *text = size ? malloc(size) : NULL;

	if (!text)
		return 0;
	memcpy(text, data + 1, size - 1);
	if (data[0] == 'M')
		read_metadata(text, size - 1);
	else
		read_lists((char)data[0], text, size - 1);
	free(text);
	return 0;
}
