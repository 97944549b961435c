/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_GROWTH_TEXT_H
#define PYSPYD_FINDING_GROWTH_TEXT_H

#include "engine/base/strbuf.h"
#include <jansson.h>

/* What grew, out of a finding's evidence, for people: a line for each container, type, allocating line, mapping and
 * group of descriptors that became more, the most first; nothing where the fault is none of growth. */
void growth_text(struct strbuf *sb, const json_t *evidence);

#endif
