/* SPDX-License-Identifier: MIT */
/* The kernel's symbols, of which functions are kept, sorted by address.
 *
 *	ffffffff81000000 T _stext
 *	ffffffff8101f2a0 t __do_sys_read
 *	ffffffffc0a01000 t bpf_prog_6deef7357e7b4530	[bpf]
 *
 * Where the kernel hides addresses they are all 0. A symbol's end is not told: an address belongs to the last one
 * before it, unless that is too far away. Of several at one address the first one is taken. */
#include "engine/proc/kallsyms.h"

#include "engine/base/util.h"
#include "engine/base/vec.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SYMBOLS_MAX (1U << 20)
#define NAMES_MAX (64U << 20) /* bytes */
#define NAME_MAX_CHARS 256
#define FUNCTION_MAX (256U << 10) /* bytes of one function */

struct symbol {
	uint64_t address;
	uint32_t name; /* in names */
};

struct kallsyms {
	VEC(struct symbol) symbols;
	VEC(char) names;
};

static int by_address(const void *left, const void *right) {
	const struct symbol *a = left, *b = right;

	if (a->address != b->address)
		return a->address < b->address ? -1 : 1;
	return a->name < b->name ? -1 : a->name > b->name;
}

static int add_name(struct kallsyms *all, const char *name, size_t len) {
	size_t at = all->names.n;

	if (at + len + 1 > NAMES_MAX)
		return -E2BIG;
	if (vec_reserve(&all->names, at + len + 1))
		return -ENOMEM;
	memcpy(all->names.items + at, name, len);
	all->names.items[at + len] = '\0';
	all->names.n = at + len + 1;
	return 0;
}

/* Lines that are none are left out. Return: 0; -ENOMEM, -E2BIG. */
static int add_line(struct kallsyms *all, const char *line, size_t len) {
	struct symbol symbol = { .name = (uint32_t)all->names.n };
	size_t i = 0, end;
	int r;

	for (; i < len && i < 16; i++) {
		const char *digits = "0123456789abcdef", *digit = memchr(digits, line[i], 16);

		if (!digit)
			break;
		symbol.address = symbol.address << 4 | (uint64_t)(digit - digits);
	}
	if (!symbol.address || i + 3 >= len || line[i] != ' ' || line[i + 2] != ' ' || !memchr("tTwW", line[i + 1], 4))
		return 0;
	for (end = i += 3; end < len && line[end] > ' ';)
		end++;
	if (end == i || end - i > NAME_MAX_CHARS)
		return 0;
	r = all->symbols.n < SYMBOLS_MAX ? add_name(all, line + i, end - i) : -E2BIG;
	return r ? r : vec_push(&all->symbols, symbol);
}

/* Return: 0; -EACCES: there is not one address. */
static int finish(struct kallsyms *all) {
	if (!all->symbols.n)
		return -EACCES;
	qsort(all->symbols.items, all->symbols.n, sizeof(*all->symbols.items), by_address);
	return 0;
}

static int hand_over(struct kallsyms *all, int r, struct kallsyms **ret_symbols) {
	if (!r || r == -E2BIG) /* what is known of so many is as good as of fewer */
		r = finish(all);
	if (r)
		kallsyms_free(all);
	else
		*ret_symbols = all;
	return r;
}

int kallsyms_parse(const char *text, size_t len, struct kallsyms **ret_symbols) {
	struct kallsyms *all = calloc(1, sizeof(*all));
	const char *end = text + len;
	int r = all ? 0 : -ENOMEM;

	while (!r && text < end) {
		const char *stop = memchr(text, '\n', (size_t)(end - text));

		stop = stop ? stop : end;
		r = add_line(all, text, (size_t)(stop - text));
		text = stop + 1;
	}
	return all ? hand_over(all, r, ret_symbols) : r;
}

int kallsyms_read(struct kallsyms **ret_symbols) {
	FILE *file = fopen("/proc/kallsyms", "re");
	struct kallsyms *all = calloc(1, sizeof(*all));
	char line[2 * NAME_MAX_CHARS];
	int r = !file ? -errno : !all ? -ENOMEM : 0;

	while (!r && fgets(line, sizeof(line), file))
		r = add_line(all, line, strlen(line));
	if (file)
		fclose(file);
	return all ? hand_over(all, r, ret_symbols) : r;
}

void kallsyms_free(struct kallsyms *symbols) {
	if (!symbols)
		return;
	vec_free(&symbols->symbols);
	vec_free(&symbols->names);
	free(symbols);
}

const char *kallsyms_name(const struct kallsyms *symbols, uint64_t address) {
	size_t low = 0, high = symbols->symbols.n;
	const struct symbol *items = symbols->symbols.items;

	while (low < high) { /* the first one behind the address */
		size_t middle = low + (high - low) / 2;

		if (items[middle].address <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low || address - items[low - 1].address > FUNCTION_MAX)
		return NULL;
	for (low--; low && items[low - 1].address == items[low].address;)
		low--;
	return symbols->names.items + items[low].name;
}
