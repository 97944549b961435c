/* SPDX-License-Identifier: MIT */
/* A file of expected versions, and the names and versions in it against each other. */
#include "engine/base/util.h"
#include "engine/pipeline/expect.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is the same is so both ways, and to itself; but for the local part, which counts one way. */
static void compare(const struct pyspyd_expected *a, const struct pyspyd_expected *b) {
	if (expect_same_name(a->name, b->name) != expect_same_name(b->name, a->name))
		abort();
	if (!strchr(a->version, '+') && !strchr(b->version, '+') &&
		expect_same_version(a->version, b->version) != expect_same_version(b->version, a->version))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	char *text = malloc(size + 1);
	struct err err = { 0 };
	expected_vec expected = { 0 };

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (!expect_parse(text, "requirements.txt", &expected, &err)) {
		for (size_t i = 0; i < expected.n; i++) {
			const struct pyspyd_expected *item = &expected.items[i];

			if (!*item->name || !*item->version || !expect_same_name(item->name, item->name) ||
				!expect_same_version(item->version, item->version))
				abort();
			compare(item, &expected.items[i / 2]);
		}
		expect_free(expected.items, expected.n);
	} else if (!err.text[0]) {
		abort();
	}
	free(text);
	return 0;
}
