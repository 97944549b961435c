/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_PRIVILEGES_H
#define PYSPYD_PIPELINE_PRIVILEGES_H

#include "engine/base/strbuf.h"
#include "pyspyd/doctor.h"
#include <stdint.h>

/* What a process may do or is kept from, and what that is good for: a row each, for whoever asks. */

enum { OF_CALLER = 1, OF_SERVICE = 2 };

struct privilege_row {
	const char *name;               /* as in the service's status */
	unsigned whose;                 /* OF_CALLER, OF_SERVICE: whom it is looked for at */
	const char *capability;         /* "SYS_PTRACE"; NULL: it is none */
	unsigned bit;                   /* of the capability */
	bool (*probe)(void);            /* at this process; where it is no capability */
	const char *held, *missing;     /* what was found */
	const char *effect;             /* what is missing without it */
	const char *remedy;             /* NULL: what gives the capability back, by who is asked */
	enum pyspyd_check_result worst; /* without it, for the service; for a caller it is never worse than limited */
};

extern const struct privilege_row privilege_rows[];
extern const size_t privilege_rows_n;

/* Effective capabilities of this process, a bit each; 0 where they cannot be read. */
uint64_t privilege_capabilities(void);

/* Whether this process has it. */
bool privilege_held(const struct privilege_row *row, uint64_t capabilities);

/* What gives it back: to this process, or to the service (whose: one of the two). */
void privilege_add_remedy(const struct privilege_row *row, unsigned whose, struct strbuf *sb);

#endif
