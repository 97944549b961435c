/* SPDX-License-Identifier: MIT */
/* pyspyd_record: sample for a while, write the profile. */
#include "pyspyd/record.h"

#include "engine/base/clock.h"
#include "engine/export/export.h"
#include "engine/pipeline/recorder.h"
#include <time.h>

#define STARTING_WAIT_NS (5 * NS_PER_SEC)
#define TEND_NS (50 * NS_PER_MS)
#define PROGRESS_NS (500 * NS_PER_MS)

const char *pyspyd_format_of(const char *file_name) {
	const struct exporter *exporter = export_for_file(file_name);

	return exporter ? exporter->name : NULL;
}

static bool is_stopped(const struct pyspyd_record_options *options) {
	return options->stop && *options->stop;
}

/* Children that ended have left what they had to say in the profile. */
static void drop_ended(struct recorder *recorder) {
	size_t n;
	struct sample_target *const *targets = recorder_targets(recorder, &n);

	for (size_t i = n; i > 0; i--)
		if (targets[i - 1]->ended)
			recorder_drop(recorder, targets[i - 1]);
}

/* Return: 0; PYSPYD_E_GONE where every process ended before the time that was asked for. */
static int run(struct recorder *recorder, const struct pyspyd_record_options *options) {
	uint64_t start = clock_mono_ns(), end = options->duration_ns ? start + options->duration_ns : UINT64_MAX;
	uint64_t next_progress = start + PROGRESS_NS, now = start;

	while (now < end && !is_stopped(options)) {
		uint64_t wait = min_of(end - now, TEND_NS);

		nanosleep(&(struct timespec){ .tv_nsec = (long)wait }, NULL);
		if (!recorder_tend(recorder, options->children))
			return options->duration_ns ? PYSPYD_E_GONE : 0;
		drop_ended(recorder);
		now = clock_mono_ns();
		if (options->progress && now >= next_progress) {
			struct pyspyd_accuracy accuracy;

			sampler_accuracy(recorder_sampler(recorder), &accuracy);
			options->progress(options->userdata, now - start, &accuracy);
			next_progress = now + PROGRESS_NS;
		}
	}
	return 0;
}

static int check_gil(const struct sample_target *target, struct err *err) {
	py_interp_vec interps = { 0 };
	struct py_interp_view view = { .gil_known = true };

	if (!(target->rt.reader.flavour & LAYOUT_FREE_THREADED))
		return 0;
	if (!py_interps_read(&target->rt, &interps) && interps.n)
		py_interp_view(&target->rt, interps.items[0].addr, &view);
	vec_free(&interps);
	if (view.gil_known)
		return 0;
	return err_set(err, PYSPYD_E_USAGE, "this Python runs without a GIL: there is no holder to record");
}

static int record(struct recorder *recorder, pid_t pid, const struct pyspyd_record_options *options,
	const struct exporter *exporter, int out_fd, struct pyspyd_accuracy *ret_accuracy, struct err *err) {
	const struct export_options export = { .threads = options->threads, .title = NULL };
	struct sample_target *target;
	int ended, r = recorder_add(recorder, pid, STARTING_WAIT_NS, &target, err);

	if (!r && options->mode == PYSPYD_MODE_GIL)
		r = check_gil(target, err);
	if (!r)
		r = recorder_start(recorder);
	if (r)
		return r;
	ended = run(recorder, options);
	recorder_stop(recorder);
	*ret_accuracy = recorder_profile(recorder)->accuracy;
	r = exporter->write(recorder_profile(recorder), &export, out_fd);
	if (r)
		return err_set(err, r, "writing the profile: %s", strerror(-r));
	return ended ? err_set(err, ended, "process %d ended before the time was over", (int)pid) : 0;
}

int pyspyd_record(pid_t pid, const struct pyspyd_record_options *options, int out_fd,
	struct pyspyd_accuracy *ret_accuracy, struct err *err) {
	const struct recorder_options recorder_options = {
		.sampler = { .rate_hz = options->rate_hz,
			.mode = options->mode,
			.blocking = options->blocking,
			/* Only the kernel sees a running thread's registers without a stop. */
			.source = options->native ? PYSPYD_SOURCE_BPF : options->source,
			.native_stacks = options->native,
			.threshold_ns = options->threshold_ns,
			.kernel_stacks = options->kernel,
			.want_gil = options->mode == PYSPYD_MODE_GIL },
	};
	const struct exporter *exporter = export_find(options->format);
	struct recorder *recorder;
	int r;

	if (!exporter)
		return err_set(err, PYSPYD_E_USAGE, "there is no format '%s'", options->format);
	if (options->mode == PYSPYD_MODE_ALLOC)
		return err_set(err, PYSPYD_E_USAGE, "allocations are no samples in time");
	r = recorder_new(&recorder_options, &recorder, err);
	if (r)
		return r;
	r = record(recorder, pid, options, exporter, out_fd, ret_accuracy, err);
	recorder_free(recorder);
	return r;
}
