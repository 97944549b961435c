/* SPDX-License-Identifier: MIT */
/* A finding's Python frames are of the look that found it. Native ones are read when it is told of: Python's are read
 * again with them, and only where both looks agree the thread is taken to stand where it stood.
 *
 * The reading moves between CPUs if a thread wakes up meanwhile (still.h), so that a thread of its own does it. Nothing
 * is kept of the files read: findings are rare, and memory is for what is not. */
#include "engine/pipeline/evidence.h"

#include "engine/base/clock.h"
#include "engine/base/strbuf.h"
#include "engine/pipeline/describe.h"
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#define MINUTE_NS (60 * NS_PER_SEC)
#define ROUNDS 10                  /* who wakes now and then sleeps the next time, … */
#define ROUND_NS (2 * NS_PER_MS)   /* … a while later, where he has to wait for a CPU */
#define SPEND_NS (500 * NS_PER_MS) /* of CPU time in a minute */

struct evidence {
	struct py_stack_scratch scratch;
	uint64_t minute_ns; /* when this one began */
	uint64_t spent_ns;  /* in it */
};

int evidence_new(struct evidence **ret_evidence) {
	struct evidence *evidence = calloc(1, sizeof(*evidence));
	int r = evidence ? py_stack_scratch_init(&evidence->scratch) : -ENOMEM;

	if (r)
		evidence_free(evidence);
	else
		*ret_evidence = evidence;
	return r;
}

void evidence_free(struct evidence *evidence) {
	if (!evidence)
		return;
	py_stack_scratch_deinit(&evidence->scratch);
	free(evidence);
}

/* The budget. */

static bool may_spend(struct evidence *evidence) {
	uint64_t now = clock_mono_ns();

	if (now - evidence->minute_ns >= MINUTE_NS) {
		evidence->minute_ns = now;
		evidence->spent_ns = 0;
	}
	return evidence->spent_ns < SPEND_NS;
}

/* Reading. */

struct reading {
	struct evidence *evidence;
	struct sample_target *target;
	struct pyspyd_finding_thread *threads;
	size_t n;
	bool all; /* is wanted, and is to say why there is none */
	uint64_t cpu_ns;
};

static struct sample_thread *find_thread(const struct sample_target *target, pid_t tid) {
	struct sample_thread *found = NULL;

	/* Of several interpreters' states for one thread the first is the newest one's. */
	vec_foreach (thread, &target->threads)
		if (!found && (*thread)->py.tid == tid)
			found = *thread;
	return found;
}

static bool same_text(const char *a, const char *b) {
	return !strcmp(a ? a : "", b ? b : "");
}

/* Whether the Python frames of a merged stack are those that the finding has, which may lack the oldest ones. */
static bool same_place(const struct pyspyd_thread *found, const struct pyspyd_thread *now) {
	size_t at = 0;

	for (size_t i = 0; i < now->frames_n && at < found->frames_n; i++) {
		const struct pyspyd_frame *a = &found->frames[at], *b = &now->frames[i];

		if (b->lang != PYSPYD_PYTHON)
			continue;
		if (a->lang != PYSPYD_PYTHON || a->line != b->line || !same_text(a->function, b->function) ||
			!same_text(a->file, b->file))
			return false;
		at++;
	}
	return at == found->frames_n;
}

static bool sleeps(const struct sample_target *target, pid_t tid) {
	struct proc_stat stat;

	if (target->offline) /* as good as: it does not move */
		return true;
	return !proc_thread_stat(&target->proc, tid, &stat) && stat.state != 'R' && stat.state != 'Z' &&
		stat.state != 'X';
}

static bool has_native(const struct pyspyd_thread *thread) {
	for (size_t i = 0; i < thread->frames_n; i++)
		if (thread->frames[i].lang == PYSPYD_NATIVE)
			return true;
	return false;
}

static int read_thread(struct reading *reading, struct native_look *native, pid_t tid, struct pyspyd_thread *ret) {
	const struct describe_options options = { .native = native };
	struct sample_thread *thread = find_thread(reading->target, tid);
	const struct py_thread_names no_names = { 0 };

	return thread ? describe_thread(reading->target, thread, &no_names, &options, &reading->evidence->scratch, ret)
		      : describe_foreign_thread(reading->target, tid, &options, ret);
}

/* A thread that was seen in samples has the hottest stack, which is not where it stands now. */
static bool is_wanted(const struct reading *reading, const struct pyspyd_finding_thread *thread) {
	return thread->thread.tid && (reading->all || thread->waits_for || !thread->thread.frames_n);
}

/* Return: why there are none; static; NULL: there are. */
static const char *add_to(struct reading *reading, struct native_look *native, struct pyspyd_thread *thread) {
	struct pyspyd_thread now = { 0 };
	const char *why = NULL;

	if (!sleeps(reading->target, thread->tid))
		return "it runs: to see them it has to be stopped";
	if (read_thread(reading, native, thread->tid, &now))
		return "it has ended, or could not be read";
	if (!has_native(&now)) {
		why = now.native_end ? now.native_end : "it has none";
	} else if (now.incomplete || !same_place(thread, &now)) {
		why = "it moved while it was looked at";
	} else {
		pyspyd_frames_free(thread->frames, thread->frames_n);
		thread->frames = take_ptr(now.frames);
		thread->frames_n = now.frames_n;
		thread->native = true;
		thread->interpreter = now.interpreter;
		thread->native_end = now.native_end;
		thread->disagree = now.disagree;
		now.frames_n = 0;
	}
	pyspyd_frames_free(now.frames, now.frames_n);
	free(now.name);
	return why;
}

static uint64_t thread_cpu_ns(void) {
	struct timespec ts = { 0 };

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* Return: whether all have what they can have. */
static bool read_round(struct reading *reading, struct native_look *native, bool last) {
	bool all = true;

	pthread_mutex_lock(&reading->target->lock);
	for (size_t i = 0; i < reading->n; i++) {
		struct pyspyd_thread *thread = &reading->threads[i].thread;
		bool wanted = !thread->native && is_wanted(reading, &reading->threads[i]);
		const char *why = wanted ? add_to(reading, native, thread) : NULL;

		all &= !why;
		if (last && reading->all && why) {
			thread->native = true;
			thread->native_end = why;
		}
	}
	pthread_mutex_unlock(&reading->target->lock);
	return all;
}

/* The files are read before the lock is taken: who samples the target waits for it. */
static void read_all(struct reading *reading, struct native_look *native) {
	for (size_t i = 0; i < reading->n; i++)
		if (is_wanted(reading, &reading->threads[i]) && sleeps(reading->target, reading->threads[i].thread.tid))
			native_look_warm_for(native, reading->threads[i].thread.tid);
	for (int round = 1; round <= ROUNDS; round++) {
		if (read_round(reading, native, round == ROUNDS))
			break;
		nanosleep(&(struct timespec){ .tv_nsec = ROUND_NS }, NULL);
	}
}

static void *read_main(void *arg) {
	struct reading *reading = arg;
	struct sample_target *target = reading->target;
	struct native_look *native = NULL;
	struct mem *mem = NULL;
	int r = target->offline ? native_look_new_offline(target, &native) : mem_live_new(target->proc.pid, &mem);

	if (!r && !native)
		r = native_look_new(&target->proc, mem, NULL, NATIVE_HOW_ASLEEP, &native);
	if (!r)
		read_all(reading, native);
	native_look_free(native);
	mem_free(mem);
	reading->cpu_ns = thread_cpu_ns();
	return NULL;
}

static void run(struct reading *reading) {
	pthread_t thread;

	if (pthread_create(&thread, NULL, read_main, reading))
		return;
	pthread_join(thread, NULL);
	reading->evidence->spent_ns += reading->cpu_ns;
}

void evidence_add(struct evidence *evidence, struct sample_target *target, struct pyspyd_finding *finding) {
	struct reading reading = {
		.evidence = evidence, .target = target, .threads = finding->threads, .n = finding->threads_n
	};
	bool wanted = false;

	for (size_t i = 0; i < finding->threads_n; i++)
		wanted = wanted || is_wanted(&reading, &finding->threads[i]);
	if (wanted && may_spend(evidence))
		run(&reading);
}

/* Wait graphs. */

static bool is_of(const struct pyspyd_wait_node *node, const struct sample_target *target) {
	return node->kind == PYSPYD_WAIT_THREAD && node->pid == target->proc.pid;
}

/* Where the frame that was the at'th of Python's alone stands now. */
static size_t site_in(const struct pyspyd_thread *thread, size_t at) {
	for (size_t i = 0; i < thread->frames_n; i++)
		if (thread->frames[i].lang == PYSPYD_PYTHON && !at--)
			return i;
	return thread->frames_n;
}

static void give_back(struct pyspyd_wait_node *node, struct pyspyd_thread *thread) {
	if (node->site >= node->frames_n)
		node->site = thread->frames_n;
	else if (thread->frames != node->frames)
		node->site = site_in(thread, node->site);
	node->frames = take_ptr(thread->frames);
	node->frames_n = thread->frames_n;
	node->native = thread->native;
	node->native_end = thread->native_end;
	node->disagree = thread->disagree;
}

int evidence_add_to_waits(struct evidence *evidence, struct sample_target *target, struct pyspyd_waits *waits) {
	struct pyspyd_finding_thread *threads _free_ = calloc(waits->nodes_n + 1, sizeof(*threads));
	struct reading reading = { .evidence = evidence, .target = target, .threads = threads, .all = true };

	if (!threads)
		return -ENOMEM;
	for (size_t i = 0; i < waits->nodes_n; i++) {
		const struct pyspyd_wait_node *node = &waits->nodes[i];

		if (is_of(node, target))
			threads[reading.n++].thread = (struct pyspyd_thread){
				.tid = node->tid, .frames = node->frames, .frames_n = node->frames_n
			};
	}
	run(&reading);
	for (size_t i = 0, at = 0; i < waits->nodes_n; i++)
		if (is_of(&waits->nodes[i], target))
			give_back(&waits->nodes[i], &threads[at++].thread);
	return 0;
}

/* The call that holds a lock. */

static const char *base_name(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

enum owner {
	OWNER_OTHER,
	OWNER_SYSTEM,
	OWNER_CALLS, /* what calls C on Python's behalf, whatever it is */
	OWNER_INTERPRETER,
};

static enum owner owner_of(const struct pyspyd_frame *frame) {
	static const struct {
		const char *prefix;
		enum owner owner;
	} table[] = {
		{ "libc.", OWNER_SYSTEM },
		{ "libc-", OWNER_SYSTEM },
		{ "libpthread", OWNER_SYSTEM },
		{ "ld-", OWNER_SYSTEM },
		{ "[v", OWNER_SYSTEM },
		{ "libffi", OWNER_CALLS },
		{ "_ctypes.", OWNER_CALLS },
		{ "_cffi_backend", OWNER_CALLS },
		{ "libpython", OWNER_INTERPRETER },
		{ "python", OWNER_INTERPRETER },
	};
	const char *name = base_name(frame->module ? frame->module : "");

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (!strncmp(name, table[i].prefix, strlen(table[i].prefix)))
			return table[i].owner;
	return OWNER_OTHER;
}

size_t evidence_native_frame(const struct pyspyd_frame *frames, size_t n) {
	size_t system = n, interpreter = n;

	for (size_t i = 0; i < n && frames[i].lang != PYSPYD_PYTHON; i++) {
		enum owner owner = owner_of(&frames[i]);

		if (frames[i].lang != PYSPYD_NATIVE)
			continue;
		if (owner == OWNER_OTHER)
			return i;
		if (owner == OWNER_SYSTEM && interpreter == n)
			system = i;
		if (owner == OWNER_INTERPRETER && interpreter == n)
			interpreter = i;
	}
	return system < n ? system : interpreter;
}

static bool tell_call(const struct pyspyd_thread *thread, char *buf, size_t size) {
	size_t at = evidence_native_frame(thread->frames, thread->frames_n);
	struct strbuf sb = { 0 };
	const char *function;
	bool known = false;

	if (at < thread->frames_n) {
		function = thread->frames[at].function;
		strbuf_add_printable(&sb, function, strlen(function));
		if (*thread->frames[at].module && !strchr(function, '+')) {
			const char *file = base_name(thread->frames[at].module);

			strbuf_adds(&sb, " of ");
			strbuf_add_printable(&sb, file, strlen(file));
		}
		known = !sb.failed && sb.len < size;
	}
	if (known)
		memcpy(buf, strbuf_str(&sb), sb.len + 1);
	strbuf_deinit(&sb);
	return known;
}

bool evidence_native_call(struct evidence *evidence, struct sample_target *target, pid_t tid, char *buf, size_t size) {
	struct pyspyd_finding_thread thread = { .thread.tid = tid };
	struct reading reading = { .evidence = evidence, .target = target, .threads = &thread, .n = 1 };
	bool known;

	if (!sleeps(target, tid) || !may_spend(evidence))
		return false;
	run(&reading);
	known = tell_call(&thread.thread, buf, size);
	pyspyd_frames_free(thread.thread.frames, thread.thread.frames_n);
	return known;
}
