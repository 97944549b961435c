/* SPDX-License-Identifier: MIT */
/* The text that Prometheus reads: every sample belongs to a family that was announced, labels are escaped, what is not
 * known is left out. */
#include "daemon/metrics.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define S(s) ((char *)(uintptr_t)(s)) /* nobody writes to them */

static struct pyspyd_watch_process processes[] = {
	{ .process = { .pid = 11, .name = S("a\"b\\c\nd\033e"), .unit = S("x.service"), .container = S("") },
		.rss_bytes = 4096,
		.private_bytes = UINT64_MAX,
		.cpu_ns = 1500000000,
		.fds = 3,
		.threads_total = 2 },
	{ .process = { .pid = 22, .name = S("busy"), .unit = S(""), .container = S("") },
		.rss_bytes = 1,
		.cpu_ns = 9000000000,
		.fds = UINT64_MAX },
	{ .process = { .pid = 33, .name = S("idle"), .unit = S(""), .container = S("") }, .findings_open = 1 },
	{ .process = { .pid = 44, .name = S("gone"), .unit = S(""), .container = S("") }, .ended = true },
};

static const struct sink_stats sinks[] = {
	{ .name = "journal", .delivered = 7, .queued = 2 },
	{ .name = "otlp", .away = true },
};

static const struct metrics_finding findings[] = { { "deadlock", "critical", 3, 1 } };

static char *text_of(unsigned processes_max, bool openmetrics) {
	const struct pyspyd_watch_health health = { .rate_hz = 12.5, .rate_asked_hz = 20 };
	const struct metrics_input input = {
		.processes = processes,
		.processes_n = 4,
		.health = &health,
		.sinks = sinks,
		.sinks_n = 2,
		.findings = findings,
		.findings_n = 1,
		.start_real_ns = 1700000000000000000,
	};

	return metrics_text(&input, processes_max, openmetrics);
}

static void check(const char *text, const char *line, bool there) {
	cr_assert_eq(strstr(text, line) != NULL, there, "%s: %s in\n%s", line, there ? "not" : "is", text);
}

Test(metrics, lines) {
	char *text = text_of(10, false);

	check(text,
		"pyspyd_process_cpu_seconds_total{pid=\"11\",name=\"a\\\"b\\\\c\\nd?e\",unit=\"x.service\",container="
		"\"\"} 1.5\n",
		true);
	check(text, "# TYPE pyspyd_process_cpu_seconds_total counter\n", true);
	check(text, "pyspyd_process_private_memory_bytes{pid=\"11\"", false);
	check(text, "pyspyd_process_open_fds{pid=\"22\"", false);
	check(text, "pid=\"44\"", false);
	check(text, "pyspyd_sample_rate_hertz 12.5\n", true);
	check(text, "pyspyd_sink_up{sink=\"otlp\"} 0\n", true);
	check(text, "pyspyd_sink_queue_length{sink=\"journal\"} 2\n", true);
	check(text, "pyspyd_findings_total{kind=\"deadlock\",severity=\"critical\"} 3\n", true);
	check(text, "pyspyd_findings_open{kind=\"deadlock\",severity=\"critical\"} 1\n", true);
	check(text, "# EOF", false);
	free(text);
}

Test(metrics, openmetrics) {
	char *text = text_of(10, true);

	check(text, "# TYPE pyspyd_process_cpu_seconds counter\n# UNIT pyspyd_process_cpu_seconds seconds\n", true);
	check(text, "# TYPE pyspyd_build info\n", true);
	cr_assert_str_eq(text + strlen(text) - 6, "# EOF\n");
	free(text);
}

Test(metrics, bounded_number_of_processes) {
	char *text = text_of(2, false);

	check(text, "pid=\"33\"", true); /* findings come first */
	check(text, "pid=\"22\"", true); /* then CPU */
	check(text, "pid=\"11\"", false);
	free(text);
}

/* Return: whether the sample on the line is of the family that was announced last. */
static bool belongs(const char *line, const char *family) {
	size_t n = strlen(family);

	return !strncmp(line, family, n) && (line[n] == ' ' || line[n] == '{');
}

Test(metrics, every_sample_has_its_family) {
	char *text = text_of(10, false), *state = NULL, family[128] = "";
	unsigned samples = 0;

	for (char *line = strtok_r(text, "\n", &state); line; line = strtok_r(NULL, "\n", &state)) {
		if (!strncmp(line, "# TYPE ", 7)) {
			cr_assert_eq(sscanf(line, "# TYPE %127s", family), 1);
		} else if (line[0] != '#') {
			cr_assert(belongs(line, family), "%s is not of %s", line, family);
			samples++;
		}
	}
	cr_assert_geq(samples, 50);
	free(text);
}

Test(metrics, refuses_what_is_no_address) {
	static const char *const wrong[] = { "localhost:80", "127.0.0.1", "127.0.0.1:x", "[::1:80", "1.2.3.4:70000",
		":80" };
	struct metrics *metrics;
	struct err err;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		cr_assert_eq(metrics_new(wrong[i], 1, &metrics, &err), -EINVAL, "%s", wrong[i]);
}
