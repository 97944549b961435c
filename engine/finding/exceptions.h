/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_EXCEPTIONS_H
#define PYSPYD_FINDING_EXCEPTIONS_H

#include "engine/base/strbuf.h"
#include "pyspyd/stack.h"
#include <jansson.h>

/* The exceptions of a thread, for machines and for people. */

/* An array of them. Return: a new reference; NULL when out of memory. */
json_t *exceptions_json(const struct pyspyd_exception *exceptions, size_t n);

/* Lines below those of the thread's frames. */
void exceptions_text(struct strbuf *sb, const struct pyspyd_exception *exceptions, size_t n, bool colour);

#endif
