/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_VALUE_H
#define PYSPYD_VALUE_H

#include "pyspyd/stack.h"

/* What a named object of a process is at one moment, read from outside. Strings are UTF-8, as the target has them: not
 * yet fit for a terminal. */
struct pyspyd_value {
	const struct pyspyd_process *process;
	uint64_t time_real_ns;
	const char *name; /* as it was asked for: "registry:Registry._seen" */
	char *type;       /* "module.QualName"; NULL with error */
	char *value;      /* short; "***" where masked; NULL with error */
	uint64_t length;  /* items, characters, bytes; UINT64_MAX: it has none, or is not known */
	bool masked;      /* because of a name in its path */
	char *error;      /* why it could not be read, printable; NULL: it could */
};

/* One line of pyspyd.value/1, without the newline. Return: the caller's to free(); NULL when out of memory. */
char *pyspyd_value_json(const struct pyspyd_value *value);

#endif
