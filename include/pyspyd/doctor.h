/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DOCTOR_H
#define PYSPYD_DOCTOR_H

#include "pyspyd/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* What works here and what does not. */

enum pyspyd_check_result { PYSPYD_CHECK_OK, PYSPYD_CHECK_LIMITED, PYSPYD_CHECK_FAILED };

struct pyspyd_check {
	char *name; /* "priority" */
	enum pyspyd_check_result result;
	char *found;  /* what was found, one line */
	char *effect; /* which feature that turns off or weakens; "" where none */
	char *remedy; /* the command that mends it; "" where nothing is to mend */
};

/* Checks the host, and where pid is not 0 whether that process can be read. Return: 0; negative errno. The checks are
 * the caller's. */
int pyspyd_doctor(pid_t pid, struct pyspyd_check **ret_checks, size_t *ret_n, struct err *err);
void pyspyd_doctor_free(struct pyspyd_check *checks, size_t n);

struct pyspyd_privilege {
	const char *name;   /* "cap_sys_ptrace", "seccomp" */
	const char *effect; /* what is missing without it */
	bool held;
	bool capability;
};

#define PYSPYD_PRIVILEGES_MAX 32

/* What the service needs and what keeps it in bounds, as it is for the calling process now. Names and effects are
 * constants. Return: how many; at most max. */
size_t pyspyd_service_privileges(struct pyspyd_privilege *ret, size_t max);

/* What the service says of itself: its answer to {"request": "status"} (pyspyd/remote.h), whose "privileges" holds
 * {name: held} of the above. Pure. Return: 0; -EPROTO: it is no such answer; negative errno. The checks are the
 * caller's. */
int pyspyd_doctor_service(const char *answer, struct pyspyd_check **ret_checks, size_t *ret_n, struct err *err);

#endif
