/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DETECT_ORIGINS_WORDS_H
#define PYSPYD_DETECT_ORIGINS_WORDS_H

#include "engine/detect/words.h"

/* Where what leaks is made, as far as it was seen to be made. */

#define ORIGINS_ADVICE_MAX 512

/* Puts the places of `what` into the verdict, as evidence. */
void detect_origins(struct detect_verdict *verdict, const struct detect_input *input, enum pyspyd_handle_what what);

/* "; of 300 that were seen to be opened, 298 came from connect (app.py:33)", with `made` "opened"; nothing where the
 * verdict has no place that stands out. */
void detect_add_origins(struct strbuf *sb, const struct detect_verdict *verdict, const char *made);

/* "connect (app.py:33) " and the rest in `text`, for the verdict's advice; `otherwise` where no place stands out. */
void detect_origins_advice(
	struct detect_verdict *verdict, char text[ORIGINS_ADVICE_MAX], const char *rest, const char *otherwise);

#endif
