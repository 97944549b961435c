/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_H
#define PYSPYD_FINDING_H

#include "pyspyd/stack.h"

/* What was found: one fault in one program, with its evidence (SPEC.md section 2, schema pyspyd.finding/1). */

enum pyspyd_severity { PYSPYD_INFO, PYSPYD_WARNING, PYSPYD_CRITICAL };
enum pyspyd_finding_state { PYSPYD_OPEN, PYSPYD_UPDATE, PYSPYD_RESOLVED };

struct json_t; /* jansson */

struct pyspyd_finding_thread {
	struct pyspyd_thread thread; /* stack and all */
	char *role;                  /* "spinning", "waiting", … */
	double cpu_percent;          /* of one core; negative: not measured */
	struct json_t *holds;        /* array: what others wait for and it has; NULL: known of the GIL alone */
	struct json_t *waits_for;    /* object: what it waits for, and who has it; NULL as above */
};

struct pyspyd_finding {
	char id[27];          /* ULID: sorts by time */
	char fingerprint[33]; /* hex; the same for the same fault in the same program: no pid, address or time in it */
	char *kind;           /* "spiking-thread" */
	char *pattern;        /* "Spiking Thread" */
	enum pyspyd_severity severity;
	enum pyspyd_finding_state state;
	uint64_t time_real_ns;  /* of this event */
	uint64_t since_real_ns; /* the fault began */
	uint64_t duration_ns;
	char *host;
	struct pyspyd_process process;
	struct pyspyd_finding_thread *threads;
	size_t threads_n;
	struct json_t *evidence; /* an object, by kind; owned */
	char *summary;           /* one line */
	char *advice;
};

/* A finding that was open when the watch that raised it ended: what a later one has to know to go on with it. */
struct pyspyd_left_open {
	const char *id, *fingerprint, *kind;
	pid_t pid; /* of the process, … */
	uint64_t start_real_ns;
	uint64_t since_real_ns;
	const pid_t *tids; /* … and of its threads that have a part in it */
	size_t tids_n;
};

void pyspyd_finding_free(struct pyspyd_finding *finding);

/* One JSON object in one line, without the newline. Return: the string, the caller's to free(); NULL when out of
 * memory. */
char *pyspyd_finding_json(const struct pyspyd_finding *finding);

/* A few lines for people: summary, hottest stack, advice. Printable. `colour`: with SGR sequences. The caller's to
 * free(). */
char *pyspyd_finding_text(const struct pyspyd_finding *finding, bool colour);

/* The same of a finding's JSON, of whatever origin. The caller's to free(); NULL: no JSON object, or out of memory. */
char *pyspyd_finding_text_of_json(const char *json, bool colour);

#endif
