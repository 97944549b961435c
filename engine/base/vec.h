/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_BASE_VEC_H
#define PYSPYD_BASE_VEC_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

/* A growing array: `struct { T *items; size_t n; size_t cap; }` in the owner's struct. */
#define VEC(T) \
	struct { \
		T *items; \
		size_t n; \
		size_t cap; \
	}

static inline int vec_grow(void **items, size_t *cap, size_t need, size_t item_size) {
	size_t want = *cap ? *cap : 8;
	void *grown;

	if (need <= *cap)
		return 0;
	if (need > SIZE_MAX / 2 / item_size)
		return -ENOMEM;
	while (want < need)
		want *= 2;
	grown = realloc(*items, want * item_size);
	if (!grown)
		return -ENOMEM;
	*items = grown;
	*cap = want;
	return 0;
}

/* Makes room for `need` items in all. Return: 0 or -ENOMEM. */
#define vec_reserve(v, need) vec_grow((void **)&(v)->items, &(v)->cap, (need), sizeof(*(v)->items))

/* Appends one item. Return: 0 or -ENOMEM. */
#define vec_push(v, ...) \
	({ \
		int _r = vec_reserve((v), (v)->n + 1); \
		if (!_r) \
			(v)->items[(v)->n++] = (__VA_ARGS__); \
		_r; \
	})

#define vec_free(v) \
	do { \
		free((v)->items); \
		(v)->items = NULL; \
		(v)->n = (v)->cap = 0; \
	} while (0)

/* Adds nothing to the NULL of an empty vector. */
#define vec_foreach(item, v) \
	for (__typeof__((v)->items + 0) item = (v)->items; (v)->n && item < (v)->items + (v)->n; item++)

#endif
