/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_TRIAGE_H
#define PYSPYD_PIPELINE_TRIAGE_H

#include "engine/pipeline/native_look.h"
#include "engine/pipeline/subject.h"
#include "pyspyd/dump.h"

/* Says what the process in a core died of, in dump->process.core->triage; nothing where it did not die. The dump has
 * its threads, the one that died first. `native` may be NULL: then the frames of that thread are looked at here.
 * Return: 0; -ENOMEM; what cannot be read is not told. */
int triage_dump(struct subject *subject, struct native_look *native, struct pyspyd_dump *dump);

#endif
