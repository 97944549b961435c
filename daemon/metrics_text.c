/* SPDX-License-Identifier: MIT */
/* Families in the order of a table; in each, a line for each of what it is about. Both formats differ in the names of
 * counters' families and in the last line. */
#include "daemon/metrics.h"

#include "pyspyd/version.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct text {
	FILE *out;
	bool openmetrics;
	const struct metrics_input *input;
	const struct pyspyd_watch_process **processes; /* those that are shown */
	size_t processes_n;
};

enum type { GAUGE, COUNTER, INFO };

/* `name` of a counter is without "_total". */
static void family(struct text *text, const char *name, enum type type, const char *unit, const char *help) {
	static const char *const types[] = { "gauge", "counter", "info" };
	const char *suffix = text->openmetrics ? "" : type == COUNTER ? "_total" : type == INFO ? "_info" : "";
	const char *type_name = type == INFO && !text->openmetrics ? "gauge" : types[type];

	fprintf(text->out, "# TYPE %s%s %s\n", name, suffix, type_name);
	if (unit && text->openmetrics)
		fprintf(text->out, "# UNIT %s %s\n", name, unit);
	fprintf(text->out, "# HELP %s%s %s\n", name, suffix, help);
}

/* Backslash, quote and newline have an escape; what is no printable ASCII and no UTF-8 lead or tail becomes '?'. */
static void label(struct text *text, const char *key, const char *value, bool *first) {
	fprintf(text->out, "%s%s=\"", *first ? "{" : ",", key);
	*first = false;
	for (const char *c = value ? value : ""; *c; c++) {
		if (*c == '\\' || *c == '"')
			fprintf(text->out, "\\%c", *c);
		else if (*c == '\n')
			fputs("\\n", text->out);
		else
			fputc((unsigned char)*c < ' ' || *c == 0x7f ? '?' : *c, text->out);
	}
	fputc('"', text->out);
}

static void value(struct text *text, double number) {
	if (number == (double)(uint64_t)number && number < 1e15)
		fprintf(text->out, " %" PRIu64 "\n", (uint64_t)number);
	else
		fprintf(text->out, " %.9g\n", number);
}

static void plain(
	struct text *text, const char *name, enum type type, const char *unit, const char *help, double number) {
	family(text, name, type, unit, help);
	fprintf(text->out, "%s%s", name, type == COUNTER ? "_total" : "");
	value(text, number);
}

/* Processes */

static double of_cpu(const struct pyspyd_watch_process *p) {
	return (double)p->cpu_ns / 1e9;
}

static double known(uint64_t number) {
	return number == UINT64_MAX ? -1 : (double)number;
}

static double of_rss(const struct pyspyd_watch_process *p) {
	return known(p->rss_bytes);
}

static double of_private(const struct pyspyd_watch_process *p) {
	return known(p->private_bytes);
}

static double of_fds(const struct pyspyd_watch_process *p) {
	return known(p->fds);
}

static double of_threads(const struct pyspyd_watch_process *p) {
	return known(p->threads_total);
}

static double of_findings(const struct pyspyd_watch_process *p) {
	return p->findings_open;
}

static const struct {
	const char *name, *unit, *help;
	enum type type;
	double (*of)(const struct pyspyd_watch_process *process); /* negative: not known */
} process_families[] = {
	{ "pyspyd_process_cpu_seconds", "seconds", "CPU time that a process has used since it started.", COUNTER,
		of_cpu },
	{ "pyspyd_process_resident_memory_bytes", "bytes", "Resident memory of a process.", GAUGE, of_rss },
	{ "pyspyd_process_private_memory_bytes", "bytes", "Anonymous memory of a process, in RAM or swap.", GAUGE,
		of_private },
	{ "pyspyd_process_open_fds", NULL, "Open file descriptors of a process.", GAUGE, of_fds },
	{ "pyspyd_process_threads", NULL, "Threads of a process.", GAUGE, of_threads },
	{ "pyspyd_process_findings_open", NULL, "Findings about a process that are open.", GAUGE, of_findings },
};

static void processes(struct text *text) {
	for (size_t i = 0; i < sizeof(process_families) / sizeof(process_families[0]); i++) {
		family(text, process_families[i].name, process_families[i].type, process_families[i].unit,
			process_families[i].help);
		for (size_t k = 0; k < text->processes_n; k++) {
			const struct pyspyd_watch_process *process = text->processes[k];
			double number = process_families[i].of(process);
			bool first = true;
			char pid[16];

			if (number < 0)
				continue;
			snprintf(pid, sizeof(pid), "%d", (int)process->process.pid);
			fprintf(text->out, "%s%s", process_families[i].name,
				process_families[i].type == COUNTER ? "_total" : "");
			label(text, "pid", pid, &first);
			label(text, "name", process->process.name, &first);
			label(text, "unit", process->process.unit, &first);
			label(text, "container", process->process.container, &first);
			fputc('}', text->out);
			value(text, number);
		}
	}
}

/* Findings, sinks */

static void findings(struct text *text) {
	const struct metrics_input *input = text->input;

	for (int open = 0; open < 2; open++) {
		if (open)
			family(text, "pyspyd_findings_open", GAUGE, NULL, "Findings that are open.");
		else
			family(text, "pyspyd_findings", COUNTER, NULL, "Findings that were opened.");
		for (size_t i = 0; i < input->findings_n; i++) {
			bool first = true;

			fputs(open ? "pyspyd_findings_open" : "pyspyd_findings_total", text->out);
			label(text, "kind", input->findings[i].kind, &first);
			label(text, "severity", input->findings[i].severity, &first);
			fputc('}', text->out);
			value(text, (double)(open ? input->findings[i].open : input->findings[i].total));
		}
	}
}

static double of_delivered(const struct sink_stats *s) {
	return (double)s->delivered;
}

static double of_dropped(const struct sink_stats *s) {
	return (double)s->dropped;
}

static double of_held_back(const struct sink_stats *s) {
	return (double)s->held_back;
}

static double of_failures(const struct sink_stats *s) {
	return (double)s->failures;
}

static double of_queued(const struct sink_stats *s) {
	return (double)s->queued;
}

static double of_up(const struct sink_stats *s) {
	return !s->away;
}

static const struct {
	const char *name, *help;
	enum type type;
	double (*of)(const struct sink_stats *sink);
} sink_families[] = {
	{ "pyspyd_sink_events_delivered", "Events that a sink has delivered.", COUNTER, of_delivered },
	{ "pyspyd_sink_events_dropped", "Events that a sink will never deliver.", COUNTER, of_dropped },
	{ "pyspyd_sink_events_held_back", "Events beyond the rate limit of a sink.", COUNTER, of_held_back },
	{ "pyspyd_sink_failures", "Deliveries that failed and are tried again.", COUNTER, of_failures },
	{ "pyspyd_sink_queue_length", "Events that wait for a sink.", GAUGE, of_queued },
	{ "pyspyd_sink_up", "Whether the other side of a sink is there.", GAUGE, of_up },
};

static void sinks(struct text *text) {
	for (size_t i = 0; i < sizeof(sink_families) / sizeof(sink_families[0]); i++) {
		family(text, sink_families[i].name, sink_families[i].type, NULL, sink_families[i].help);
		for (size_t k = 0; k < text->input->sinks_n; k++) {
			bool first = true;

			fprintf(text->out, "%s%s", sink_families[i].name,
				sink_families[i].type == COUNTER ? "_total" : "");
			label(text, "sink", text->input->sinks[k].name, &first);
			fputc('}', text->out);
			value(text, sink_families[i].of(&text->input->sinks[k]));
		}
	}
}

/* The service itself */

static void itself(struct text *text) {
	struct rusage usage = { 0 };
	bool first = true;

	getrusage(RUSAGE_SELF, &usage);
	family(text, "pyspyd_build", INFO, NULL, "Which pyspyd this is.");
	fputs("pyspyd_build_info", text->out);
	label(text, "version", PYSPYD_VERSION, &first);
	fputs("} 1\n", text->out);
	plain(text, "pyspyd_start_time_seconds", GAUGE, "seconds", "When the service started, in seconds since 1970.",
		(double)text->input->start_real_ns / 1e9);
	plain(text, "pyspyd_cpu_seconds", COUNTER, "seconds", "CPU time that the service has used.",
		(double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
			(double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
}

static void health(struct text *text) {
	const struct pyspyd_watch_health *h = text->input->health;

	if (!h)
		return;
	plain(text, "pyspyd_resident_memory_bytes", GAUGE, "bytes", "Resident memory of the service.",
		(double)h->memory_bytes);
	plain(text, "pyspyd_sample_rate_hertz", GAUGE, "hertz", "Samples of each thread a second.", h->rate_hz);
	plain(text, "pyspyd_sample_rate_configured_hertz", GAUGE, "hertz", "Samples a second that were asked for.",
		h->rate_asked_hz);
	plain(text, "pyspyd_budget_exceeded_intervals", GAUGE, NULL,
		"Intervals in a row beyond the budget of CPU or memory.", h->over_budget);
	plain(text, "pyspyd_watched_processes", GAUGE, NULL, "Processes that are watched.", (double)h->processes);
	plain(text, "pyspyd_watched_threads", GAUGE, NULL, "Threads that are watched.", (double)h->threads);
	plain(text, "pyspyd_denied_processes", GAUGE, NULL, "Processes that may not be read.",
		(double)h->processes_denied);
	plain(text, "pyspyd_process_events", COUNTER, NULL, "Execs, forks and exits that the kernel told of.",
		(double)h->events_received);
	plain(text, "pyspyd_process_events_lost", COUNTER, NULL,
		"Such events that were lost; a scan makes good for them.", (double)h->events_lost);
	plain(text, "pyspyd_process_events_enabled", GAUGE, NULL,
		"Whether the kernel tells of processes; else they are searched.", h->events);
	plain(text, "pyspyd_samples", COUNTER, NULL, "Samples that were counted.", (double)h->accuracy.samples);
	plain(text, "pyspyd_samples_idle", COUNTER, NULL, "Samples of threads that had not run.",
		(double)h->accuracy.idle);
	plain(text, "pyspyd_samples_torn", COUNTER, NULL, "Samples that did not fit together.",
		(double)h->accuracy.torn);
	plain(text, "pyspyd_samples_discarded", COUNTER, NULL, "Samples that were thrown away.",
		(double)h->accuracy.discarded);
	plain(text, "pyspyd_samples_late", COUNTER, NULL, "Samples that came too late.", (double)h->accuracy.late);
	plain(text, "pyspyd_samples_unreadable", COUNTER, NULL, "Samples whose memory could not be read.",
		(double)h->accuracy.unreadable);
	plain(text, "pyspyd_samples_unknown", COUNTER, NULL,
		"Interrupts in which a watched process ran a thread that has no Python.", (double)h->accuracy.unknown);
	plain(text, "pyspyd_looks_expected", COUNTER, NULL, "Looks, or interrupts of all CPUs, that should have been.",
		(double)h->accuracy.expected);
	plain(text, "pyspyd_looks", COUNTER, NULL, "Looks, or interrupts of all CPUs, that there were.",
		(double)h->accuracy.looks);
}

static void store_and_socket(struct text *text) {
	const struct metrics_input *input = text->input;

	plain(text, "pyspyd_store_size_bytes", GAUGE, "bytes", "The store on disk.", (double)input->store.bytes);
	plain(text, "pyspyd_store_events", GAUGE, NULL, "Events in the store.", (double)input->store.events);
	plain(text, "pyspyd_store_profiles", GAUGE, NULL, "Profiles in the store.", (double)input->store.profiles);
	plain(text, "pyspyd_store_failures", COUNTER, NULL, "Writes that the store refused.",
		(double)input->store.lost);
	plain(text, "pyspyd_socket_connections", COUNTER, NULL, "Clients that came.",
		(double)input->server.connections);
	plain(text, "pyspyd_socket_refused", COUNTER, NULL, "Clients and requests beyond a limit.",
		(double)input->server.refused);
	plain(text, "pyspyd_socket_requests", COUNTER, NULL, "Requests.", (double)input->server.requests);
	plain(text, "pyspyd_socket_clients", GAUGE, NULL, "Clients that are there.", input->server.open);
}

static int by_use(const void *a, const void *b) {
	const struct pyspyd_watch_process *x = *(const struct pyspyd_watch_process *const *)a,
					  *y = *(const struct pyspyd_watch_process *const *)b;

	if (x->findings_open != y->findings_open)
		return (x->findings_open < y->findings_open) - (x->findings_open > y->findings_open);
	return (x->cpu_ns < y->cpu_ns) - (x->cpu_ns > y->cpu_ns);
}

/* Those with findings, then those that have used most CPU. */
static bool choose(struct text *text, unsigned processes_max) {
	const struct metrics_input *input = text->input;

	text->processes = calloc(input->processes_n + 1, sizeof(*text->processes));
	if (!text->processes)
		return false;
	for (size_t i = 0; i < input->processes_n; i++)
		if (!input->processes[i].ended)
			text->processes[text->processes_n++] = &input->processes[i];
	qsort(text->processes, text->processes_n, sizeof(*text->processes), by_use);
	if (text->processes_n > processes_max)
		text->processes_n = processes_max;
	return true;
}

char *metrics_text(const struct metrics_input *input, unsigned processes_max, bool openmetrics) {
	struct text text = { .openmetrics = openmetrics, .input = input };
	char *buf = NULL;
	size_t len = 0;
	bool ok;

	text.out = open_memstream(&buf, &len);
	if (!text.out)
		return NULL;
	ok = choose(&text, processes_max);
	if (ok) {
		itself(&text);
		health(&text);
		findings(&text);
		sinks(&text);
		store_and_socket(&text);
		processes(&text);
		if (openmetrics)
			fputs("# EOF\n", text.out);
	}
	free(text.processes);
	if (fclose(text.out) || !ok) {
		free(buf);
		return NULL;
	}
	return buf;
}
