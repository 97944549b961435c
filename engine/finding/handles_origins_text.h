/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_HANDLES_ORIGINS_TEXT_H
#define PYSPYD_FINDING_HANDLES_ORIGINS_TEXT_H

#include "engine/base/strbuf.h"
#include "pyspyd/handles.h"

/* Appends where things were made, with a heading. */
void handles_origins_text(struct strbuf *sb, const struct pyspyd_origins *origins, bool colour);

#endif
