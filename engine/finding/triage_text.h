/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_TRIAGE_TEXT_H
#define PYSPYD_FINDING_TRIAGE_TEXT_H

#include "engine/base/strbuf.h"
#include "pyspyd/triage.h"
#include <jansson.h>

/* "Triage: null-pointer. …", a paragraph with its newline. Nothing for NULL. */
void triage_text(struct strbuf *sb, const struct pyspyd_triage *triage, bool colour);

/* { cause, statements [ { text, certainty, why } ] }; null for NULL. */
json_t *triage_json(const struct pyspyd_triage *triage);

#endif
