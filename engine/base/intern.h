/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_BASE_INTERN_H
#define PYSPYD_BASE_INTERN_H

#include "engine/base/vec.h"
#include <stdint.h>

/* One copy of each string, named by a small number. Id 0 is always "". Strings live as long as the table and never
 * move. */
struct intern {
	VEC(char *) strings;
	uint32_t *slots; /* ids, 0 = empty */
	size_t slots_n;
	size_t bytes; /* held by the strings */
};

int intern_init(struct intern *intern);
void intern_deinit(struct intern *intern);

/* Return: the id (0 for "", when out of memory, and for a new string beyond LIMIT_INTERN_BYTES). */
uint32_t intern_add(struct intern *intern, const char *s, size_t len);

/* Return: the string; "" for an id that was never given. */
const char *intern_str(const struct intern *intern, uint32_t id);

#endif
