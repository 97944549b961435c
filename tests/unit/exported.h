/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_TESTS_UNIT_EXPORTED_H
#define PYSPYD_TESTS_UNIT_EXPORTED_H

#include "engine/export/export.h"

/* Small profiles, and what becomes of them in a format. */

/* Names that a target may choose. */
#define EXPORTED_HOSTILE 13
extern const char *const exported_hostile_names[EXPORTED_HOSTILE];

/* Without frames and samples. */
struct profile *exported_new(void);
uint32_t exported_frame(struct profile *profile, const char *function, const char *file, int line);
uint32_t exported_thread(struct profile *profile, pid_t pid, pid_t tid, const char *name, const char *process);

/* main → f (3 samples in thread a, 4 in b), main → g (5 in a). */
struct profile *exported_sample(pid_t pid_b);

/* Every hostile name as function, file, module, thread and process; one sample each. */
struct profile *exported_hostile(void);

/* What the format makes of it; the caller's to free(). ret_len may be NULL. */
char *exported_text(const struct profile *p, const char *format, const struct export_options *options, size_t *ret_len);
char *exported_diff(const struct profile *p, const struct profile_count *before, size_t n, const char *format,
	const struct export_options *options);

/* Nothing that steers a terminal is in the text. */
void exported_check_printable(const char *text, size_t len);

#endif
