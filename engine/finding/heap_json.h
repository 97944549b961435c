/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_HEAP_JSON_H
#define PYSPYD_FINDING_HEAP_JSON_H

#include "engine/finding/stack_json.h"
#include "pyspyd/heap.h"

/* What grew, as evidence of a finding: the rows of pyspyd.heap/1. NULL when out of memory. */
json_t *heap_json_evidence(const struct pyspyd_heap *heap);

#endif
