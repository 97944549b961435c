/* SPDX-License-Identifier: MIT */
/* What things are called in exported profiles:
 *
 *     process worker (4711)
 *     MainThread (4711)
 *     Server.handle (/srv/app/server.py:120)
 *     wall, 1200 samples, 100 Hz, 12 s
 *     accuracy: vm source, priority fifo; 1200 of 1200 ticks looked at; 800 of 1200 stacks idle and not read again;
 *     0 torn, 0 discarded, 1 late, 0 unreadable, 0 truncated
 *
 * Names come out of a target: nothing in them may steer a terminal or break UTF-8. What a format needs beyond that
 * (escapes, separators) is the format's. */
#include "engine/export/label.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include <inttypes.h>
#include <string.h>

#define DOUBLE_EXACT 0x1p53

static void add_printable(struct strbuf *out, const char *s) {
	strbuf_add_printable(out, s, strlen(s));
}

static void add_name(struct strbuf *out, const struct profile *profile, uint32_t id, const char *otherwise) {
	const char *name = intern_str(&profile->strings, id);

	add_printable(out, *name ? name : otherwise);
}

const char *label_function(const struct profile *profile, uint32_t frame) {
	const char *name = intern_str(&profile->strings, profile->frames.items[frame].function);

	return *name ? name : "<unknown>";
}

const char *label_place(const struct profile *profile, uint32_t frame) {
	const struct profile_frame *f = &profile->frames.items[frame];
	const char *file = intern_str(&profile->strings, f->file);

	return *file ? file : intern_str(&profile->strings, f->module);
}

void label_frame(struct strbuf *out, const struct profile *profile, uint32_t frame) {
	const char *place = label_place(profile, frame);
	int line = profile->frames.items[frame].line;

	add_printable(out, label_function(profile, frame));
	if (!*place)
		return;
	strbuf_adds(out, " (");
	add_printable(out, place);
	if (line > 0)
		strbuf_addf(out, ":%d", line);
	strbuf_adds(out, ")");
}

void label_thread_name(struct strbuf *out, const struct profile *profile, uint32_t thread) {
	add_name(out, profile, profile->threads.items[thread].name, "thread");
}

void label_process_name(struct strbuf *out, const struct profile *profile, uint32_t thread) {
	add_name(out, profile, profile->threads.items[thread].process_name, "<unknown>");
}

void label_thread(struct strbuf *out, const struct profile *profile, uint32_t thread) {
	pid_t tid = profile->threads.items[thread].tid;

	label_thread_name(out, profile, thread);
	if (tid)
		strbuf_addf(out, " (%d)", (int)tid);
}

void label_process(struct strbuf *out, const struct profile *profile, uint32_t thread) {
	strbuf_adds(out, "process ");
	label_process_name(out, profile, thread);
	strbuf_addf(out, " (%d)", (int)profile->threads.items[thread].pid);
}

const char *label_kind(const struct profile *profile) {
	switch (profile->kind) {
	case PROFILE_CPU: return "cpu";
	case PROFILE_GIL: return "gil";
	case PROFILE_OFFCPU: return "off_cpu";
	case PROFILE_ALLOC: return "alloc_space";
	case PROFILE_WALL: break;
	}
	return "wall";
}

static void add_seconds(struct strbuf *out, uint64_t us) {
	strbuf_addf(out, "%.6g s", (double)us / 1e6);
}

static void add_bytes(struct strbuf *out, uint64_t bytes) {
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		value /= 1024;
		unit++;
	}
	strbuf_addf(out, "%.*f %s", unit ? 1 : 0, value, units[unit]);
}

void label_weight(struct strbuf *out, const struct profile *profile, uint64_t weight) {
	if (profile->kind == PROFILE_ALLOC)
		add_bytes(out, weight);
	else if (profile->kind == PROFILE_OFFCPU)
		add_seconds(out, weight);
	else
		strbuf_addf(out, "%" PRIu64 " sample%s", weight, weight == 1 ? "" : "s");
}

static void add_sleeps(struct strbuf *out, uint64_t sleeps, uint64_t ns) {
	strbuf_adds(out, "time off CPU, ");
	add_seconds(out, ns / NS_PER_US);
	strbuf_addf(out, " in %" PRIu64 " sleep%s", sleeps, sleeps == 1 ? "" : "s");
}

void label_summary(struct strbuf *out, const struct profile *profile) {
	uint64_t samples = 0, ns = 0;

	vec_foreach (count, &profile->counts) {
		samples += count->samples;
		ns += count->ns;
	}
	if (profile->kind == PROFILE_OFFCPU) {
		add_sleeps(out, samples, ns);
	} else if (profile->kind == PROFILE_ALLOC) {
		strbuf_adds(out, "allocations, ");
		add_bytes(out, ns);
		strbuf_addf(out, " in about %" PRIu64, samples);
	} else {
		strbuf_addf(out, "%s, ", label_kind(profile));
		label_weight(out, profile, samples);
	}
	if (profile->period_ns)
		strbuf_addf(out, ", %.6g Hz", (double)NS_PER_SEC / (double)profile->period_ns);
	if (profile->duration_ns)
		strbuf_addf(out, ", %.6g s", (double)(profile->duration_ns / NS_PER_MS) / 1e3);
}

uint64_t label_sample_ns(const struct profile *profile, uint64_t total) {
	double samples = 0, ns = 0;

	if (profile->kind == PROFILE_ALLOC)
		return 1;
	if (profile->kind == PROFILE_OFFCPU)
		return NS_PER_US;
	vec_foreach (count, &profile->counts) {
		samples += (double)count->samples;
		ns += (double)count->ns;
	}
	ns = samples > 0 ? ns / samples : (double)profile->period_ns;
	ns = min_of(ns, DOUBLE_EXACT / (double)max_of(total, (uint64_t)1));
	return ns < 1 ? 1 : (uint64_t)ns;
}

void label_accuracy(struct strbuf *out, const struct profile *profile) {
	const struct pyspyd_accuracy *a = &profile->accuracy;

	strbuf_adds(out, "accuracy: ");
	if (a->source)
		strbuf_addf(out, "%s source", a->source);
	if (a->priority)
		strbuf_addf(out, "%spriority %s", a->source ? ", " : "", a->priority);
	if (profile->kind == PROFILE_OFFCPU) {
		strbuf_addf(out, "; %" PRIu64 " sleeps, %" PRIu64 " lost, ", a->looks, a->discarded);
		strbuf_addf(out, "%" PRIu64 " unreadable, %" PRIu64 " truncated", a->unreadable, a->truncated);
		return;
	}
	if (profile->kind == PROFILE_ALLOC) {
		strbuf_addf(out, "; %" PRIu64 " samples of %" PRIu64 " allocations, ", a->samples, a->looks);
		strbuf_addf(out, "%" PRIu64 " lost, %" PRIu64 " unreadable, ", a->discarded, a->unreadable);
		strbuf_addf(
			out, "%" PRIu64 " truncated, %" PRIu64 " of threads without Python", a->truncated, a->unknown);
		return;
	}
	strbuf_addf(out, "%s%" PRIu64 " of %" PRIu64 " ticks looked at; ", a->source || a->priority ? "; " : "",
		a->looks, a->expected);
	strbuf_addf(out, "%" PRIu64 " of %" PRIu64 " stacks idle and not read again; ", a->idle, a->samples);
	strbuf_addf(out, "%" PRIu64 " torn, %" PRIu64 " discarded, %" PRIu64 " late, ", a->torn, a->discarded, a->late);
	strbuf_addf(out, "%" PRIu64 " unreadable, %" PRIu64 " truncated", a->unreadable, a->truncated);
	if (a->unknown)
		strbuf_addf(out, ", %" PRIu64 " of threads without Python", a->unknown);
}

bool label_many_processes(const struct profile *profile) {
	vec_foreach (thread, &profile->threads)
		if (thread->pid != profile->threads.items[0].pid)
			return true;
	return false;
}
