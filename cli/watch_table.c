/* SPDX-License-Identifier: MIT */
/* The live view of `pyspyd watch`: a table that is drawn over itself on the terminal's second screen. Every line is cut
 * to the width and the whole to the height of the moment. What was found is printed again on the first screen at the
 * end, where it stays. */
#include "cli/watch_view.h"

#include "cli/cli.h"
#include "cli/format.h"
#include "cli/term.h"
#include "pyspyd/text.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ENTER_SCREEN "\033[?1049h\033[?25l\033[2J"
#define LEAVE_SCREEN "\033[?25h\033[?1049l"
#define BOLD "\033[1m"
#define KEPT_MAX 32 /* findings remembered, the oldest goes first */
#define VALUES_MAX 64
#define FINDING_LINES 6 /* of the screen, with their heading */
#define NAME_COLUMNS 15
#define MANY_THREADS 3 /* shown of each process where there are several */

/* The last event of one finding. */
struct kept {
	char id[sizeof(((struct pyspyd_finding *)0)->id)];
	enum pyspyd_severity severity;
	char *line; /* one line, printable */
	char *text; /* whole, printable */
};

/* Of the present report, printable. */
static char *values[VALUES_MAX];
static size_t values_n;

static struct kept kept[KEPT_MAX];
static size_t kept_n;
static bool entered;

struct frame {
	FILE *out;
	int columns;
	int rows_left;
};

static void __attribute__((format(printf, 3, 4)))
add_line(struct frame *frame, const char *colour, const char *format, ...) {
	_free_ char *line = NULL;
	va_list args;
	int n;

	if (frame->rows_left <= 0)
		return;
	va_start(args, format);
	n = vasprintf(&line, format, args);
	va_end(args);
	if (n < 0) {
		line = NULL;
		return;
	}
	frame->rows_left--;
	fprintf(frame->out, "%s%.*s%s\033[K%s", colour, (int)term_fit(line, frame->columns), line,
		*colour ? "\033[0m" : "", frame->rows_left > 0 ? "\r\n" : "");
}

static void add_header(struct frame *frame, const struct pyspyd_watch_process *processes, size_t n) {
	uint64_t samples = 0, torn = 0, discarded = 0, late = 0;
	const struct pyspyd_accuracy *first = &processes[0].accuracy;
	time_t now = time(NULL);
	char clock[16];
	struct tm local;

	for (size_t i = 0; i < n; i++) {
		samples += processes[i].accuracy.samples;
		torn += processes[i].accuracy.torn;
		discarded += processes[i].accuracy.discarded;
		late += processes[i].accuracy.late;
	}
	localtime_r(&now, &local);
	strftime(clock, sizeof(clock), "%H:%M:%S", &local);
	add_line(frame, "",
		"pyspyd %s  %zu process%s  samples %" PRIu64 " torn %" PRIu64 " discarded %" PRIu64 " late %" PRIu64
		"  (%s, %s)",
		clock, n, n == 1 ? "" : "es", samples, torn, discarded, late, n && first->source ? first->source : "-",
		n && first->priority ? first->priority : "-");
}

/* "f (/long/way/to/a.py:7)" is said as "f (a.py:7)", so that the line survives the cut at the edge. */
static void drop_folders(char *where) {
	char *open = strstr(where, " (");
	char *slash = strrchr(where, '/');

	if (open && slash && slash > open)
		memmove(open + 2, slash + 1, strlen(slash + 1) + 1);
}

/* "  ValueError in 12 %", what a busy thread raises and handles; the caller's to free(). */
static char *exception_of(const struct pyspyd_watch_thread *thread) {
	_free_ char *type = thread->exception ? pyspyd_printable(thread->exception) : NULL;
	char *text;

	if (!type || asprintf(&text, "  %s in %.0f %%", type, thread->exception_percent) < 0)
		return NULL;
	return text;
}

static void add_thread(struct frame *frame, const struct pyspyd_watch_thread *thread) {
	_free_ char *exception = exception_of(thread);
	_free_ char *name = pyspyd_printable(thread->name ? thread->name : "");
	_free_ char *where = pyspyd_printable(thread->where ? thread->where : "");
	char gil[16] = "-";
	int pad;

	if (!name || !where)
		return;
	drop_folders(where);
	if (thread->gil_percent >= 0)
		snprintf(gil, sizeof(gil), "%.0f", thread->gil_percent);
	name[term_fit(name, NAME_COLUMNS)] = '\0';
	pad = NAME_COLUMNS - term_width(name);
	add_line(frame, "", "%8d %c %5.1f %4s %7" PRIu64 " %7" PRIu64 "  %s%*s %s%s", thread->tid, thread->state,
		thread->cpu_percent, gil, thread->voluntary_switches, thread->involuntary_switches, name, pad, "",
		where, exception ? exception : "");
}

static void add_process(struct frame *frame, const struct pyspyd_watch_process *p, size_t threads_max) {
	char rss[16], pss[16], uss[16], threads[24], fds[24], voluntary[24], involuntary[24];
	_free_ char *command = format_cmdline(&p->process);
	size_t shown = p->threads_n < threads_max ? p->threads_n : threads_max;

	add_line(frame, "", "%s", "");
	add_line(frame, BOLD, "%d  %s%s", p->process.pid, command ? command : "", p->ended ? "  (ended)" : "");
	add_line(frame, "", "  Python %s  CPU %.1f %%  RSS %s  PSS %s  USS %s",
		p->process.python ? p->process.python : "?", p->cpu_percent,
		format_bytes(p->rss_bytes, rss, sizeof(rss)), format_bytes(p->pss_bytes, pss, sizeof(pss)),
		format_bytes(p->uss_bytes, uss, sizeof(uss)));
	add_line(frame, "", "  threads %s  descriptors %s  switches %s voluntary, %s involuntary",
		format_count(p->threads_total, threads, sizeof(threads)), format_count(p->fds, fds, sizeof(fds)),
		format_count(p->voluntary_switches, voluntary, sizeof(voluntary)),
		format_count(p->involuntary_switches, involuntary, sizeof(involuntary)));
	if (shown)
		add_line(frame, "", "     TID S  CPU%% GIL%%     VOL   INVOL  %-*s WHERE", NAME_COLUMNS, "NAME");
	for (size_t i = 0; i < shown; i++)
		add_thread(frame, &p->threads[i]);
}

static void add_values(struct frame *frame) {
	if (values_n)
		add_line(frame, "", "%s", "");
	for (size_t i = 0; i < values_n; i++)
		add_line(frame, "", "%s", values[i]);
}

static void forget_values(void) {
	while (values_n)
		free(values[--values_n]);
}

static void add_findings(struct frame *frame) {
	static const char *const colours[] = { "", "\033[33m", "\033[31m" };

	if (!kept_n)
		return;
	add_line(frame, "", "%s", "");
	for (size_t i = kept_n; i-- > 0;)
		add_line(frame, colours[kept[i].severity], "%s", kept[i].line);
}

static int draw(const struct pyspyd_watch_process *processes, size_t n, char **ret_text) {
	struct term_size size = term_size_of(STDOUT_FILENO);
	int reserved = kept_n ? (kept_n + 1 < FINDING_LINES ? (int)kept_n + 1 : FINDING_LINES) : 0;
	struct frame frame = { .columns = size.columns, .rows_left = size.rows - reserved };
	size_t len;

	frame.out = open_memstream(ret_text, &len);
	if (!frame.out)
		return VIEW_E_OUTPUT;
	fputs("\033[H", frame.out);
	if (n)
		add_header(&frame, processes, n);
	add_values(&frame);
	for (size_t i = 0; i < n; i++)
		add_process(&frame, &processes[i], n == 1 ? SIZE_MAX : MANY_THREADS);
	if (reserved && frame.rows_left <= 0)
		fputs("\r\n", frame.out);
	frame.rows_left += reserved;
	add_findings(&frame);
	fputs("\033[J", frame.out);
	return fclose(frame.out) ? VIEW_E_OUTPUT : 0;
}

static int table_report(const struct pyspyd_watch_process *processes, size_t n) {
	_free_ char *text = NULL;
	int r = draw(processes, n, &text);

	forget_values();
	if (r)
		return r;
	if (!entered)
		fputs(ENTER_SCREEN, stdout);
	entered = true;
	fputs(text, stdout);
	return fflush(stdout) == EOF ? VIEW_E_OUTPUT : 0;
}

static void forget(struct kept *one) {
	free(one->line);
	free(one->text);
	*one = (struct kept){ 0 };
}

/* Return: where the finding's last event goes; older ones of the same id are replaced. */
static struct kept *place_for(const struct pyspyd_finding *finding) {
	for (size_t i = 0; i < kept_n; i++) {
		if (!strcmp(kept[i].id, finding->id)) {
			forget(&kept[i]);
			return &kept[i];
		}
	}
	if (kept_n == KEPT_MAX) {
		forget(&kept[0]);
		memmove(&kept[0], &kept[1], (KEPT_MAX - 1) * sizeof(kept[0]));
		kept_n--;
	}
	return &kept[kept_n++];
}

static int table_finding(const struct pyspyd_finding *finding) {
	struct kept *one = place_for(finding);
	_free_ char *summary = pyspyd_printable(finding->summary ? finding->summary : "");

	*one = (struct kept){ .severity = finding->state == PYSPYD_RESOLVED ? PYSPYD_INFO : finding->severity };
	memcpy(one->id, finding->id, sizeof(one->id));
	one->text = pyspyd_finding_text(finding, true);
	if (asprintf(&one->line, "%-8s %d  %s", finding_state_word(finding->state), finding->process.pid,
		    summary ? summary : "") < 0)
		one->line = NULL;
	if (one->text && one->line)
		return 0;
	forget(one);
	one->line = strdup("");
	one->text = strdup("");
	return one->text && one->line ? 0 : VIEW_E_OUTPUT;
}

static char *value_line(const struct pyspyd_value *value) {
	char length[32] = "";
	char *line;

	if (value->length != UINT64_MAX)
		snprintf(length, sizeof(length), "%" PRIu64 "  ", value->length);
	if (asprintf(&line, "%d  %s  %s  %s%s", value->process->pid, value->name, value->error ? "?" : value->type,
		    length, value->error ? value->error : value->value) < 0)
		return NULL;
	return line;
}

static int table_value(const struct pyspyd_value *value) {
	_free_ char *line = value_line(value);

	if (values_n == VALUES_MAX)
		return 0;
	values[values_n] = line ? pyspyd_printable(line) : NULL;
	if (!values[values_n])
		return VIEW_E_OUTPUT;
	values_n++;
	return 0;
}

static void table_end(void) {
	if (entered)
		fputs(LEAVE_SCREEN, stdout);
	entered = false;
	forget_values();
	for (size_t i = 0; i < kept_n; i++) {
		if (kept[i].text && kept[i].text[0])
			cli_print(kept[i].text);
		forget(&kept[i]);
	}
	kept_n = 0;
	fflush(stdout);
}

const struct watch_view watch_view_table = {
	.report = table_report,
	.finding = table_finding,
	.value = table_value,
	.end = table_end,
};
