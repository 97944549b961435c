/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_DUMP_TASKS_H
#define PYSPYD_FINDING_DUMP_TASKS_H

#include "engine/base/strbuf.h"
#include "pyspyd/dump.h"
#include <jansson.h>

/* Event loops and tasks of a dump. */

/* As stack_json.h: NULL when out of memory. */
json_t *dump_loops_json(const struct pyspyd_dump *dump);
json_t *dump_tasks_json(const struct pyspyd_dump *dump);

/* A tree for each loop. Return: false when out of memory. */
bool dump_tasks_text(struct strbuf *sb, const struct pyspyd_dump *dump, bool colour);

#endif
