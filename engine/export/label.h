/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_EXPORT_LABEL_H
#define PYSPYD_EXPORT_LABEL_H

#include "engine/base/strbuf.h"
#include "engine/profile/profile.h"

/* What frames, threads and the profile itself are called, the same in every format. All text is printable. */

/* `function (file:line)`; a part that is not known is left out; a module stands in for a missing file. */
void label_frame(struct strbuf *out, const struct profile *profile, uint32_t frame);

/* Its function, "<unknown>" where that is not known, and its file, or module, or "": as the target has them, so not
 * printable. */
const char *label_function(const struct profile *profile, uint32_t frame);
const char *label_place(const struct profile *profile, uint32_t frame);

/* Names alone, for formats that put the number beside them; printable. */
void label_thread_name(struct strbuf *out, const struct profile *profile, uint32_t thread);
void label_process_name(struct strbuf *out, const struct profile *profile, uint32_t thread);

/* `name (tid)`. */
void label_thread(struct strbuf *out, const struct profile *profile, uint32_t thread);

/* `process NAME (PID)`, of the process that the thread belongs to. */
void label_process(struct strbuf *out, const struct profile *profile, uint32_t thread);

/* "wall", "cpu", "gil", "off_cpu", "alloc_space". */
const char *label_kind(const struct profile *profile);

/* What a box stands for: `12 samples`; of time off CPU, whose weights are microseconds, `0.012 s`; of allocations,
 * whose weights are bytes, `1.5 MiB`. */
void label_weight(struct strbuf *out, const struct profile *profile, uint64_t weight);

/* `wall, 1200 samples, 100 Hz, 12 s`; `time off CPU, 11.5 s in 1200 sleeps, 12 s`;
 * `allocations, 48.4 MiB in about 201095, 12 s`. */
void label_summary(struct strbuf *out, const struct profile *profile);

/* The ns that one of these units stands for, on average. Never 0, and small enough that those of `total` samples are
 * exact in a double, which is where readers hold them, as long as `total` itself is. */
uint64_t label_sample_ns(const struct profile *profile, uint64_t total);

/* How well the sampling went, in one line. */
void label_accuracy(struct strbuf *out, const struct profile *profile);

/* Return: whether there are threads of more than one process. */
bool label_many_processes(const struct profile *profile);

#endif
