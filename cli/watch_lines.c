/* SPDX-License-Identifier: MIT */
/* The views of `pyspyd watch` for files and pipes: findings and values as JSON Lines, or one event a line:
 *
 *   2026-01-31T12:00:00Z process pid=4711 python=3.11.2 cpu=100.3% rss=10.2M … name="python3"
 *   2026-01-31T12:00:00Z thread pid=4711 tid=4712 state=R cpu=99.8% gil=98% switches=3/40 name="spinner" at="f
 * (a.py:7)" 2026-01-31T12:00:10Z finding pid=4711 kind=spiking-thread state=open severity=warning id=01… "thread
 * spinner …"
 *   2026-01-31T12:00:01Z value pid=4711 name="registry:Registry._seen" type="dict" length=41200 value="{…"
 *
 * Threads that did not run are left out. */
#include "cli/watch_view.h"

#include "cli/cli.h"
#include "cli/format.h"
#include "pyspyd/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define SHOWN_CPU_PERCENT 0.5

static int nothing_to_report(const struct pyspyd_watch_process *processes, size_t n) {
	(void)processes;
	(void)n;
	return 0;
}

static void nothing_to_end(void) {
}

static int flush(void) {
	return fflush(stdout) == EOF || ferror(stdout) ? VIEW_E_OUTPUT : 0;
}

static int json_finding(const struct pyspyd_finding *finding) {
	_free_ char *json = pyspyd_finding_json(finding);

	return json && puts(json) != EOF ? flush() : VIEW_E_OUTPUT;
}

static int json_value(const struct pyspyd_value *value) {
	_free_ char *json = pyspyd_value_json(value);

	return json && puts(json) != EOF ? flush() : VIEW_E_OUTPUT;
}

const struct watch_view watch_view_json = {
	.report = nothing_to_report,
	.finding = json_finding,
	.value = json_value,
	.end = nothing_to_end,
};

const char *finding_state_word(enum pyspyd_finding_state state) {
	switch (state) {
	case PYSPYD_OPEN: return "open";
	case PYSPYD_UPDATE: return "update";
	case PYSPYD_RESOLVED: return "resolved";
	}
	return "?";
}

const char *finding_severity_word(enum pyspyd_severity severity) {
	switch (severity) {
	case PYSPYD_INFO: return "info";
	case PYSPYD_WARNING: return "warning";
	case PYSPYD_CRITICAL: return "critical";
	}
	return "?";
}

static void begin_line(const char *event, time_t seconds, pid_t pid) {
	char stamp[32];
	struct tm utc;

	gmtime_r(&seconds, &utc);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &utc);
	printf("%s %s pid=%d", stamp, event, pid);
}

/* key="text", printable. */
static void add_text(const char *key, const char *text) {
	_free_ char *printable = pyspyd_printable(text ? text : "");

	printf(" %s\"%s\"", key, printable ? printable : "");
}

static void print_process(const struct pyspyd_watch_process *p, time_t now) {
	char rss[16], pss[16], uss[16], threads[24], fds[24], voluntary[24], involuntary[24];

	begin_line("process", now, p->process.pid);
	printf(" python=%s cpu=%.1f%% rss=%s pss=%s uss=%s threads=%s fds=%s switches=%s/%s",
		p->process.python ? p->process.python : "?", p->cpu_percent,
		format_bytes(p->rss_bytes, rss, sizeof(rss)), format_bytes(p->pss_bytes, pss, sizeof(pss)),
		format_bytes(p->uss_bytes, uss, sizeof(uss)), format_count(p->threads_total, threads, sizeof(threads)),
		format_count(p->fds, fds, sizeof(fds)),
		format_count(p->voluntary_switches, voluntary, sizeof(voluntary)),
		format_count(p->involuntary_switches, involuntary, sizeof(involuntary)));
	printf(" samples=%" PRIu64 " torn=%" PRIu64 " discarded=%" PRIu64 " late=%" PRIu64, p->accuracy.samples,
		p->accuracy.torn, p->accuracy.discarded, p->accuracy.late);
	add_text("name=", p->process.name);
	putchar('\n');
}

static void print_thread(pid_t pid, const struct pyspyd_watch_thread *thread, time_t now) {
	begin_line("thread", now, pid);
	printf(" tid=%d state=%c cpu=%.1f%%", thread->tid, thread->state, thread->cpu_percent);
	if (thread->gil_percent >= 0)
		printf(" gil=%.0f%%", thread->gil_percent);
	printf(" switches=%" PRIu64 "/%" PRIu64, thread->voluntary_switches, thread->involuntary_switches);
	add_text("name=", thread->name);
	add_text("at=", thread->where);
	if (thread->exception) {
		add_text("exception=", thread->exception);
		printf(" in=%.0f%%", thread->exception_percent);
	}
	putchar('\n');
}

static int lines_report(const struct pyspyd_watch_process *processes, size_t n) {
	time_t now = time(NULL);

	for (const struct pyspyd_watch_process *p = processes; p < processes + n; p++) {
		if (p->ended) {
			begin_line("ended", now, p->process.pid);
			add_text("name=", p->process.name);
			putchar('\n');
			continue;
		}
		print_process(p, now);
		for (size_t i = 0; i < p->threads_n; i++)
			if (p->threads[i].cpu_percent >= SHOWN_CPU_PERCENT)
				print_thread(p->process.pid, &p->threads[i], now);
	}
	return flush();
}

static int lines_finding(const struct pyspyd_finding *finding) {
	begin_line("finding", (time_t)(finding->time_real_ns / NS_PER_SEC), finding->process.pid);
	printf(" kind=%s state=%s severity=%s id=%s", finding->kind, finding_state_word(finding->state),
		finding_severity_word(finding->severity), finding->id);
	add_text("", finding->summary);
	putchar('\n');
	return flush();
}

static int lines_value(const struct pyspyd_value *value) {
	begin_line("value", (time_t)(value->time_real_ns / NS_PER_SEC), value->process->pid);
	add_text("name=", value->name);
	if (value->error) {
		add_text("error=", value->error);
	} else {
		add_text("type=", value->type);
		if (value->length != UINT64_MAX)
			printf(" length=%" PRIu64, value->length);
		add_text("value=", value->value);
	}
	putchar('\n');
	return flush();
}

const struct watch_view watch_view_lines = {
	.report = lines_report,
	.finding = lines_finding,
	.value = lines_value,
	.end = nothing_to_end,
};
