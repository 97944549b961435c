/* SPDX-License-Identifier: MIT */
/* One interval of one process: what was acquired becomes the detectors' input, their verdicts become events.
 *
 * Strings and arrays of an input live until its verdicts were acted upon. */
#include "engine/pipeline/findings.h"

#include "engine/base/clock.h"
#include "engine/detect/detect.h"
#include "engine/finding/lifecycle.h"
#include "engine/pipeline/counters.h"
#include "engine/pipeline/creations.h"
#include "engine/pipeline/evidence.h"
#include "engine/pipeline/leaking.h"
#include "engine/pipeline/raising.h"
#include "engine/pipeline/waiting.h"

#define LEFT_NS (60 * NS_PER_SEC)           /* so long an earlier watch's findings wait for their process */
#define LEFT_START_NS ((int64_t)NS_PER_SEC) /* as far apart two readings of one start may be, if the clock was set */

#define STACK_PERCENT 10.0 /* threads that are as busy as that get their stacks */

#define SLOW_LOOKS 120 /* at the costly counters, in the window of process-leak: as many as its trend needs */
#define SLOW_EACH_NS (50 * NS_PER_MS) /* with so many processes, so much less often */

struct detection { /* of one process */
	struct detect_set *set;
	struct lifecycle *lifecycle;
	struct counters counters;
	struct detect_config config; /* everybody's, and what a rule adds */
	bool expect_busy;
	struct {
		pid_t tid;
		uint64_t held_ns; /* when it was looked at last */
		char text[256];   /* "" not known */
	} gil_call;
};

struct findings {
	const struct pyspyd_watch_options *options;
	struct recorder *const *recorder;
	struct detect_config config;
	detect_verdicts verdicts;
	const pid_t *watched; /* of this interval; borrowed */
	size_t watched_n;
	uint64_t period_ns;
	const struct waiting *waiting;
	struct leaking *leaking;
	struct creations *creations;
	struct evidence *evidence;
	bool *left_taken; /* of the options' left: its process is watched, or it is told of */
	size_t left_waiting;
	uint64_t left_ns;
	struct counters_shared shared;
	char host[65];
};

struct input {
	struct detect_process process;
	VEC(struct detect_thread) threads;
	struct {
		struct detect_stack stacks[DETECT_STACKS_MAX];
	} * stacks; /* one for each thread */
};

int findings_new(const struct pyspyd_watch_options *options, struct recorder *const *recorder,
	struct findings **ret_findings, struct err *err) {
	struct findings *findings = calloc(1, sizeof(*findings));
	int r;

	if (!findings)
		return -ENOMEM;
	findings->options = options;
	findings->recorder = recorder;
	gethostname(findings->host, sizeof(findings->host) - 1);
	detect_config_init(&findings->config);
	findings->left_taken = calloc(options->left_n + 1, sizeof(*findings->left_taken));
	findings->left_waiting = options->left_n;
	r = findings->left_taken ? leaking_new(&findings->leaking) : -ENOMEM;
	if (!r)
		r = creations_new(&findings->creations);
	if (!r)
		r = evidence_new(&findings->evidence);
	if (r) {
		findings_free(findings);
		return r;
	}
	for (const char *const *setting = options->settings; setting && *setting; setting++) {
		r = detect_config_set(&findings->config, *setting, err);
		if (r) {
			findings_free(findings);
			return r;
		}
	}
	*ret_findings = findings;
	return 0;
}

void findings_free(struct findings *findings) {
	if (!findings)
		return;
	leaking_free(findings->leaking);
	creations_free(findings->creations);
	evidence_free(findings->evidence);
	free(findings->left_taken);
	counters_shared_deinit(&findings->shared);
	vec_free(&findings->verdicts);
	free(findings);
}

static void free_input(struct input *input) {
	for (size_t i = 0; input->stacks && i < input->threads.n; i++)
		for (size_t k = 0; k < DETECT_STACKS_MAX; k++)
			free((void *)(uintptr_t)input->stacks[i].stacks[k].frames);
	free(input->stacks);
	vec_free(&input->threads);
}

#define FRAMES_MAX 256 /* of one stack in evidence; the innermost */

/* The strings are the profile's own: they stand as long as it is not started anew, which nobody does meanwhile. */
static int fill_frames(const struct profile *profile, uint32_t node, struct detect_stack *stack) {
	struct detect_frame *frames = calloc(FRAMES_MAX, sizeof(*frames));
	size_t n = 0;

	if (!frames)
		return -ENOMEM;
	for (; node && n < FRAMES_MAX; node = profile->nodes.items[node].parent) {
		const struct profile_frame *from = &profile->frames.items[profile->nodes.items[node].frame];
		const char *qualname = intern_str(&profile->strings, from->function);
		const char *dot = strrchr(qualname, '.');

		frames[n++] = (struct detect_frame){
			.lang = from->lang,
			.function = dot ? dot + 1 : qualname, /* the compiler makes it so */
			.qualname = qualname,
			.file = intern_str(&profile->strings, from->file),
			.module = intern_str(&profile->strings, from->module),
			.line = from->line,
		};
	}
	stack->frames = frames;
	stack->frames_n = n;
	stack->truncated = node != 0;
	return 0;
}

static int fill_stacks(const struct watched *watched, const struct profile *profile, uint64_t samples,
	struct detect_thread *thread, struct detect_stack *stacks) {
	struct window_stack hottest[DETECT_STACKS_MAX];
	size_t n = window_hottest(&watched->window, thread->tid, WINDOW_SLICES, hottest, DETECT_STACKS_MAX);
	int r = 0;

	thread->stacks = stacks;
	for (size_t i = 0; !r && i < n; i++) {
		stacks[i].share = samples ? (double)hottest[i].samples / (double)samples : 0;
		r = fill_frames(profile, hottest[i].node, &stacks[i]);
		thread->stacks_n = i + 1;
	}
	return r;
}

static double share(uint64_t part, uint64_t whole) {
	return whole ? (double)part / (double)whole : -1;
}

static struct detect_thread describe(const struct watched *watched, const struct watched_thread *from) {
	const struct window_thread sum = window_thread_sum(&watched->window, from->tid, WINDOW_SLICES);
	bool known = from->last_run_ns && watched->interval_ns;

	return (struct detect_thread){
		.tid = from->tid,
		.start_ns = from->start_ns,
		.name = from->name ? from->name : "?",
		.state = from->state,
		.gil = !from->python      ? PYSPYD_GIL_NONE
			: from->holds_gil ? PYSPYD_GIL_HELD
					  : PYSPYD_GIL_UNKNOWN,
		.python = from->python,
		.ident = from->ident,
		.interval_ns = known ? watched->interval_ns : 0,
		.run_ns = known && from->run_ns > from->last_run_ns ? from->run_ns - from->last_run_ns : 0,
		.wait_ns = known && from->wait_ns > from->last_wait_ns ? from->wait_ns - from->last_wait_ns : 0,
		.user_ns = from->split_known ? from->user_ns - from->last_user_ns : 0,
		.system_ns = from->split_known ? from->system_ns - from->last_system_ns : 0,
		.samples = sum.samples,
		.shares = { .native = share(sum.native, sum.running),
			.gc = share(sum.gc, sum.samples),
			.gil_held = share(sum.gil, sum.samples),
			.gil_waiting = from->gil_waiting },
	};
}

/* One thread at a time collects, unless interpreters have GILs of their own: the sum over all threads against the looks
 * at the one that was looked at most. */
static double gc_share(const struct watched *watched) {
	uint64_t collecting = 0, looks = 0;

	vec_foreach (thread, &watched->threads) {
		const struct window_thread sum = window_thread_sum(&watched->window, thread->tid, 1);

		collecting += sum.gc;
		looks = max_of(looks, sum.samples);
	}
	return looks ? min_of(1.0, (double)collecting / (double)looks) : -1;
}

static int build_input(const struct findings *findings, const struct watched *watched, struct input *input) {
	const struct profile *profile = recorder_profile(*findings->recorder);
	struct waited_gil gil;
	int r = 0;

	input->stacks = calloc(watched->threads.n + 1, sizeof(*input->stacks));
	if (!input->stacks)
		return -ENOMEM;
	for (size_t i = 0; !r && i < watched->threads.n; i++) {
		const struct watched_thread *from = &watched->threads.items[i];
		struct detect_thread thread = describe(watched, from);

		raising_fill(watched, from->tid, &thread.exceptions);
		if (from->cpu_percent >= STACK_PERCENT || thread.exceptions.looks)
			r = fill_stacks(watched, profile, thread.samples, &thread, input->stacks[i].stacks);
		if (!r)
			r = vec_push(&input->threads, thread);
	}
	gil = waited_gil(watched);
	input->process = (struct detect_process){
		.name = watched->process.name,
		.threads = input->threads.items,
		.threads_n = input->threads.n,
		.period_ns = findings->period_ns,
		.gil_switches_per_s = gil.switches_per_s,
		.gil_holder = gil.holder,
		.gil_held_ns = gil.held_ns,
		.gil_waiters = gil.waiters,
		.gc_share = gc_share(watched),
	};
	return r;
}

static int on_event(void *userdata, const struct pyspyd_finding *finding) {
	const struct pyspyd_watch_options *options = userdata;

	return options->on_finding ? options->on_finding(options->userdata, finding) : 0;
}

static struct finding_context context_of(
	const struct findings *findings, const struct watched *watched, uint64_t now_ns) {
	return (struct finding_context){
		.now_ns = now_ns,
		.real_ns = clock_real_ns(),
		.host = findings->host,
		.process = &watched->process,
		.accuracy = &recorder_profile(*findings->recorder)->accuracy,
	};
}

static bool is_left_of(const struct pyspyd_left_open *left, pid_t pid, uint64_t start_real_ns) {
	int64_t apart = (int64_t)(left->start_real_ns - start_real_ns);

	return left->pid == pid && apart <= LEFT_START_NS && apart >= -LEFT_START_NS;
}

static void take_left(struct findings *findings, size_t i) {
	findings->left_taken[i] = true;
	findings->left_waiting--;
}

static int hand_left(struct findings *findings, const struct watched *watched, struct lifecycle *lifecycle) {
	const struct pyspyd_watch_options *options = findings->options;
	int r = 0;

	for (size_t i = 0; !r && findings->left_waiting && i < options->left_n; i++) {
		const struct pyspyd_left_open *left = &options->left[i];

		if (findings->left_taken[i] || !is_left_of(left, watched->process.pid, watched->process.start_real_ns))
			continue;
		r = lifecycle_leave(lifecycle, left);
		if (!r)
			take_left(findings, i);
	}
	return r;
}

static int on_left(void *userdata, const struct pyspyd_left_open *left, const char *ended) {
	const struct pyspyd_watch_options *options = userdata;

	return options->on_left_ended ? options->on_left_ended(options->userdata, left, ended) : 0;
}

static bool left_has_ended(const struct pyspyd_left_open *left) {
	struct proc_identity id;
	struct proc proc;
	bool ended = true;

	if (proc_open("/proc", left->pid, &proc))
		return true;
	if (!proc_identity_read(&proc, &id)) {
		ended = !proc_alive(&proc) || !is_left_of(left, left->pid, id.start_real_ns);
		proc_identity_free(&id);
	}
	proc_close(&proc);
	return ended;
}

int findings_tend_left(struct findings *findings, uint64_t now_ns) {
	const struct pyspyd_watch_options *options = findings->options;
	int r = 0;

	if (!findings->left_ns)
		findings->left_ns = now_ns;
	for (size_t i = 0; !r && findings->left_waiting && i < options->left_n; i++) {
		const char *ended = NULL;

		if (findings->left_taken[i])
			continue;
		if (left_has_ended(&options->left[i]))
			ended = "process-ended";
		else if (now_ns - findings->left_ns > LEFT_NS)
			ended = "not-watched";
		if (!ended)
			continue;
		take_left(findings, i);
		r = on_left((void *)(uintptr_t)options, &options->left[i], ended);
	}
	return r;
}

static int detection_of(struct findings *findings, struct watched *watched, struct detection **ret_detection) {
	struct detection *detection;
	int r;

	if (watched->detection) {
		*ret_detection = watched->detection;
		return 0;
	}
	detection = calloc(1, sizeof(*detection));
	if (!detection)
		return -ENOMEM;
	watched->detection = detection; /* half-built it is freed like a whole one */
	detection->config = findings->config;
	r = detect_set_new(&detection->set);
	if (!r)
		r = lifecycle_new(&detection->lifecycle);
	if (!r)
		r = hand_left(findings, watched, detection->lifecycle);
	if (r)
		findings_forget(findings, watched);
	else
		*ret_detection = detection;
	return r;
}

/* Those that are wrong were told of when they were read. */
static void set_all(struct detect_config *config, const char *const *settings) {
	for (const char *const *setting = settings; setting && *setting; setting++)
		(void)!detect_config_set(config, *setting, NULL);
}

int findings_rule(struct findings *findings, struct watched *watched, const struct pyspyd_watch_rule *rule) {
	struct detection *detection;
	int r = detection_of(findings, watched, &detection);

	if (r)
		return r;
	detection->config = findings->config;
	set_all(&detection->config, rule->settings);
	detection->expect_busy = rule->expect_busy;
	return 0;
}

void findings_reload(struct findings *findings) {
	detect_config_init(&findings->config);
	set_all(&findings->config, findings->options->settings);
}

unsigned findings_open(const struct watched *watched) {
	const struct detection *detection = watched->detection;

	return detection ? (unsigned)lifecycle_open(detection->lifecycle) : 0;
}

int pyspyd_watch_check_setting(const char *setting, struct err *err) {
	struct detect_config config;

	detect_config_init(&config);
	return detect_config_set(&config, setting, err);
}

void findings_watch(
	struct findings *findings, const pid_t *pids, size_t n, const struct waiting *waiting, uint64_t period_ns) {
	findings->period_ns = period_ns;
	findings->waiting = waiting;
	findings->watched = pids;
	findings->watched_n = findings->shared.processes = n;
}

static int decide(struct findings *findings, struct watched *watched, const struct input *input, uint64_t now_ns) {
	const struct detection *detection = watched->detection;
	struct detect_wishes wishes = { 0 };
	struct detect_input detect = {
		.now_ns = now_ns,
		.process = &input->process,
		.pid = watched->target->proc.pid,
		.watched = findings->watched,
		.watched_n = findings->watched_n,
		.wishes = &wishes,
	};
	int r;

	leaking_fill(findings->leaking, watched, &detect);
	creations_fill(findings->creations, watched, &detect);
	detect.waits = findings->waiting ? waiting_graph(findings->waiting, &detect.alive) : NULL;
	r = detect_set_decide(detection->set, &detection->config, &detect, &findings->verdicts);
	if (!r)
		r = creations_wish(findings->creations, watched, wishes.origins || findings->options->origins, now_ns);
	return r ? r : leaking_wish(findings->leaking, watched, &wishes);
}

/* Asked once of each hold that is long enough: it stays in that call. */
static void fill_gil_call(struct findings *findings, struct watched *watched, struct detect_process *process) {
	struct detection *detection = watched->detection;
	bool same =
		process->gil_holder == detection->gil_call.tid && process->gil_held_ns > detection->gil_call.held_ns;

	if (!process->gil_holder || !process->gil_waiters ||
		(double)process->gil_held_ns < detect_config_get(&detection->config, "gil-hog.after"))
		return;
	detection->gil_call.tid = process->gil_holder;
	detection->gil_call.held_ns = process->gil_held_ns;
	if (!same || !detection->gil_call.text[0]) {
		detection->gil_call.text[0] = '\0';
		(void)!evidence_native_call(findings->evidence, watched->target, process->gil_holder,
			detection->gil_call.text, sizeof(detection->gil_call.text));
	}
	process->gil_call = detection->gil_call.text[0] ? detection->gil_call.text : NULL;
}

struct evidence_of {
	struct findings *findings;
	struct watched *watched;
};

static void add_evidence(void *userdata, struct pyspyd_finding *finding) {
	const struct evidence_of *of = userdata;

	evidence_add(of->findings->evidence, of->watched->target, finding);
}

int findings_feed(struct findings *findings, struct watched *watched, uint64_t now_ns) {
	struct evidence_of of = { .findings = findings, .watched = watched };
	struct input input = { 0 };
	struct finding_context context;
	struct detection *detection;
	int r = detection_of(findings, watched, &detection);

	if (r)
		return r;
	recorder_lock(*findings->recorder);
	r = build_input(findings, watched, &input);
	recorder_unlock(*findings->recorder);
	counters_fill(&detection->counters, &findings->shared, watched,
		max_of((uint64_t)(detect_config_get(&detection->config, "process-leak.window") / SLOW_LOOKS),
			findings->watched_n * SLOW_EACH_NS),
		now_ns, &input.process);
	input.process.expect_busy = detection->expect_busy;
	fill_gil_call(findings, watched, &input.process);
	if (!r)
		r = decide(findings, watched, &input, now_ns);
	if (!r) {
		context = context_of(findings, watched, now_ns);
		context.add_evidence = add_evidence;
		context.userdata = &of;
		r = lifecycle_apply(detection->lifecycle, &context, &findings->verdicts, on_event,
			(void *)(uintptr_t)findings->options);
	}
	if (!r)
		r = lifecycle_tend_left(detection->lifecycle, &detection->config, now_ns, NULL, on_left,
			(void *)(uintptr_t)findings->options);
	free_input(&input);
	return r;
}

static struct detect_thread *find_thread(struct input *input, pid_t tid) {
	vec_foreach (thread, &input->threads)
		if (thread->tid == tid)
			return thread;
	return NULL;
}

/* The threads as they were in the last report, and those that were sampled since. */
static int list_last(const struct watched *watched, struct input *input) {
	int r = 0;

	for (size_t i = 0; !r && i < watched->threads.n; i++)
		r = vec_push(&input->threads, describe(watched, &watched->threads.items[i]));
	for (size_t i = 0; !r && i < watched->target->threads.n; i++) {
		const struct py_thread *py = &watched->target->threads.items[i]->py;

		if (!find_thread(input, py->tid))
			r = vec_push(&input->threads,
				((struct detect_thread){ .tid = py->tid,
					.name = py->tid == watched->process.pid ? watched->process.name : "?",
					.ident = py->ident,
					.python = true,
					.gil = PYSPYD_GIL_UNKNOWN,
					.state = '?' }));
	}
	return r;
}

/* Where each thread was seen last. */
static int build_last(const struct watched *watched, const struct profile *profile, struct input *input) {
	int r = list_last(watched, input);

	input->stacks = calloc(input->threads.n + 1, sizeof(*input->stacks));
	if (!input->stacks)
		return -ENOMEM;
	vec_foreach (sampled, &watched->target->threads) {
		struct detect_thread *thread = find_thread(input, (*sampled)->py.tid);
		uint32_t node = recorder_last_node(*sampled);
		struct detect_stack *stack;

		if (r || !node || !thread || thread->stacks_n)
			continue;
		stack = input->stacks[thread - input->threads.items].stacks;
		stack->share = window_share(&watched->window, thread->tid, node);
		r = fill_frames(profile, node, stack);
		thread->stacks = stack;
		thread->stacks_n = !r;
	}
	input->process = (struct detect_process){ .name = watched->process.name,
		.threads = input->threads.items,
		.threads_n = input->threads.n,
		.gil_switches_per_s = -1,
		.gc_share = gc_share(watched) };
	return r;
}

/* The look at a process that is no more. Nothing of it is read: only what was kept is shown. */
static int decide_end(
	struct findings *findings, struct watched *watched, const struct detect_end *end, uint64_t now_ns) {
	struct detection *detection = watched->detection;
	struct finding_context context = context_of(findings, watched, now_ns);
	struct detect_input detect = { .now_ns = now_ns, .pid = watched->target->proc.pid, .end = end };
	struct input input = { 0 };
	int r;

	pthread_mutex_lock(&watched->target->lock);
	recorder_lock(*findings->recorder);
	r = build_last(watched, recorder_profile(*findings->recorder), &input);
	recorder_unlock(*findings->recorder);
	pthread_mutex_unlock(&watched->target->lock);
	counters_fill_last(&detection->counters, watched, &input.process);
	detect.process = &input.process;
	if (!r)
		r = detect_set_decide(detection->set, &detection->config, &detect, &findings->verdicts);
	if (!r)
		r = lifecycle_apply(detection->lifecycle, &context, &findings->verdicts, on_event,
			(void *)(uintptr_t)findings->options);
	free_input(&input);
	return r;
}

int findings_end(struct findings *findings, struct watched *watched, const struct detect_end *end, uint64_t now_ns) {
	struct detection *detection = watched->detection;
	struct finding_context context = context_of(findings, watched, now_ns);
	void *options = (void *)(uintptr_t)findings->options;
	int r = 0, ended, left;

	if (!detection)
		return 0;
	if (end)
		r = decide_end(findings, watched, end, now_ns);
	ended = lifecycle_end(detection->lifecycle, &context, "process-ended", on_event, options);
	left = lifecycle_tend_left(detection->lifecycle, NULL, now_ns, "process-ended", on_left, options);
	return r ? r : ended ? ended : left;
}

/* What was left open, and not raised again yet, is for whoever watches the process next. */
static void give_back_left(struct findings *findings, const struct detection *detection) {
	for (size_t i = 0; detection->lifecycle && i < findings->options->left_n; i++) {
		if (!lifecycle_has_left(detection->lifecycle, &findings->options->left[i]))
			continue;
		findings->left_taken[i] = false;
		findings->left_waiting++;
	}
}

void findings_forget(struct findings *findings, struct watched *watched) {
	struct detection *detection = watched->detection;

	leaking_forget(findings->leaking, watched);
	creations_forget(findings->creations, watched);
	if (!detection)
		return;
	give_back_left(findings, detection);
	detect_set_free(detection->set);
	lifecycle_free(detection->lifecycle);
	free(detection);
	watched->detection = NULL;
}
