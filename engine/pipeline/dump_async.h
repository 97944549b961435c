/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_DUMP_ASYNC_H
#define PYSPYD_PIPELINE_DUMP_ASYNC_H

#include "engine/sample/target.h"
#include "pyspyd/dump.h"

/* Adds the event loops and the pending tasks to a dump. Return: 0; MEM_E_GONE; negative errno. */
int dump_async(struct sample_target *target, struct py_stack_scratch *scratch, struct pyspyd_dump *dump);

#endif
