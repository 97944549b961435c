/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_BASE_MAP_H
#define PYSPYD_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A hash map from 64-bit keys to 64-bit values (an index, or a pointer cast to uintptr_t). Every key but UINT64_MAX. */
struct map {
	uint64_t *keys;
	uint64_t *values;
	size_t cap; /* a power of two, or 0 */
	size_t n;
};

void map_deinit(struct map *map);

/* Return: true and *ret_value set where the key is there. */
bool map_get(const struct map *map, uint64_t key, uint64_t *ret_value);

/* Sets or replaces. Return: 0 or -ENOMEM. */
int map_put(struct map *map, uint64_t key, uint64_t value);

void map_clear(struct map *map);

static inline uint64_t hash_mix(uint64_t x) {
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	return x ^ x >> 32;
}

static inline uint64_t hash_bytes(const void *data, size_t n, uint64_t seed) {
	const uint8_t *p = data;
	uint64_t h = seed ^ (n * 0x9e3779b97f4a7c15ULL);

	for (; n >= 8; n -= 8, p += 8) {
		uint64_t word;

		memcpy(&word, p, 8);
		h = hash_mix(h ^ word);
	}
	for (; n; n--, p++)
		h = hash_mix(h ^ *p);
	return hash_mix(h);
}

#endif
