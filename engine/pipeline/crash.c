/* SPDX-License-Identifier: MIT */
/* From a core to a finding: dumps it with native frames, and says of it what the crash detector says of a process that
 * it has watched; stacks, signal, triage and exceptions are those of the very moment. */
#include "pyspyd/crash.h"

#include "engine/base/clock.h"
#include "engine/cpython/find.h"
#include "engine/detect/words.h"
#include "engine/finding/exceptions.h"
#include "engine/finding/finding.h"
#include "engine/finding/stack_json.h"
#include "engine/pipeline/describe.h"
#include "engine/proc/files.h"
#include <errno.h>
#include <signal.h>
#include <string.h>

#define ADVICE_KEPT "`pyspyd dump --native --locals --core FILE` shows the core that was kept (evidence.core_kept)."
#define ADVICE_GONE \
	"The core was not kept: the stacks here are what there is of it ([crash] keep in pyspyd.conf keeps the next " \
	"ones)."

#define FILES_MAX 2048 /* mapped files of a process that are opened */

struct crash {
	const struct pyspyd_crash_options *options;
	struct pyspyd_dump *dump;
	const struct pyspyd_process *process;
	struct detect_thread *threads;
	struct detect_stack *stacks;
	struct detect_frame **frames; /* of each thread */
	char address[20];
};

static void crash_deinit(struct crash *crash) {
	for (size_t i = 0; crash->frames && crash->dump && i < crash->dump->threads_n; i++)
		free(crash->frames[i]);
	free(crash->frames);
	free(crash->stacks);
	free(crash->threads);
	pyspyd_dump_free(crash->dump);
}

static const char *or_empty(const char *s) {
	return s ? s : "";
}

static int take_thread(struct crash *crash, size_t i) {
	const struct pyspyd_thread *from = &crash->dump->threads[i];
	struct detect_frame *frames = calloc(from->frames_n + 1, sizeof(*frames));

	crash->frames[i] = frames;
	if (!frames)
		return -ENOMEM;
	for (size_t k = 0; k < from->frames_n; k++)
		frames[k] = (struct detect_frame){ .lang = from->frames[k].lang,
			.function = or_empty(from->frames[k].function),
			.qualname = or_empty(from->frames[k].qualname),
			.file = or_empty(from->frames[k].file),
			.module = or_empty(from->frames[k].module),
			.line = from->frames[k].line };
	crash->stacks[i] = (struct detect_stack){
		.share = 1, .frames = frames, .frames_n = from->frames_n, .truncated = from->truncated
	};
	crash->threads[i] = (struct detect_thread){ .tid = from->tid,
		.name = or_empty(from->name),
		.state = from->state,
		.gil = from->gil,
		.python = from->interpreter >= 0,
		.ident = from->ident,
		.samples = 1,
		.stacks = &crash->stacks[i],
		.stacks_n = from->frames_n ? 1 : 0 };
	return 0;
}

static int take_threads(struct crash *crash) {
	size_t n = crash->dump->threads_n;
	int r = 0;

	crash->threads = calloc(n + 1, sizeof(*crash->threads));
	crash->stacks = calloc(n + 1, sizeof(*crash->stacks));
	crash->frames = calloc(n + 1, sizeof(*crash->frames));
	if (!crash->threads || !crash->stacks || !crash->frames)
		return -ENOMEM;
	for (size_t i = 0; !r && i < n; i++)
		r = take_thread(crash, i);
	return r;
}

static const char *sender_of(const struct crash *crash) {
	const struct pyspyd_core *core = crash->dump->process.core;

	if (!core->has_sender)
		return "kernel";
	return core->sender == crash->dump->process.pid ? "itself" : "other";
}

static void add_facts(struct crash *crash, struct detect_verdict *verdict) {
	const struct pyspyd_core *core = crash->dump->process.core;

	detect_fact_text(verdict, "signal", core->signal ? core->signal_name : NULL);
	detect_fact_text(verdict, "core_dumped", "yes");
	detect_fact_text(verdict, "core_kept", crash->options->kept);
	if (core->signal)
		detect_fact_text(verdict, "sent_by", sender_of(crash));
	if (core->has_address) {
		snprintf(crash->address, sizeof(crash->address), "0x%llx", (unsigned long long)core->address);
		detect_fact_text(verdict, "address", crash->address);
	}
	detect_fact_count(verdict, "threads", crash->dump->threads_n);
}

static void add_summary(const struct crash *crash, const struct detect_verdict *verdict, struct strbuf *sb) {
	const struct pyspyd_core *core = crash->dump->process.core;

	strbuf_adds(sb, "crash: the process died");
	if (core->signal)
		strbuf_addf(sb, " of %s", core->signal_name);
	if (core->reason)
		strbuf_addf(sb, " (%s)", core->reason);
	if (core->triage)
		strbuf_addf(sb, ", %s", core->triage->cause);
	strbuf_adds(sb, ", core dumped");
	if (!verdict->parties_n || !verdict->parties[0].thread->stacks_n)
		return;
	strbuf_adds(sb, "; ");
	detect_add_name(sb, verdict->parties[0].thread->name);
	strbuf_adds(sb, " was");
	detect_add_party_place(sb, verdict, &verdict->parties[0]);
}

/* A signal that somebody sent is his affair. */
static enum pyspyd_severity severity_of(const struct pyspyd_core *core) {
	return core->has_sender && core->triage && !strcmp(core->triage->cause, "sent") ? PYSPYD_WARNING
											: PYSPYD_CRITICAL;
}

static int add_evidence(const struct crash *crash, struct pyspyd_finding *finding) {
	const struct pyspyd_thread *died = crash->dump->threads_n ? &crash->dump->threads[0] : NULL;
	bool ok = json_put(true, finding->evidence, "core", stack_json_core(crash->dump->process.core));

	if (ok && died && died->exceptions_known)
		ok = json_put(
			ok, finding->evidence, "exceptions", exceptions_json(died->exceptions, died->exceptions_n));
	return ok ? 0 : -ENOMEM;
}

static int make_finding(struct crash *crash, struct pyspyd_finding **ret_finding) {
	const struct pyspyd_core *core = crash->dump->process.core;
	struct detect_verdict verdict = { .kind = "crash",
		.pattern = "Crash",
		.key = 1,
		.presence = DETECT_PRESENT,
		.severity = severity_of(core),
		.knot = UINT32_MAX,
		.advice = crash->options->kept ? ADVICE_KEPT : ADVICE_GONE };
	struct finding_context context = { .real_ns = clock_real_ns(), .process = crash->process };
	struct pyspyd_finding *finding;
	struct strbuf sb = { 0 };
	char host[65] = "";
	int r;

	(void)!gethostname(host, sizeof(host) - 1);
	context.host = host;
	context.now_ns = verdict.since_ns = clock_mono_ns();
	for (size_t i = 0; i < crash->dump->threads_n; i++)
		detect_party_thread(&verdict, &crash->threads[i], i ? "ended" : core->tid ? "crashed" : "ended");
	add_facts(crash, &verdict);
	add_summary(crash, &verdict, &sb);
	r = detect_set_summary(&verdict, &sb, "");
	if (!r)
		r = finding_new(&context, &verdict, &finding);
	if (r)
		return r;
	r = add_evidence(crash, finding);
	if (r)
		pyspyd_finding_free(finding);
	else
		*ret_finding = finding;
	return r;
}

int pyspyd_crash_finding(
	const struct pyspyd_crash_options *options, struct pyspyd_finding **ret_finding, struct err *err) {
	const struct pyspyd_dump_options dump = { .core = options->core, .native = true };
	struct crash crash = { .options = options };
	struct pyspyd_process process;
	int r = pyspyd_dump(0, &dump, &crash.dump, err);

	if (r)
		return r;
	/* Who it was is known better from the time when it was still there; its version, its memory alone knows. */
	process = options->process ? *options->process : crash.dump->process;
	process.python = crash.dump->process.python;
	crash.process = &process;
	r = take_threads(&crash);
	if (!r)
		r = make_finding(&crash, ret_finding);
	crash_deinit(&crash);
	return r;
}

int pyspyd_crash_unread(
	const struct pyspyd_process *process, int signal, struct pyspyd_finding **ret_finding, struct err *err) {
	const char *abbreviation = signal ? sigabbrev_np(signal) : NULL;
	struct detect_verdict verdict = { .kind = "crash",
		.pattern = "Crash",
		.key = 1,
		.presence = DETECT_PRESENT,
		.severity = signal == SIGQUIT ? PYSPYD_WARNING : PYSPYD_CRITICAL, /* somebody asked for that one */
		.knot = UINT32_MAX,
		.advice = "" };
	struct finding_context context = { .real_ns = clock_real_ns(), .process = process };
	struct strbuf sb = { 0 };
	char host[65] = "", name[24];
	int r;

	(void)!gethostname(host, sizeof(host) - 1);
	context.host = host;
	context.now_ns = verdict.since_ns = clock_mono_ns();
	if (abbreviation)
		snprintf(name, sizeof(name), "SIG%s", abbreviation);
	else
		snprintf(name, sizeof(name), "signal %d", signal);
	detect_fact_text(&verdict, "signal", signal ? name : NULL);
	detect_fact_text(&verdict, "core_dumped", "yes");
	strbuf_addf(&sb, "crash: the process died%s%s, core dumped", signal ? " of " : "", signal ? name : "");
	r = detect_set_summary(&verdict, &sb, "");
	if (!r)
		r = finding_new(&context, &verdict, ret_finding);
	return r ? err_set(err, r, "%s", strerror(-r)) : 0;
}

struct pyspyd_crash_files {
	VEC(int) fds; /* what is named like a Python first */
};

static int open_files(const struct proc *proc, const proc_map_vec *maps, bool named, struct pyspyd_crash_files *files) {
	vec_foreach (map, maps) {
		const char *slash = strrchr(map->path, '/');
		bool again = map > maps->items && map->inode == map[-1].inode && map->dev == map[-1].dev;
		int fd, r;

		if (!map->inode || !slash || again || files->fds.n == FILES_MAX ||
			(strstr(slash, "python") != NULL) != named)
			continue;
		r = proc_map_open(proc, map, &fd);
		if (r == -EMFILE || r == PROC_E_GONE)
			return r;
		if (r)
			continue;
		r = vec_push(&files->fds, fd);
		if (r) {
			close(fd);
			return r;
		}
	}
	return 0;
}

int pyspyd_crash_files_open(pid_t pid, struct pyspyd_crash_files **ret_files) {
	struct pyspyd_crash_files *files = calloc(1, sizeof(*files));
	proc_map_vec maps = { 0 };
	struct proc proc;
	int r = files ? proc_open("/proc", pid, &proc) : -ENOMEM;

	if (!r) {
		r = proc_maps_read(&proc, &maps);
		for (int named = 1; !r && named >= 0; named--)
			r = open_files(&proc, &maps, named, files);
		proc_maps_free(&maps);
		proc_close(&proc);
	}
	if (r) {
		pyspyd_crash_files_free(files);
		return r == PROC_E_GONE ? PYSPYD_E_GONE : r;
	}
	*ret_files = files;
	return 0;
}

bool pyspyd_crash_files_python(const struct pyspyd_crash_files *files) {
	vec_foreach (fd, &files->fds)
		if (py_find_in_file(*fd))
			return true;
	return false;
}

void pyspyd_crash_files_free(struct pyspyd_crash_files *files) {
	if (!files)
		return;
	vec_foreach (fd, &files->fds)
		close(*fd);
	vec_free(&files->fds);
	free(files);
}

int pyspyd_crash_who(pid_t pid, struct pyspyd_process *ret_process) {
	struct proc proc;
	int r = proc_open("/proc", pid, &proc);

	if (!r) {
		r = describe_process(&proc, "", ret_process);
		proc_close(&proc);
	}
	return r == PROC_E_GONE ? PYSPYD_E_GONE : r;
}
