/* SPDX-License-Identifier: MIT */
/* Functions by address.
 *
 * Several names stand for one address: of them a global function goes before a weak one, those before local ones and
 * those before labels of assembler; then one with fewer underscores at its start (read, not __read). A label inside of
 * a function is dropped, so that the function's name is shown. */
#include "engine/native/symbol_table.h"

#include <lzma.h>
#include <string.h>
#include <sys/mman.h>

#define DEBUGDATA_MAX (32U << 20)
#define UNPACKED_MAX (128U << 20)
#define LZMA_MEMORY_MAX (128U << 20)
#define BACK_MAX 16 /* functions looked back at for one that another lies in */

static uint32_t rank_of(const struct elf_symbol *symbol) {
	uint32_t underscores = (uint32_t)strspn(symbol->name, "_");

	return (symbol->label ? 0x4000 : symbol->local ? 0x2000 : 0) + min_of(underscores, 0xfffU) * 2 + symbol->weak;
}

int symbol_table_add(struct symbol_table *table, const struct elf_symbol *symbol) {
	size_t len = strlen(symbol->name) + 1;
	struct symbol_row row = {
		.vaddr = symbol->vaddr, .size = symbol->size, .limit = symbol->limit, .name = (uint32_t)table->names.n
	};
	int r;

	if (symbol->vaddr < table->start || symbol->vaddr >= table->end || table->rows.n == SYMBOL_ROWS_MAX ||
		len > SYMBOL_NAMES_MAX - table->names.n)
		return 0;
	row.rank = rank_of(symbol);
	r = vec_reserve(&table->names, table->names.n + len);
	if (r)
		return r;
	memcpy(table->names.items + table->names.n, symbol->name, len);
	table->names.n += len;
	return vec_push(&table->rows, row);
}

static int add_symbol(const struct elf_symbol *symbol, void *userdata) {
	return symbol_table_add(userdata, symbol);
}

int symbol_table_add_image(struct symbol_table *table, struct elf_image *img) {
	int r = elf_image_each_symbol(img, false, add_symbol, table);

	return r ? r : elf_image_each_symbol(img, true, add_symbol, table);
}

/* Return: 0 and what is to be freed; -ENOMEM; -EINVAL broken, or too large. */
static int unpack(const uint8_t *packed, size_t len, uint8_t **ret_data, size_t *ret_len) {
	VEC(uint8_t) data = { 0 };
	lzma_stream stream = LZMA_STREAM_INIT;
	lzma_ret result = lzma_stream_decoder(&stream, LZMA_MEMORY_MAX, 0);
	int r = result == LZMA_OK ? 0 : -ENOMEM;

	stream.next_in = packed;
	stream.avail_in = len;
	while (!r && result == LZMA_OK) {
		r = data.n < UNPACKED_MAX ? vec_reserve(&data, data.n + len) : -EINVAL;
		if (r)
			break;
		stream.next_out = data.items + data.n;
		stream.avail_out = data.cap - data.n;
		result = lzma_code(&stream, LZMA_FINISH);
		data.n = (size_t)(stream.next_out - data.items);
	}
	lzma_end(&stream);
	if (!r && result != LZMA_STREAM_END)
		r = -EINVAL;
	if (r) {
		vec_free(&data);
		return r;
	}
	*ret_data = data.items;
	*ret_len = data.n;
	return 0;
}

static int add_bytes(struct symbol_table *table, const uint8_t *data, size_t len) {
	_close_ int fd = memfd_create("debugdata", MFD_CLOEXEC);
	struct elf_image *img;
	int r;

	if (fd < 0 || pwrite(fd, data, len, 0) != (ssize_t)len || elf_image_open(fd, &img))
		return 0;
	r = symbol_table_add_image(table, img);
	elf_image_free(img);
	return r;
}

int symbol_table_add_debugdata(struct symbol_table *table, struct elf_image *img) {
	_free_ uint8_t *packed = NULL, *data = NULL;
	size_t packed_len, len;
	uint64_t ignored;
	int r = elf_image_section_read(img, ".gnu_debugdata", DEBUGDATA_MAX, &packed, &packed_len, &ignored);

	if (!r && packed_len)
		r = unpack(packed, packed_len, &data, &len);
	if (!r && data)
		r = add_bytes(table, data, len);
	return r == -ENOMEM ? r : 0;
}

static int by_address(const void *a, const void *b) {
	const struct symbol_row *x = a, *y = b;

	if (x->vaddr != y->vaddr)
		return x->vaddr < y->vaddr ? -1 : 1;
	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	return x->name < y->name ? -1 : x->name > y->name;
}

void symbol_table_sort(struct symbol_table *table) {
	struct symbol_row *rows = table->rows.items;
	uint64_t covered = 0; /* end of the functions before */
	size_t kept = 0;

	if (!table->rows.n)
		return;
	qsort(rows, table->rows.n, sizeof(*rows), by_address);
	for (size_t i = 0; i < table->rows.n; i++) {
		if (kept && rows[kept - 1].vaddr == rows[i].vaddr) {
			rows[kept - 1].size = max_of(rows[kept - 1].size, rows[i].size);
			continue;
		}
		if (kept)
			covered = max_of(covered, rows[kept - 1].vaddr + rows[kept - 1].size);
		if (!rows[i].size && rows[i].vaddr < covered)
			continue;
		rows[kept++] = rows[i];
	}
	table->rows.n = kept;
}

const char *symbol_table_find(const struct symbol_table *table, uint64_t vaddr, uint64_t *ret_start) {
	const struct symbol_row *rows = table->rows.items;
	size_t low = 0, high = table->rows.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (rows[middle].vaddr <= vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	for (size_t i = low; i > 0 && low - i < BACK_MAX; i--) {
		const struct symbol_row *row = &rows[i - 1];

		if (row->size ? vaddr - row->vaddr >= row->size : i != low || vaddr >= row->limit)
			continue;
		*ret_start = row->vaddr;
		return table->names.items + row->name;
	}
	return NULL;
}

void symbol_table_deinit(struct symbol_table *table) {
	vec_free(&table->rows);
	vec_free(&table->names);
}
