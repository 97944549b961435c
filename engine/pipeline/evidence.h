/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_EVIDENCE_H
#define PYSPYD_PIPELINE_EVIDENCE_H

#include "engine/sample/target.h"
#include "pyspyd/finding.h"
#include "pyspyd/waits.h"

/* Native and kernel frames as evidence of findings: for threads that sleep, which are read without a stop. What they
 * cost is bounded: after so much of it in a minute, findings have Python frames alone. */

struct evidence;

/* Return: 0; -ENOMEM. */
int evidence_new(struct evidence **ret_evidence);
void evidence_free(struct evidence *evidence);

/* Puts native and kernel frames around the Python frames of the finding's threads that stand in this process, sleep,
 * and are still where the finding has seen them. Whatever fails leaves a thread as it was. Takes the target's lock. */
void evidence_add(struct evidence *evidence, struct sample_target *target, struct pyspyd_finding *finding);

/* The same for the threads of a wait graph that are of this process, whatever was spent before. Each of them says how
 * well it went. Return: 0; -ENOMEM. */
int evidence_add_to_waits(struct evidence *evidence, struct sample_target *target, struct pyspyd_waits *waits);

/* The C function that a Python thread which sleeps has called, as "PQexec of libpq.so.5"; what is told is printable.
 * Return: whether it is known. */
bool evidence_native_call(struct evidence *evidence, struct sample_target *target, pid_t tid, char *buf, size_t size);

/* Pure: of a merged stack, the C function to name: the innermost one that neither the system's nor the interpreter's
 * libraries have, else the one of the system's that was called from outside. Return: its index; n: there is none. */
size_t evidence_native_frame(const struct pyspyd_frame *frames, size_t n);

#endif
