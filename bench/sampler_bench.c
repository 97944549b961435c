/* SPDX-License-Identifier: MIT */
/* Measures the engine on a ground-truth target (bench/ground_truth.py), one measurement a call, one line of JSON.
 *
 *   sampler_bench sample PID SECONDS HZ PRIORITY MODE   the engine's samplers; HZ 0: the highest rate; PRIORITY fifo,
 * nice or none; MODE cpu or wall sampler_bench floor PID SECONDS HZ PRIORITY         sleeps at the same jittered ticks,
 * on the CPU it is started on sampler_bench word PID SECONDS HZ                   reads one word a tick from the main
 * thread's state: which frame is innermost. One word cannot tear, so this tells the true share of the leaves
 *   sampler_bench readv PID SECONDS                     process_vm_readv in a row: of 4 KiB, and of the bytes of one
 * sample
 *
 * Torn is what the names say, whatever the engine thinks: a stack of a path must be leaf_I (at most once, and only
 * below all of its callers), down_I…, phase_I, with one I. */
#include "engine/base/clock.h"
#include "engine/sample/priority.h"
#include "engine/sample/sampler.h"
#include "engine/sample/schedule.h"
#include <inttypes.h>
#include <jansson.h>
#include <sched.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/resource.h>
#include <sys/uio.h>

#define PATHS_MAX 64
#define WARM_UP_S 1.2
#define READS_IN_A_ROW 1000
#define FRAMES_SEEN_MAX 4096

enum kind { KIND_UNKNOWN, KIND_OTHER, KIND_PHASE, KIND_DOWN, KIND_LEAF };

/* What a place is, told by its name once. */
struct known {
	enum kind kind;
	int path;
};

struct tally {
	uint64_t running, torn, leaf; /* samples of the main thread on a CPU */
	uint64_t idle;                /* ticks of other threads and of sleep */
	uint64_t frames;              /* of all running samples */
	size_t depth;                 /* number of down frames in whole paths; 0 not yet known */
	uint64_t paths[PATHS_MAX];
	pid_t pid;
	VEC(struct known) known;
};

static int fail(const char *what) {
	fprintf(stderr, "sampler_bench: %s\n", what);
	return 1;
}

static struct known know(const char *name) {
	static const struct {
		const char *prefix;
		enum kind kind;
	} kinds[] = { { "phase_", KIND_PHASE }, { "down_", KIND_DOWN }, { "leaf_", KIND_LEAF } };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t len = strlen(kinds[i].prefix);

		if (!strncmp(name, kinds[i].prefix, len))
			return (struct known){ kinds[i].kind, atoi(name + len) % PATHS_MAX };
	}
	return (struct known){ KIND_OTHER, -1 };
}

static struct known known_place(struct tally *tally, const struct sample_target *target, uint32_t place) {
	while (tally->known.n <= place)
		if (vec_push(&tally->known, (struct known){ 0 }))
			abort();
	if (tally->known.items[place].kind == KIND_UNKNOWN)
		tally->known.items[place] = know(intern_str(&target->strings, target->places.items[place].function));
	return tally->known.items[place];
}

struct shape {
	int path;
	size_t leaves, downs, phases;
	bool bad;
};

static struct shape shape_of(struct tally *tally, const struct sample *sample) {
	struct shape shape = { .path = -1 };

	for (size_t i = 0; i < sample->n; i++) {
		struct known known = known_place(tally, sample->target, sample->places[i]);

		if (known.kind == KIND_OTHER) {
			shape.bad |= shape.path >= 0 && !shape.phases;
			continue;
		}
		shape.bad |= shape.path >= 0 && known.path != shape.path;
		shape.bad |= shape.phases > 0 || (known.kind == KIND_LEAF && shape.downs + shape.leaves > 0);
		shape.path = known.path;
		shape.leaves += known.kind == KIND_LEAF;
		shape.downs += known.kind == KIND_DOWN;
		shape.phases += known.kind == KIND_PHASE;
	}
	return shape;
}

static void on_sample(void *userdata, const struct sample *sample) {
	struct tally *tally = userdata;
	struct shape shape;

	if (!sample->places || !(sample->flags & SAMPLE_RUNNING) || sample->thread->py.tid != tally->pid) {
		tally->idle += sample->ticks;
		return;
	}
	shape = shape_of(tally, sample);
	if (shape.leaves && !tally->depth && !shape.bad)
		tally->depth = shape.downs;
	tally->running++;
	tally->frames += sample->n;
	tally->torn += shape.bad || (shape.leaves && shape.downs != tally->depth);
	tally->leaf += shape.leaves > 0;
	if (shape.path >= 0)
		tally->paths[shape.path]++;
}

static uint64_t cpu_ns(void) {
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static long peak_rss_kib(void) {
	FILE *file = fopen("/proc/self/status", "re");
	char line[256];
	long kib = 0;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "VmHWM: %ld", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib;
}

static void sleep_until(uint64_t time_ns) {
	const struct timespec ts = { .tv_sec = (time_t)(time_ns / NS_PER_SEC),
		.tv_nsec = (long)(time_ns % NS_PER_SEC) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL))
		;
}

static void print(json_t *line) {
	json_object_set_new(line, "rss_kib", json_integer(peak_rss_kib()));
	json_dumpf(line, stdout, JSON_COMPACT);
	puts("");
	json_decref(line);
}

/* Takes nice -20 and gives the right to more away: the samplers' threads inherit both. */
static int deny_fifo(void) {
	const cap_value_t sys_nice = CAP_SYS_NICE;
	const struct rlimit none = { 0, 0 };
	cap_t caps;
	int r;

	if (setpriority(PRIO_PROCESS, 0, -20) || setrlimit(RLIMIT_RTPRIO, &none))
		return -1;
	caps = cap_get_proc();
	r = caps ? cap_set_flag(caps, CAP_EFFECTIVE, 1, &sys_nice, CAP_CLEAR) : -1;
	if (!r)
		r = cap_set_proc(caps);
	if (caps)
		cap_free(caps);
	return r;
}

static struct sample_target *attach(const char *pid) {
	struct err err = { 0 };
	struct sample_target *target;
	int r = sample_target_new(atoi(pid), NS_PER_SEC, &target, &err);

	for (int i = 0; !r && i < 10; i++) { /* torn where threads begin or end meanwhile */
		r = sample_target_refresh(target, NULL, NULL);
		if (!r)
			return target;
	}
	fprintf(stderr, "sampler_bench: cannot attach to %s: %s\n", pid, err.text);
	return NULL;
}

/* Everything that is counted, at one moment. */
struct moment {
	struct pyspyd_accuracy acc;
	struct tally tally;
	uint64_t cpu_ns, wall_ns, reads;
};

static void note(
	struct moment *moment, const struct sampler *sampler, struct sample_target *target, const struct tally *tally) {
	pthread_mutex_lock(&target->lock);
	sampler_accuracy(sampler, &moment->acc);
	moment->tally = *tally;
	moment->reads = target->mem->reads;
	moment->cpu_ns = cpu_ns();
	moment->wall_ns = clock_mono_ns();
	pthread_mutex_unlock(&target->lock);
}

static void put(json_t *line, const char *name, uint64_t end, uint64_t begin) {
	json_object_set_new(line, name, json_integer((json_int_t)(end - begin)));
}

static void print_between(const struct moment *a, const struct moment *b) {
	json_t *line = json_pack("{ssss?}", "source", b->acc.source, "priority", b->acc.priority);
	json_t *paths = json_array();

	for (size_t i = 0; i < PATHS_MAX; i++)
		json_array_append_new(paths, json_integer((json_int_t)(b->tally.paths[i] - a->tally.paths[i])));
	put(line, "expected", b->acc.expected, a->acc.expected);
	put(line, "looks", b->acc.looks, a->acc.looks);
	put(line, "rejected", b->acc.torn, a->acc.torn);
	put(line, "discarded", b->acc.discarded, a->acc.discarded);
	put(line, "late", b->acc.late, a->acc.late);
	put(line, "unreadable", b->acc.unreadable, a->acc.unreadable);
	put(line, "samples", b->tally.running, a->tally.running);
	put(line, "idle", b->tally.idle, a->tally.idle);
	put(line, "torn", b->tally.torn, a->tally.torn);
	put(line, "leaf", b->tally.leaf, a->tally.leaf);
	put(line, "frames", b->tally.frames, a->tally.frames);
	put(line, "cpu_ns", b->cpu_ns, a->cpu_ns);
	put(line, "wall_ns", b->wall_ns, a->wall_ns);
	put(line, "reads", b->reads, a->reads);
	json_object_set_new(line, "paths", paths);
	print(line);
}

static int run_sample(char **args) {
	static struct moment begin, end;
	struct sample_target *target = attach(args[0]);
	struct tally tally = { .pid = atoi(args[0]) };
	struct sampler_options options = { .rate_hz = atof(args[2]),
		.mode = !strcmp(args[4], "wall") ? PYSPYD_MODE_WALL : PYSPYD_MODE_CPU,
		.source = !strcmp(args[3], "bpf") ? PYSPYD_SOURCE_BPF : PYSPYD_SOURCE_VM,
		.ordinary_priority = !strcmp(args[3], "none"),
		.on_sample = on_sample,
		.userdata = &tally };
	struct sampler *sampler;
	uint64_t start;

	if (!target)
		return 1;
	if (!strcmp(args[3], "nice") && deny_fifo())
		return fail("cannot be nice -20 alone here");
	if (sampler_new(&options, &sampler, NULL) || sampler_add(sampler, target))
		return fail("out of memory");
	start = clock_mono_ns();
	if (sampler_start(sampler))
		return fail("cannot start");
	sleep_until(start + (uint64_t)(WARM_UP_S * NS_PER_SEC));
	note(&begin, sampler, target, &tally);
	sleep_until(begin.wall_ns + (uint64_t)(atof(args[1]) * NS_PER_SEC));
	note(&end, sampler, target, &tally);
	sampler_stop(sampler);
	print_between(&begin, &end);
	sampler_free(sampler);
	sample_target_free(target);
	vec_free(&tally.known);
	return 0;
}

static struct schedule schedule_of(const char *hz) {
	uint64_t now = clock_mono_ns();

	return (struct schedule){ .start_ns = now, .period_ns = (uint64_t)(NS_PER_SEC / atof(hz)), .seed = now };
}

static int run_floor(char **args) {
	struct schedule schedule = schedule_of(args[2]);
	uint64_t end = schedule.start_ns + (uint64_t)(atof(args[1]) * NS_PER_SEC);
	uint64_t cpu, looks = 0, now = schedule.start_ns, tick = 0;

	if (!strcmp(args[3], "nice") && deny_fifo())
		return fail("cannot be nice -20 alone here");
	if (!strcmp(args[3], "none"))
		priority_ordinary();
	else
		priority_raise();
	cpu = cpu_ns();
	for (; now < end; looks++) {
		sleep_until(schedule_time(&schedule, tick));
		now = clock_mono_ns();
		tick = max_of(tick + 1, schedule_next(&schedule, now) - 1);
	}
	print(json_pack(
		"{sIsIsI}", "looks", looks, "cpu_ns", cpu_ns() - cpu, "wall_ns", clock_mono_ns() - schedule.start_ns));
	return 0;
}

static struct sample_thread *thread_of(const struct sample_target *target, pid_t tid) {
	vec_foreach (thread, &target->threads)
		if ((*thread)->py.tid == tid)
			return *thread;
	return NULL;
}

/* Innermost frames by address: all paths have the same shape, so the leaves' frames stand at one address, the highest
 * that is seen more than by chance. */
struct seen {
	raddr frame;
	uint64_t n;
};

static int count_frame(struct seen *seen, size_t *n, raddr frame) {
	size_t i = 0;

	while (i < *n && seen[i].frame != frame)
		i++;
	if (i == FRAMES_SEEN_MAX)
		return -1;
	if (i == *n)
		seen[(*n)++] = (struct seen){ .frame = frame };
	seen[i].n++;
	return 0;
}

static void print_leaf(const struct seen *seen, size_t n, uint64_t samples) {
	struct seen leaf = { 0 };

	for (size_t i = 0; i < n; i++)
		if (seen[i].n > samples / 100 && seen[i].frame > leaf.frame)
			leaf = seen[i];
	print(json_pack("{sIsI}", "samples", samples, "leaf", leaf.n));
}

static int run_word(char **args) {
	struct sample_target *target = attach(args[0]);
	struct schedule schedule = schedule_of(args[2]);
	uint64_t end = schedule.start_ns + (uint64_t)(atof(args[1]) * NS_PER_SEC);
	static struct seen seen[FRAMES_SEEN_MAX];
	struct sample_thread *thread = target ? thread_of(target, atoi(args[0])) : NULL;
	uint64_t samples = 0;
	size_t n = 0;

	if (!thread || !layout_has(target->rt.reader.layout.tstate_frame))
		return fail("no word to read");
	priority_raise();
	for (uint64_t tick = 0, now = 0; now < end; samples++) {
		uint64_t frame;

		sleep_until(schedule_time(&schedule, tick));
		if (mem_read_u64(target->mem, thread->py.tstate + target->rt.reader.layout.tstate_frame, &frame) ||
			count_frame(seen, &n, frame))
			return fail("cannot read");
		now = clock_mono_ns();
		tick = max_of(tick + 1, schedule_next(&schedule, now) - 1);
	}
	print_leaf(seen, n, samples);
	sample_target_free(target);
	return 0;
}

/* CPU time of one call. Return: ns, or a negative number. */
static double time_readv(pid_t pid, raddr addr, size_t len, double seconds) {
	static uint8_t buf[1 << 20];
	uint64_t begin = cpu_ns(), now = begin, calls = 0;

	while (now < begin + (uint64_t)(seconds * NS_PER_SEC)) {
		for (int i = 0; i < READS_IN_A_ROW; i++) {
			struct iovec here = { buf, len }, there = { (void *)(uintptr_t)addr, len };

			if (process_vm_readv(pid, &here, 1, &there, 1, 0) != (ssize_t)len)
				return -1;
		}
		calls += READS_IN_A_ROW;
		now = cpu_ns();
	}
	return (double)(now - begin) / (double)calls;
}

/* Bytes of one sample, as the engine has learnt them. */
static int learn_plan(const struct sample_target *target, struct sample_thread *thread, struct py_span *ret) {
	struct py_stack_scratch scratch;
	struct py_raw_stack stack = { 0 };

	if (py_stack_scratch_init(&scratch))
		return -1;
	for (int i = 0; i < 100; i++)
		(void)!py_stack_capture(&target->rt, &thread->plan, &scratch, &stack);
	py_stack_scratch_deinit(&scratch);
	py_raw_stack_deinit(&stack);
	if (!thread->plan.chunks.n)
		return -1;
	*ret = thread->plan.chunks.items[0];
	return 0;
}

static int run_readv(char **args) {
	struct sample_target *target = attach(args[0]);
	struct sample_thread *thread = target ? thread_of(target, atoi(args[0])) : NULL;
	double seconds = atof(args[1]) / 2, page, plan;
	struct py_span span;

	if (!thread || learn_plan(target, thread, &span))
		return fail("no stack to read");
	page = time_readv(target->proc.pid, span.addr, 4096, seconds);
	plan = time_readv(target->proc.pid, span.addr, span.len, seconds);
	if (page < 0 || plan < 0)
		return fail("cannot read");
	print(json_pack("{sfsfsI}", "page_ns", page, "sample_ns", plan, "sample_bytes", (json_int_t)span.len));
	sample_target_free(target);
	return 0;
}

int main(int argc, char **argv) {
	static const struct {
		const char *name;
		int args;
		int (*run)(char **args);
	} modes[] = { { "sample", 5, run_sample }, { "floor", 4, run_floor }, { "word", 3, run_word },
		{ "readv", 2, run_readv } };

	for (size_t i = 0; argc > 1 && i < ARRAY_SIZE(modes); i++)
		if (!strcmp(argv[1], modes[i].name) && argc == 2 + modes[i].args)
			return modes[i].run(argv + 2);
	return fail("usage: see the head of sampler_bench.c") + 1;
}
