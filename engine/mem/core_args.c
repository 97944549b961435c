/* SPDX-License-Identifier: MIT */
/* The command line, out of the stack that the kernel made for the program.
 *
 * The note that has it is cut at 80 bytes, and gcore often leaves it out. At the beginning of a process its stack
 * holds, upwards: the number of arguments, pointers to them, a zero, pointers to the environment, a zero, the auxiliary
 * vector, and further up the sixteen random bytes, then the arguments themselves, one behind the other, then the
 * environment (Linux fs/binfmt_elf.c, create_elf_tables). The auxiliary vector is known from its note, and the random
 * bytes from it, so the rest can be found. */
#include "engine/mem/core_internal.h"

#include <elf.h>
#include <string.h>

#define VECTOR_WORDS 4           /* of the auxiliary vector, by which it is found */
#define ABOVE_VECTOR_MAX 2048    /* its bytes, and what stands between it and the random ones */
#define POINTERS_MAX (16U << 10) /* of the arguments and the environment */

/* Return: the address of the auxiliary vector in the process; 0: not found. */
static raddr find_vector(const struct core *core, struct mem *mem) {
	uint64_t words[ABOVE_VECTOR_MAX / 8];
	uint64_t random;

	if (core->auxv.n < VECTOR_WORDS || !core_auxv(core, AT_RANDOM, &random))
		return 0;
	random &= ~7ULL;
	if (random < sizeof(words) || mem_read(mem, random - sizeof(words), words, sizeof(words)))
		return 0;
	for (size_t i = 0; i + VECTOR_WORDS <= ARRAY_SIZE(words); i++)
		if (!memcmp(&words[i], core->auxv.items, VECTOR_WORDS * sizeof(*words)))
			return random - sizeof(words) + i * sizeof(*words);
	return 0;
}

/* Goes down from the end of a list of pointers, its zero, to its first one. Return: how many there are; -1: no list. */
static int64_t list_below(struct mem *mem, raddr zero, raddr *ret_first) {
	for (uint32_t n = 0; n < POINTERS_MAX; n++) {
		uint64_t word;

		if (mem_read_u64(mem, zero - (n + 1) * sizeof(word), &word))
			return -1;
		/* Below the environment is the zero of the arguments, below those is their number. */
		if (word == 0 || word == n) {
			*ret_first = zero - n * sizeof(word);
			return n;
		}
	}
	return -1;
}

size_t core_cmdline(const struct core *core, struct mem *mem, char *buf, size_t size) {
	raddr vector = find_vector(core, mem), environment, arguments;
	uint64_t first, end, len;

	if (vector < POINTERS_MAX * sizeof(first) * 2 || list_below(mem, vector - sizeof(first), &environment) < 1 ||
		list_below(mem, environment - sizeof(first), &arguments) < 1 || mem_read_u64(mem, arguments, &first) ||
		mem_read_u64(mem, environment, &end) || end <= first)
		return 0;
	len = min_of(end - first, (uint64_t)size - 1);
	if (mem_read(mem, first, buf, len))
		return 0;
	buf[len] = '\0';
	return buf[len - 1] ? len + 1 : len;
}
