/* SPDX-License-Identifier: MIT */
/* String interning: an open-addressing table of ids over an array of strings. */
#include "engine/base/intern.h"

#include "engine/base/limits.h"
#include "engine/base/map.h"
#include <stdlib.h>
#include <string.h>

int intern_init(struct intern *intern) {
	*intern = (struct intern){ .slots_n = 256 };
	intern->slots = calloc(intern->slots_n, sizeof(*intern->slots));
	if (!intern->slots)
		return -ENOMEM;
	return vec_push(&intern->strings, NULL);
}

void intern_deinit(struct intern *intern) {
	vec_foreach (s, &intern->strings)
		free(*s);
	vec_free(&intern->strings);
	free(intern->slots);
	*intern = (struct intern){ 0 };
}

const char *intern_str(const struct intern *intern, uint32_t id) {
	return id && id < intern->strings.n ? intern->strings.items[id] : "";
}

static size_t find(const struct intern *intern, const char *s, size_t len) {
	size_t mask = intern->slots_n - 1;
	size_t i = hash_bytes(s, len, 1) & mask;

	for (; intern->slots[i]; i = (i + 1) & mask) {
		const char *there = intern_str(intern, intern->slots[i]);

		if (!strncmp(there, s, len) && !there[len])
			break;
	}
	return i;
}

static int grow(struct intern *intern) {
	uint32_t *old = intern->slots;
	size_t old_n = intern->slots_n;
	uint32_t *slots = calloc(old_n * 2, sizeof(*slots));

	if (!slots)
		return -ENOMEM;
	intern->slots = slots;
	intern->slots_n = old_n * 2;
	for (size_t i = 0; i < old_n; i++) {
		const char *s = intern_str(intern, old[i]);

		if (old[i])
			slots[find(intern, s, strlen(s))] = old[i];
	}
	free(old);
	return 0;
}

uint32_t intern_add(struct intern *intern, const char *s, size_t len) {
	size_t slot;
	char *copy;

	len = strnlen(s, len);
	if (!len || (2 * (intern->strings.n + 1) > intern->slots_n && grow(intern)))
		return 0;
	slot = find(intern, s, len);
	if (intern->slots[slot])
		return intern->slots[slot];
	if (intern->bytes > LIMIT_INTERN_BYTES)
		return 0;
	copy = strndup(s, len);
	if (!copy || vec_push(&intern->strings, copy)) {
		free(copy);
		return 0;
	}
	intern->bytes += len + 1;
	intern->slots[slot] = (uint32_t)intern->strings.n - 1;
	return intern->slots[slot];
}
