/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_MODULES_WORDS_H
#define PYSPYD_FINDING_MODULES_WORDS_H

#include "pyspyd/modules.h"

/* The words of pyspyd.modules/1, by the enum's value. */
extern const char *const modules_kinds[PYSPYD_MODULE_NONE + 1];
extern const char *const modules_states[PYSPYD_EXPECTED_NOT_IMPORTED + 1];

#endif
