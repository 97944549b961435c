/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_STACK_JSON_H
#define PYSPYD_FINDING_STACK_JSON_H

#include "pyspyd/dump.h"
#include <jansson.h>

/* The bones that all schemas share (SPEC.md section 2): processes, threads, frames. Keys stand in the order in which
 * they are set. What is not known is null, never left out. Each function returns a new reference; NULL when out of
 * memory. */

/* Foreign text: broken UTF-8 becomes U+FFFD. null for NULL. */
json_t *json_text(const char *s);
json_t *json_real_or_null(double value); /* rounded to thousandths; null where negative or not finite */
json_t *json_count(uint64_t value);      /* null for UINT64_MAX */
json_t *json_address(uint64_t value);    /* "0x7f…"; null for 0 */
json_t *json_time(uint64_t real_ns);     /* RFC 3339; null for 0 */

/* Sets object[key], taking over the value. A NULL value or object makes the result false, so that a row of these is
 * checked once. Return: ok and the set worked. */
bool json_put(bool ok, json_t *object, const char *key, json_t *value);

/* As json_decref, or the object itself where `ok`: the end of a row of json_put. */
json_t *json_done(bool ok, json_t *object);

json_t *stack_json_frame(const struct pyspyd_frame *frame);
json_t *stack_json_frames(const struct pyspyd_frame *frames, size_t n);
json_t *stack_json_process(const struct pyspyd_process *process);

/* Of a process that is read out of a core file: the "core" beside its "process". */
json_t *stack_json_core(const struct pyspyd_core *core);
json_t *stack_json_accuracy(const struct pyspyd_accuracy *accuracy);

/* How well native frames went: { complete, why, agrees, stopped_us }. */
json_t *stack_json_native(const char *native_end, bool disagree, uint64_t stopped_ns);

/* `role` may be NULL; `cpu_percent` negative where it was not measured. */
json_t *stack_json_thread(const struct pyspyd_thread *thread, const char *role, double cpu_percent);

/* The object in one line, without anything that could steer a terminal or break a line: what jansson leaves raw (DEL,
 * C1, separators and bidirectional controls) is written as \uXXXX. Takes over the object (NULL: out of memory).
 * Return: the caller's to free(); NULL when out of memory. */
char *json_line(json_t *object);

#endif
