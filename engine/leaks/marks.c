/* SPDX-License-Identifier: MIT */
/* Bitmaps of 64 KiB of memory each, made where the first mark is set. A target may have addresses far apart from each
 * other on purpose: beyond the first bitmaps there are no more than marks to fill them. */
#include "engine/leaks/marks.h"

#define PIECE_BYTES (UINT64_C(64) << 10)
#define PIECES_MAX (UINT64_C(1) << 20)  /* 64 GiB of memory, 1 GiB of marks */
#define PIECES_FREE (UINT64_C(1) << 17) /* however few marks they have: 128 MiB */
#define MARKS_EACH 2                    /* of the others */
#define GRAIN 16
#define MARK_BITS 2
#define IN_BYTE (8 / MARK_BITS)

void marks_deinit(struct marks *marks) {
	vec_foreach (piece, &marks->pieces)
		free(*piece);
	vec_free(&marks->pieces);
	map_deinit(&marks->index);
	*marks = (struct marks){ 0 };
}

static uint8_t *find_piece(const struct marks *marks, uint64_t piece) {
	uint64_t at;

	return map_get(&marks->index, piece, &at) ? marks->pieces.items[at] : NULL;
}

static size_t grain_of(raddr addr) {
	return addr % PIECE_BYTES / GRAIN;
}

static unsigned shift_of(raddr addr) {
	return grain_of(addr) % IN_BYTE * MARK_BITS;
}

unsigned marks_get(const struct marks *marks, raddr addr) {
	const uint8_t *bits = find_piece(marks, addr / PIECE_BYTES);

	return bits ? bits[grain_of(addr) / IN_BYTE] >> shift_of(addr) & (MARK_ASKED | MARK_TAKEN) : 0;
}

static int add_piece(struct marks *marks, uint64_t piece) {
	uint8_t *bits;
	int r;

	if (marks->pieces.n >= PIECES_MAX ||
		(marks->pieces.n >= PIECES_FREE && marks->n < marks->pieces.n * MARKS_EACH))
		return -ENOSPC;
	bits = calloc(PIECE_BYTES / GRAIN / IN_BYTE, 1);
	r = bits ? vec_push(&marks->pieces, bits) : -ENOMEM;
	if (r) {
		free(bits);
		return r;
	}
	return map_put(&marks->index, piece, marks->pieces.n - 1);
}

int marks_set(struct marks *marks, raddr addr, unsigned mark) {
	uint8_t *bits = find_piece(marks, addr / PIECE_BYTES);

	if (!bits) {
		int r = add_piece(marks, addr / PIECE_BYTES);

		if (r)
			return r;
		bits = find_piece(marks, addr / PIECE_BYTES);
	}
	marks->n += !marks_get(marks, addr);
	bits[grain_of(addr) / IN_BYTE] |= (uint8_t)(mark << shift_of(addr));
	return 0;
}
