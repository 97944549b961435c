/* SPDX-License-Identifier: MIT */
/* The cold part of a function, found by the jumps that lead to it.
 *
 * .eh_frame_hdr has the start of each piece of code. The function's bytes are searched for jumps (e9 rel32, 0f 8x
 * rel32) that lead into the middle of another piece: jumps to other functions lead to their starts. Instructions are
 * not told apart, so that some bytes look like jumps; they lead anywhere, and the piece that most lead to wins, if
 * there are enough. x86-64 only. */
#include "engine/native/cold.h"

#include "engine/base/cursor.h"

#include <dwarf.h>
#include <elf.h>
#include <string.h>

#define BODY_MAX (2U << 20)
#define HEADER_MAX (64U << 20)
#define HEAD_BYTES 12 /* of .eh_frame_hdr, before its table */
#define JUMPS_MIN 8

struct piece {
	int32_t start, entry; /* relative to the section */
};

struct pieces {
	uint8_t *data; /* the section */
	uint64_t vaddr;
	const struct piece *items;
	size_t n;
};

/* Return: 0; -ENOENT none that we know how to read; -ENOMEM; errors of reading. */
static int read_pieces(struct elf_image *img, struct pieces *pieces) {
	static const uint8_t encodings[] = { 1, DW_EH_PE_pcrel | DW_EH_PE_sdata4, DW_EH_PE_udata4,
		DW_EH_PE_datarel | DW_EH_PE_sdata4 };
	size_t len;
	uint32_t n;
	int r = elf_image_section_read(img, ".eh_frame_hdr", HEADER_MAX, &pieces->data, &len, &pieces->vaddr);

	if (r)
		return r == -EFBIG ? -ENOENT : r;
	n = peek_u32(pieces->data, len, 8);
	if (len < HEAD_BYTES || memcmp(pieces->data, encodings, sizeof(encodings)) ||
		n > (len - HEAD_BYTES) / sizeof(struct piece))
		return -ENOENT;
	pieces->items = (const struct piece *)(pieces->data + HEAD_BYTES);
	pieces->n = n;
	return 0;
}

static uint64_t start_of(const struct pieces *pieces, size_t i) {
	return pieces->vaddr + (uint64_t)(int64_t)pieces->items[i].start;
}

/* The piece that an address is in; SIZE_MAX: none. */
static size_t piece_at(const struct pieces *pieces, uint64_t vaddr) {
	size_t low = 0, high = pieces->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (start_of(pieces, middle) <= vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? low - 1 : SIZE_MAX;
}

/* Return: where the jump at code[at] leads; 0: there is none. */
static uint64_t jump_at(const uint8_t *code, size_t at, size_t len, uint64_t vaddr) {
	size_t op = code[at] == 0xe9 ? 1 : code[at] == 0x0f && at + 1 < len && (code[at + 1] & 0xf0) == 0x80 ? 2 : 0;
	int32_t distance;

	if (!op || at + op + sizeof(distance) > len)
		return 0;
	memcpy(&distance, code + at + op, sizeof(distance));
	return vaddr + at + op + sizeof(distance) + (uint64_t)(int64_t)distance;
}

/* Return: the piece that most jumps of the function lead to; SIZE_MAX: none. */
static size_t most_jumped_to(
	const struct symbol_row *row, const uint8_t *code, const struct pieces *pieces, uint32_t *counts) {
	size_t best = SIZE_MAX;

	for (size_t i = 0; i < row->size; i++) {
		uint64_t to = jump_at(code, i, (size_t)row->size, row->vaddr);
		size_t piece = to && to - row->vaddr >= row->size ? piece_at(pieces, to) : SIZE_MAX;

		if (piece == SIZE_MAX || piece + 1 >= pieces->n || to == start_of(pieces, piece))
			continue;
		counts[piece]++;
		if (best == SIZE_MAX || counts[piece] > counts[best])
			best = piece;
	}
	return best != SIZE_MAX && counts[best] >= JUMPS_MIN ? best : SIZE_MAX;
}

static int find_cold(struct symbol_table *table, struct elf_image *img, const struct symbol_row *row,
	const struct pieces *pieces, const char *cold_name) {
	_free_ uint8_t *code = malloc((size_t)row->size);
	_free_ uint32_t *counts = calloc(pieces->n + 1, sizeof(*counts));
	struct elf_symbol symbol = { .name = cold_name, .local = true };
	size_t piece;

	if (!code || !counts)
		return -ENOMEM;
	if (elf_image_read_vaddr(img, row->vaddr, code, (size_t)row->size))
		return 0;
	piece = most_jumped_to(row, code, pieces, counts);
	if (piece == SIZE_MAX)
		return 0;
	symbol.vaddr = start_of(pieces, piece);
	symbol.size = start_of(pieces, piece + 1) - symbol.vaddr;
	return symbol_table_add(table, &symbol);
}

static const struct symbol_row *find_row(const struct symbol_table *table, const char *name) {
	vec_foreach (row, &table->rows)
		if (!strcmp(table->names.items + row->name, name))
			return row;
	return NULL;
}

int symbol_table_add_cold(struct symbol_table *table, struct elf_image *img, const char *name) {
	const struct symbol_row *row = find_row(table, name);
	struct pieces pieces = { 0 };
	struct symbol_row copy;
	char cold[128];
	int r;

	if (elf_image_machine(img) != EM_X86_64 ||
		(size_t)snprintf(cold, sizeof(cold), "%s.cold", name) >= sizeof(cold))
		return 0;
	if (!row || !row->size || row->size > BODY_MAX || find_row(table, cold))
		return 0;
	copy = *row; /* adding moves the rows */
	r = read_pieces(img, &pieces);
	if (!r)
		r = find_cold(table, img, &copy, &pieces, cold);
	free(pieces.data);
	return r == -ENOENT ? 0 : r;
}
