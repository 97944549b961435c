/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_FINGERPRINT_H
#define PYSPYD_FINDING_FINGERPRINT_H

#include "engine/base/strbuf.h"
#include "engine/detect/detect.h"

#define FINGERPRINT_SIZE 33
#define ULID_SIZE 27

/* What a program is called wherever it runs: executable, script or module, unit; without version, path, number. One
 * part a line; for the fingerprint, and readable in a test. */
void fingerprint_program(struct strbuf *sb, const struct pyspyd_process *process);

/* Where the fault is: the innermost frames that (nearly) all of the stacks share, those of the application before those
 * of the standard library, with function and file but no line. One frame a line; "" where no stack is known. */
void fingerprint_site(struct strbuf *sb, const struct detect_stack *stacks, size_t n);

/* Foreign text without what changes from run to run: runs of digits, and hexadecimal numbers with 0x, become '#'. */
void fingerprint_text(struct strbuf *sb, const char *s);

/* 128 bits over kind, program and site (what fingerprint_site or chain_site wrote), as hex. Return: 0, -ENOMEM. */
int fingerprint(
	const char *kind, const struct pyspyd_process *process, const struct strbuf *site, char out[FINGERPRINT_SIZE]);

/* A new ULID: 48 bits of milliseconds, 80 random ones. Return: 0; negative errno (no random bytes). */
int ulid_new(uint64_t real_ns, char out[ULID_SIZE]);

#endif
