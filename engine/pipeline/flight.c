/* SPDX-License-Identifier: MIT */
/* pyspyd_flight_write, pyspyd_flight_diff: many packed profiles, one flame graph.
 *
 * The rate of sampling may have changed between them, or within one, so that a sample of one minute stands for more
 * time than a sample of another. Time is what counts: a wall-clock profile's samples are counted anew in units of the
 * shortest period. Where the rate never changed that is what was counted. */
#include "pyspyd/flight.h"

#include "engine/base/clock.h"
#include "engine/base/strbuf.h"
#include "engine/base/util.h"
#include "engine/export/export.h"
#include "engine/profile/pack.h"
#include <errno.h>
#include <string.h>

#define SAMPLES_MAX (UINT64_C(1) << 40) /* of one stack: the sum of LIMIT_NODES of them fits 64 bits, twice */
#define SECONDS_LEN 19                  /* "2026-01-31T12:00:00" */

/* The time that some packed profiles span. */
struct span {
	uint64_t start_real_ns, end_real_ns;
};

static void profile_release(struct profile **profile) {
	profile_free(*profile);
}

/* Adds up what can be read. Return: 0; -ENOMEM. */
static int add_up(
	struct profile *profile, const struct pyspyd_packed *packed, size_t n, struct span *ret_span, size_t *skipped) {
	struct span span = { UINT64_MAX, 0 };

	for (size_t i = 0; i < n; i++) {
		struct pack_head head;
		int r = profile_unpack(profile, packed[i].data, packed[i].len);

		if (r == -ENOMEM)
			return r;
		if (r || pack_head_read(packed[i].data, packed[i].len, &head)) {
			++*skipped;
			continue;
		}
		span.start_real_ns = min_of(span.start_real_ns, head.start_real_ns);
		span.end_real_ns = max_of(span.end_real_ns, head.end_real_ns);
	}
	*ret_span = span;
	return 0;
}

static void count_by_time(const struct profile *profile, struct profile_count *counts, size_t n) {
	uint64_t period = profile->kind == PROFILE_WALL ? profile->period_ns : 0;

	for (size_t i = 0; i < n; i++) {
		if (counts[i].samples && period)
			counts[i].samples = max_of((counts[i].ns + period / 2) / period, (uint64_t)1);
		counts[i].samples = min_of(counts[i].samples, SAMPLES_MAX);
	}
}

static bool has_samples(const struct profile_count *counts, size_t n) {
	for (size_t i = 0; i < n; i++)
		if (counts[i].samples)
			return true;
	return false;
}

/* "2026-01-31T12:00:00Z to 2026-01-31T12:10:00Z" */
static void add_span(struct strbuf *out, const struct span *span) {
	char start[CLOCK_RFC3339_SIZE], end[CLOCK_RFC3339_SIZE];

	clock_rfc3339(span->start_real_ns, start);
	clock_rfc3339(span->end_real_ns, end);
	strbuf_addf(out, "%.*sZ to %.*sZ", SECONDS_LEN, start, SECONDS_LEN, end);
}

/* "python3 (4711), 2026-01-31T12:00:00Z to …", of the process that was counted first. */
static void add_title(struct strbuf *out, const struct profile *profile, const struct span *span) {
	const struct profile_thread *thread = profile->threads.items;

	strbuf_addf(out, "%s (%d), ", intern_str(&profile->strings, thread->process_name), (int)thread->pid);
	add_span(out, span);
}

static int find_format(const struct pyspyd_flight_options *options, const struct exporter **ret, struct err *err) {
	const struct exporter *exporter = export_find(options->format);

	if (!exporter)
		return err_set(err, PYSPYD_E_USAGE, "there is no format '%s'", options->format ? options->format : "");
	*ret = exporter;
	return 0;
}

static int no_samples(size_t n, size_t skipped, const char *when, struct err *err) {
	if (skipped)
		return err_set(err, -ENODATA, "no samples%s: %zu of %zu profiles are damaged or of a newer version",
			when, skipped, n);
	return err_set(err, -ENODATA, "no samples%s: no thread was seen", when);
}

static int finish(int r, const char *what, struct err *err) {
	return r ? err_set(err, r, "%s: %s", what, strerror(-r)) : 0;
}

int pyspyd_flight_write(const struct pyspyd_packed *packed, size_t n, const struct pyspyd_flight_options *options,
	int fd, size_t *ret_skipped, struct err *err) {
	_cleanup_(profile_release) struct profile *profile = NULL;
	_cleanup_(strbuf_deinit) struct strbuf title = { 0 };
	const struct exporter *exporter;
	struct export_options export = { .threads = options->threads };
	struct span span;
	size_t skipped = 0;
	int r = find_format(options, &exporter, err);

	if (r)
		return r;
	r = profile_new(&profile);
	if (!r)
		r = add_up(profile, packed, n, &span, &skipped);
	if (r)
		return finish(r, "reading the profiles", err);
	*ret_skipped = skipped;
	if (!has_samples(profile->counts.items, profile->counts.n))
		return no_samples(n, skipped, "", err);
	count_by_time(profile, profile->counts.items, profile->counts.n);
	add_title(&title, profile, &span);
	export.title = options->title ? options->title : strbuf_str(&title);
	return finish(exporter->write(profile, &export, fd), "writing the profile", err);
}

static int find_diff(const struct pyspyd_flight_options *options, const struct exporter **ret, struct err *err) {
	const struct exporter *exporter;
	int r = find_format(options, &exporter, err);

	if (r)
		return r;
	if (!exporter->diff)
		return err_set(err, PYSPYD_E_USAGE, "the format '%s' cannot show what changed", exporter->name);
	*ret = exporter;
	return 0;
}

/* What was counted before a certain time; its threads and nodes stay the profile's. */
struct before {
	VEC(struct profile_count) counts;
	struct span span;
};

static void before_deinit(struct before *before) {
	vec_free(&before->counts);
}

/* Takes the counts out of a profile, and the time that they are of. Its accuracy stays: it is that of both. */
static int take_before(struct profile *profile, struct before *before) {
	if (vec_reserve(&before->counts, profile->counts.n))
		return -ENOMEM;
	if (profile->counts.n)
		memcpy(before->counts.items, profile->counts.items, profile->counts.n * sizeof(*profile->counts.items));
	before->counts.n = profile->counts.n;
	profile_reset_counts(profile);
	profile->start_real_ns = profile->duration_ns = 0;
	return 0;
}

static int write_diff(const struct exporter *exporter, struct profile *profile, struct before *before,
	const struct span *span, const struct pyspyd_flight_options *options, int fd) {
	_cleanup_(strbuf_deinit) struct strbuf title = { 0 };
	struct export_options export = { .threads = options->threads };

	count_by_time(profile, profile->counts.items, profile->counts.n);
	count_by_time(profile, before->counts.items, before->counts.n);
	add_title(&title, profile, span);
	strbuf_adds(&title, ", before: ");
	add_span(&title, &before->span);
	export.title = options->title ? options->title : strbuf_str(&title);
	return exporter->diff(profile, before->counts.items, before->counts.n, &export, fd);
}

int pyspyd_flight_diff(const struct pyspyd_packed *before, size_t before_n, const struct pyspyd_packed *after,
	size_t after_n, const struct pyspyd_flight_options *options, int fd, size_t *ret_skipped, struct err *err) {
	_cleanup_(profile_release) struct profile *profile = NULL;
	_cleanup_(before_deinit) struct before past = { 0 };
	const struct exporter *exporter;
	struct span span;
	size_t skipped = 0, skipped_before;
	int r = find_diff(options, &exporter, err);

	if (r)
		return r;
	r = profile_new(&profile);
	if (!r)
		r = add_up(profile, before, before_n, &past.span, &skipped);
	skipped_before = skipped;
	if (!r)
		r = take_before(profile, &past);
	if (!r)
		r = add_up(profile, after, after_n, &span, &skipped);
	if (r)
		return finish(r, "reading the profiles", err);
	*ret_skipped = skipped;
	if (!has_samples(past.counts.items, past.counts.n))
		return no_samples(before_n, skipped_before, " in the time before", err);
	if (!has_samples(profile->counts.items, profile->counts.n))
		return no_samples(after_n, skipped - skipped_before, "", err);
	return finish(write_diff(exporter, profile, &past, &span, options, fd), "writing the profile", err);
}
