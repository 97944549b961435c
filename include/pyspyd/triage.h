/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_TRIAGE_H
#define PYSPYD_TRIAGE_H

#include <stdbool.h>
#include <stddef.h>

/* What a dead process most likely died of, in one paragraph. */

struct pyspyd_triage_statement {
	char *text;      /* a sentence, printable */
	const char *why; /* inferred, for this reason; static; NULL: read */
};

#define PYSPYD_TRIAGE_STATEMENTS_MAX 12

struct pyspyd_triage {
	/* A word, static: "stack-overflow", "null-pointer", "freed-memory", "unset-memory", "overrun", "overwritten",
	 * "bad-address", "read-only", "bad-jump", "corrupted-object", "heap-corruption", "stack-smashing",
	 * "buffer-overflow", "assertion", "fatal-error", "cxx-exception", "abort", "truncated-file", "bad-instruction",
	 * "bad-calculation", "forbidden-call", "limit", "trap", "sent", "unknown". */
	const char *cause;
	struct pyspyd_triage_statement statements[PYSPYD_TRIAGE_STATEMENTS_MAX];
	size_t statements_n;
};

void pyspyd_triage_free(struct pyspyd_triage *triage);

#endif
