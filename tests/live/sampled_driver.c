/* SPDX-License-Identifier: MIT */
/* Says what the sampler sees, for sampled.py and its like. One JSON object on stdout:
 *
 *   sampled_driver stacks SOURCE MODE HZ SECONDS PID…
 *     {"cpu_s": of the sampling, "accuracy": {…}, "run_ns": {tid: on a CPU meanwhile}, "stacks": [{"pid", "tid",
 * "name", "interpreter", "flags": ["running", "gil", "gc", "truncated"], "count", "frames": [[function, file, line]…,
 *     innermost first]}]}
 *   sampled_driver counts HZ SECONDS RING_BYTES loop|helper take|leave PID…
 *     the eBPF source alone: what the kernel counted, and how many events came; "leave" takes them only at the end
 *   sampled_driver nested
 *     has another program work at system calls until stdin ends
 *
 * "ready" goes to stderr when sampling has begun. */
#include "engine/base/clock.h"
#include "engine/base/map.h"
#include "engine/base/strbuf.h"
#include "engine/sample/bpf_source.h"
#include "engine/sample/sampler.h"
#include <bpf/bpf.h>
#include <jansson.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define NESTED_CALLS 64

struct seen {
	char *frames;
	pid_t pid, tid;
	uint64_t ident;
	int64_t interp;
	unsigned flags;
	uint64_t count;
};

struct tally {
	pthread_mutex_t lock;
	struct map index; /* hash → index in seen */
	VEC(struct seen) seen;
};

static int fail(const char *what, const struct err *err) {
	fprintf(stderr, "sampled_driver: %s: %s\n", what, err->text);
	return 1;
}

static char *frames_text(const struct sample *sample) {
	const struct sample_target *target = sample->target;
	struct strbuf text = { 0 };

	for (size_t i = 0; i < sample->n; i++) {
		const struct sample_place *place = &target->places.items[sample->places[i]];

		strbuf_addf(&text, "%s%s\t%s\t%d", i ? "\n" : "", intern_str(&target->strings, place->function),
			intern_str(&target->strings, place->file), place->line);
	}
	return strdup(strbuf_str(&text));
}

/* Return: where it is counted; it takes `frames`. */
static size_t find(struct tally *tally, const struct sample *sample, char *frames) {
	const struct py_thread *py = &sample->thread->py;
	struct seen new = { .frames = frames,
		.pid = sample->target->proc.pid,
		.tid = py->tid,
		.ident = py->ident,
		.interp = py->interp_id,
		.flags = sample->flags };
	const uint64_t words[] = { hash_bytes(frames, strlen(frames), 0), (uint64_t) new.tid << 32 | new.flags,
		py->tstate };
	uint64_t key = hash_bytes(words, sizeof(words), 0), at;

	if (map_get(&tally->index, key, &at)) {
		free(frames);
		return at;
	}
	at = tally->seen.n;
	if (vec_push(&tally->seen, new) || map_put(&tally->index, key, at))
		abort();
	return at;
}

static void on_sample(void *userdata, const struct sample *sample) {
	struct tally *tally = userdata;
	size_t at;

	pthread_mutex_lock(&tally->lock);
	if (sample->places)
		at = find(tally, sample, frames_text(sample));
	else
		at = find(tally, sample, strdup(tally->seen.items[sample->thread->mark].frames));
	sample->thread->mark = at;
	tally->seen.items[at].count += sample->ticks;
	pthread_mutex_unlock(&tally->lock);
}

static void sleep_s(double seconds) {
	struct timespec ts = { .tv_sec = (time_t)seconds,
		.tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9) };

	while (nanosleep(&ts, &ts))
		;
}

static struct sample_target *attach(const char *pid, struct err *err) {
	struct sample_target *target;
	int r = sample_target_new(atoi(pid), NS_PER_SEC, &target, err);

	for (int i = 0; !r && i < 100; i++) /* torn where threads begin or end meanwhile */
		if (!sample_target_refresh(target, NULL, NULL))
			return target;
	return NULL;
}

static json_t *flags_json(unsigned flags) {
	static const char *const names[] = { "running", "gil", "gc", "truncated", "native" };
	json_t *array = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (flags & 1U << i)
			json_array_append_new(array, json_string(names[i]));
	return array;
}

static json_t *frames_json(char *frames) {
	json_t *array = json_array();

	for (char *save, *one = strtok_r(frames, "\n", &save); one; one = strtok_r(NULL, "\n", &save)) {
		char *file = strchr(one, '\t'), *line = strrchr(one, '\t');

		*file++ = *line++ = '\0';
		json_array_append_new(array, json_pack("[ssi]", one, file, atoi(line)));
	}
	return array;
}

typedef VEC(struct sample_target *) target_vec;

/* tid → how long it was on a CPU, less what `before` says. */
static json_t *run_times(const target_vec *targets, const json_t *before) {
	json_t *times = json_object();
	struct proc_schedstat stat;
	char tid[16];

	vec_foreach (target, targets) {
		pthread_mutex_lock(&(*target)->lock);
		vec_foreach (thread, &(*target)->threads) {
			snprintf(tid, sizeof(tid), "%d", (int)(*thread)->py.tid);
			if (!proc_task_schedstat(&(*thread)->task, &stat))
				json_object_set_new(times, tid,
					json_integer((json_int_t)stat.run_ns -
						json_integer_value(json_object_get(before, tid))));
		}
		pthread_mutex_unlock(&(*target)->lock);
	}
	return times;
}

static const char *name_of(const struct seen *seen, const target_vec *targets, struct py_thread_names *names) {
	const char *name;

	for (size_t i = 0; i < targets->n; i++) {
		if (targets->items[i]->proc.pid != seen->pid)
			continue;
		name = py_thread_name(&names[i], seen->ident);
		return name ? name : "";
	}
	return "";
}

static void print_stacks(const struct tally *tally, const struct pyspyd_accuracy *acc, const target_vec *targets,
	double cpu_s, json_t *run_ns) {
	struct py_thread_names *names = calloc(targets->n, sizeof(*names));
	json_t *stacks = json_array();

	for (size_t i = 0; i < targets->n; i++)
		(void)!py_thread_names_read(&targets->items[i]->rt, &names[i]);
	vec_foreach (seen, &tally->seen)
		json_array_append_new(stacks,
			json_pack("{sisisssIsosIso}", "pid", (int)seen->pid, "tid", (int)seen->tid, "name",
				name_of(seen, targets, names), "interpreter", (json_int_t)seen->interp, "flags",
				flags_json(seen->flags), "count", (json_int_t)seen->count, "frames",
				frames_json(seen->frames)));
	json_dumpf(json_pack("{sfsos{sssIsIsIsIsIsIsIsI}so}", "cpu_s", cpu_s, "run_ns", run_ns, "accuracy", "source",
			   acc->source, "expected", (json_int_t)acc->expected, "looks", (json_int_t)acc->looks,
			   "samples", (json_int_t)acc->samples, "torn", (json_int_t)acc->torn, "discarded",
			   (json_int_t)acc->discarded, "unreadable", (json_int_t)acc->unreadable, "unknown",
			   (json_int_t)acc->unknown, "truncated", (json_int_t)acc->truncated, "stacks", stacks),
		stdout, JSON_COMPACT);
	puts("");
}

static double cpu_now(void) {
	struct rusage use;

	getrusage(RUSAGE_SELF, &use);
	return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
		(double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static int run_stacks(char **args, char **pids) {
	static const char *const modes[] = { "wall", "cpu", "gil" };
	struct tally tally = { .lock = PTHREAD_MUTEX_INITIALIZER };
	struct sampler_options options = { .rate_hz = atof(args[2]),
		.source = !strcmp(args[0], "bpf") ? PYSPYD_SOURCE_BPF : PYSPYD_SOURCE_VM,
		.want_gil = true,
		.want_gc = true,
		.on_sample = on_sample,
		.userdata = &tally };
	struct pyspyd_accuracy acc;
	struct err err = { 0 };
	struct sampler *sampler;
	target_vec targets = { 0 };
	json_t *before, *run_ns;
	double cpu;

	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++)
		if (!strcmp(args[1], modes[i]))
			options.mode = (enum pyspyd_mode)i;
	if (sampler_new(&options, &sampler, &err))
		return fail("cannot sample", &err);
	for (; *pids; pids++) {
		struct sample_target *target = attach(*pids, &err);

		if (!target || vec_push(&targets, target) || sampler_add(sampler, target))
			return fail(*pids, &err);
	}
	if (sampler_start(sampler))
		return fail("cannot start", &err);
	cpu = cpu_now();
	before = run_times(&targets, NULL);
	fputs("ready\n", stderr);
	sleep_s(atof(args[3]));
	run_ns = run_times(&targets, before);
	sampler_stop(sampler);
	sampler_accuracy(sampler, &acc);
	print_stacks(&tally, &acc, &targets, cpu_now() - cpu, run_ns);
	json_decref(before);
	sampler_free(sampler);
	return 0;
}

struct events {
	uint64_t n, frames, bad;
};

static void on_event(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames,
	const struct bpf_native *native) {
	struct events *events = userdata;

	(void)native;
	events->n++;
	events->frames += event->frames_n;
	for (uint32_t i = 0; i < event->frames_n; i++)
		events->bad += !pyb_frame_code(&frames[i]);
}

static int tell(struct bpf_source *source, const struct sample_target *target) {
	VEC(const struct py_thread *) threads = { 0 };
	int r = bpf_source_add(source, &target->rt, target->proc.pid);

	vec_foreach (thread, &target->threads)
		if (!r)
			r = vec_push(&threads, &(*thread)->py);
	if (!r)
		r = bpf_source_set_threads(source, target->proc.pid, threads.items, threads.n);
	vec_free(&threads);
	return r;
}

static void print_counts(const struct bpf_source_counts *counts, const struct events *events, uint64_t load_ns) {
	static const char *const names[PYB_COUNTS] = { "ticks", "target", "samples", "no_state", "bad_frame",
		"unreadable", "deep", "ring_full", "nested", "whole", "copied" };
	json_t *line = json_pack("{sIsIsIsIsI}", "expected", (json_int_t)counts->expected, "events",
		(json_int_t)events->n, "frames", (json_int_t)events->frames, "without_code", (json_int_t)events->bad,
		"load_ms", (json_int_t)(load_ns / NS_PER_MS));

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		json_object_set_new(line, names[i], json_integer((json_int_t)counts->by[i]));
	json_dumpf(line, stdout, JSON_COMPACT);
	puts("");
	json_decref(line);
}

static int run_counts(char **args, char **pids) {
	const struct bpf_source_options options = { .rate_hz = atof(args[0]), .ring_bytes = (uint32_t)atoi(args[2]) };
	bool take = !strcmp(args[3], "take");
	struct bpf_source_counts counts;
	struct events events = { 0 };
	struct bpf_source *source;
	struct err err = { 0 };
	uint64_t start = clock_mono_ns(), loaded, end;

	if (bpf_source_new(&options, &source, &err))
		return fail("eBPF", &err);
	loaded = clock_mono_ns();
	for (char **pid = pids; *pid; pid++) {
		struct sample_target *target = attach(*pid, &err);

		if (!target || tell(source, target))
			return fail(*pid, &err);
	}
	fputs("ready\n", stderr);
	for (end = clock_mono_ns() + (uint64_t)(atof(args[1]) * NS_PER_SEC); clock_mono_ns() < end;) {
		bpf_source_wait(source, -1, 20 * NS_PER_MS);
		if (take)
			bpf_source_take(source, on_event, &events);
	}
	for (char **pid = pids; *pid; pid++)
		bpf_source_remove(source, atoi(*pid));
	bpf_source_counts(source, 0, &counts);
	bpf_source_take(source, on_event, &events);
	print_counts(&counts, &events, loaded - start);
	bpf_source_free(source);
	return 0;
}

static int tracepoint_id(const char *name) {
	static const char *const roots[] = { "/sys/kernel/tracing", "/sys/kernel/debug/tracing" };
	char path[128];
	int id = -1;

	for (size_t i = 0; id < 0 && i < ARRAY_SIZE(roots); i++) {
		FILE *file;

		snprintf(path, sizeof(path), "%s/events/%s/id", roots[i], name);
		file = fopen(path, "re");
		if (!file)
			continue;
		if (fscanf(file, "%d", &id) != 1)
			id = -1;
		fclose(file);
	}
	return id;
}

/* A program that only takes time, at each call of getppid until stdin ends. */
static int run_nested(void) {
	struct bpf_insn insns[NESTED_CALLS + 2];
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT, .size = sizeof(attr), .sample_period = 1, .wakeup_events = 1
	};
	int id = tracepoint_id("syscalls/sys_enter_getppid"), prog, event;

	for (size_t i = 0; i < NESTED_CALLS; i++)
		insns[i] = (struct bpf_insn){ .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_ktime_get_ns };
	insns[NESTED_CALLS] = (struct bpf_insn){ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 };
	insns[NESTED_CALLS + 1] = (struct bpf_insn){ .code = BPF_JMP | BPF_EXIT };
	if (id < 0)
		return fail("nested", &(struct err){ .text = "no tracepoints (tracefs)" });
	attr.config = (uint64_t)id;
	prog = bpf_prog_load(BPF_PROG_TYPE_TRACEPOINT, NULL, "GPL", insns, ARRAY_SIZE(insns), NULL);
	event = (int)syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
	if (prog < 0 || event < 0 || ioctl(event, PERF_EVENT_IOC_SET_BPF, prog) ||
		ioctl(event, PERF_EVENT_IOC_ENABLE, 0))
		return fail("nested", &(struct err){ .text = "cannot attach a program to a system call" });
	puts("ready");
	fflush(stdout);
	return getchar() == EOF && ferror(stdin);
}

int main(int argc, char **argv) {
	if (argc > 6 && !strcmp(argv[1], "stacks"))
		return run_stacks(argv + 2, argv + 6);
	if (argc > 6 && !strcmp(argv[1], "counts"))
		return run_counts(argv + 2, argv + 6);
	if (argc == 2 && !strcmp(argv[1], "nested"))
		return run_nested();
	fputs("usage: see the head of sampled_driver.c\n", stderr);
	return 2;
}
