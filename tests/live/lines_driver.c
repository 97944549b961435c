/* SPDX-License-Identifier: MIT */
/* Compares lines_lookup with what an interpreter says of itself. Reads the records of lines_oracle.py from the standard
 * input; every instruction of every record is compared. Prints the counts; fails at any difference. */
#include "engine/cpython/lines.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define SHOWN_MAX 10

struct head {
	uint32_t version;
	int32_t first_line;
	uint32_t table_len;
	uint32_t instructions;
};

struct counts {
	uint64_t codes, offsets, without_line, wrong;
	bool ended; /* the interpreter said all that it had to say */
};

static void compare(const struct head *head, const uint8_t *table, const int32_t *lines, struct counts *counts) {
	enum lines_format format = lines_format_of(head->version);

	for (uint32_t i = 0; i < head->instructions; i++) {
		int line = lines_lookup(format, table, head->table_len, head->first_line, (int64_t)i * 2);

		counts->offsets++;
		counts->without_line += !lines[i];
		if (line == lines[i])
			continue;
		if (counts->wrong++ < SHOWN_MAX)
			printf("code at line %d, offset %u: line %d instead of %d\n", head->first_line, i * 2, line,
				lines[i]);
	}
	counts->codes++;
}

static bool record(FILE *in, struct counts *counts) {
	struct head head;
	uint8_t *table;
	int32_t *lines;
	bool whole;

	if (fread(&head, sizeof(head), 1, in) != 1)
		return false;
	if (!head.version) {
		counts->ended = true;
		return false;
	}
	table = malloc(head.table_len + 1);
	lines = malloc(((size_t)head.instructions + 1) * sizeof(*lines));
	whole = table && lines && fread(table, 1, head.table_len, in) == head.table_len &&
		fread(lines, sizeof(*lines), head.instructions, in) == head.instructions;
	if (whole)
		compare(&head, table, lines, counts);
	else
		counts->wrong++;
	free(table);
	free(lines);
	return whole;
}

int main(void) {
	struct counts counts = { 0 };

	while (record(stdin, &counts))
		;
	printf("%" PRIu64 " code objects, %" PRIu64 " offsets (%" PRIu64 " without a line), %" PRIu64 " wrong\n",
		counts.codes, counts.offsets, counts.without_line, counts.wrong);
	if (!counts.ended)
		printf("the interpreter ended early\n");
	return counts.wrong || !counts.offsets || !counts.ended;
}
