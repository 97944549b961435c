/* SPDX-License-Identifier: MIT */
/* Starts an interpreter on tracemalloc_oracle.py and compares, look by look, what it says of tracemalloc and of its
 * collector with what is read from outside. Its account comes before it waits: what differs is read again, for a
 * while. usage: tracemalloc_driver ORACLE COMMAND… — the lines are described in
 * tracemalloc_oracle.py. Where tracemalloc's variables cannot be found (to 3.11, without symbols), that must be the
 * answer. */
#include "engine/base/clock.h"
#include "engine/base/strbuf.h"
#include "engine/base/vec.h"
#include "engine/cpython/collector.h"
#include "engine/cpython/tracemalloc.h"
#include "engine/proc/proc.h"
#include "tests/live/target.h"

#include <inttypes.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#define SETTLE_NS (30 * NS_PER_SEC) /* on a machine that is busy */
#define STEP_NS (10 * NS_PER_MS)
#define TELLING_BYTES (1 << 20) /* what the oracle allocates at most between its account and the look */

struct test {
	struct proc proc;
	struct mem *mem;
	struct py_runtime rt;
	bool found;         /* tracemalloc's variables */
	struct strbuf said; /* what was wrong at the last try */
	uint64_t looks, again, lines, blocks, most_blocks, most_ms, wrong;
};

struct told {
	VEC(struct py_traced_line) lines;
	struct py_collector collector;
	int tracing;
	uint64_t current, peak;
};

static int begin(struct test *t, pid_t pid) {
	struct err err = { 0 };
	int r = proc_open("/proc", pid, &t->proc);

	if (!r)
		r = mem_live_new(pid, &t->mem);
	if (!r)
		r = py_runtime_attach(&t->proc, t->mem, &t->rt, &err);
	if (r)
		printf("not attached: %d %s\n", r, err.text);
	t->found = layout_has(t->rt.reader.layout.runtime_traces) || t->rt.statics.traces;
	return r;
}

static void take_collector(struct told *told, const char *fields) {
	struct py_collector *c = &told->collector;
	char *at = NULL;

	c->enabled = strtol(fields, &at, 10);
	c->collecting = strtol(at, &at, 10);
	for (int i = 0; i < PY_GENERATIONS; i++) {
		c->generations[i].collections = strtoull(at, &at, 10);
		c->generations[i].collected = strtoull(at, &at, 10);
		c->generations[i].uncollectable = strtoull(at, &at, 10);
	}
}

static void take_line(struct told *told, const char *fields) {
	struct py_traced_line line = { 0 };
	char *at = NULL;

	line.count = strtoull(fields, &at, 10);
	line.bytes = strtoull(at, &at, 10);
	line.line = (uint32_t)strtoul(at, &at, 10);
	line.file = strdup(at + 1);
	if (!line.file || vec_push(&told->lines, line))
		exit(1);
}

static void take(struct told *told, char *text) {
	char *kind = strsep(&text, " ");

	if (!text)
		return;
	if (!strcmp(kind, "gc"))
		take_collector(told, text);
	else if (!strcmp(kind, "traced"))
		told->tracing = atoi(text);
	else if (!strcmp(kind, "memory"))
		sscanf(text, "%" SCNu64 " %" SCNu64, &told->current, &told->peak);
	else if (!strcmp(kind, "line"))
		take_line(told, text);
}

static void forget(struct told *told) {
	vec_foreach (line, &told->lines)
		free(line->file);
	vec_free(&told->lines);
	*told = (struct told){ 0 };
}

#define wrong(t, format, ...) \
	do { \
		(t)->wrong++; \
		strbuf_addf(&(t)->said, "look %" PRIu64 ": " format "\n", (t)->looks, ##__VA_ARGS__); \
	} while (0)

static void check_collector(struct test *t, const struct told *told) {
	struct py_collector c = { 0 };
	int r = py_collector_read(&t->rt, &c);
	bool found = layout_has(t->rt.reader.layout.gc_size) || t->rt.statics.gc_stats;

	if (r || !found) {
		if (found || r != PY_E_TYPE)
			wrong(t, "collector: result %d", r);
		return;
	}
	if (c.enabled != told->collector.enabled || c.collecting != told->collector.collecting)
		wrong(t, "collector: enabled %d, collecting %d", c.enabled, c.collecting);
	for (int i = 0; i < PY_GENERATIONS; i++)
		if (memcmp(&c.generations[i], &told->collector.generations[i], sizeof(c.generations[i])))
			wrong(t,
				"generation %d: %" PRIu64 " %" PRIu64 " %" PRIu64 " instead of %" PRIu64 " %" PRIu64
				" %" PRIu64,
				i, c.generations[i].collections, c.generations[i].collected,
				c.generations[i].uncollectable, told->collector.generations[i].collections,
				told->collector.generations[i].collected, told->collector.generations[i].uncollectable);
}

static const struct py_traced_line *find(const struct py_traced *traced, const struct py_traced_line *line) {
	vec_foreach (each, &traced->lines)
		if (each->line == line->line && !strcmp(each->file, line->file))
			return each;
	return NULL;
}

static bool is_near(uint64_t a, uint64_t b) {
	return (a > b ? a - b : b - a) <= TELLING_BYTES;
}

static void check_sums(struct test *t, const struct py_traced *traced, const struct told *told) {
	uint64_t bytes = 0, blocks = 0, before = UINT64_MAX, known = 0;

	vec_foreach (line, &traced->lines) {
		bytes += line->bytes;
		blocks += line->count;
		known += !strncmp(line->file, "/known/", 7);
		if (line->bytes > before)
			wrong(t, "not sorted");
		before = line->bytes;
	}
	if (traced->incomplete)
		wrong(t, "incomplete");
	if (bytes != traced->traced_bytes || blocks != traced->blocks || known != told->lines.n)
		wrong(t,
			"%" PRIu64 " bytes, %" PRIu64 " blocks, %" PRIu64 " known lines; instead of %" PRIu64
			", %" PRIu64 ", %zu",
			bytes, blocks, known, traced->traced_bytes, traced->blocks, told->lines.n);
	if (!is_near(traced->traced_bytes, told->current) || !is_near(traced->peak_bytes, told->peak))
		wrong(t, "traced %" PRIu64 ", peak %" PRIu64 "; it says %" PRIu64 ", %" PRIu64, traced->traced_bytes,
			traced->peak_bytes, told->current, told->peak);
}

static void check_lines(struct test *t, const struct py_traced *traced, const struct told *told) {
	vec_foreach (line, &told->lines) {
		const struct py_traced_line *got = find(traced, line);

		t->lines++;
		if (!got || got->count != line->count || got->bytes != line->bytes)
			wrong(t, "%s:%u: %" PRIu64 " blocks, %" PRIu64 " bytes instead of %" PRIu64 ", %" PRIu64,
				line->file, line->line, got ? got->count : 0, got ? got->bytes : 0, line->count,
				line->bytes);
	}
}

static void check_traced(struct test *t, const struct told *told) {
	struct py_traced traced = { 0 };
	uint64_t start = clock_mono_ns();
	int r = py_traced_read(&t->rt, &traced);

	if (r || !told->tracing || !t->found) {
		if (r != PY_E_TYPE || (told->tracing && t->found))
			wrong(t, "tracemalloc: result %d, it runs: %d", r, told->tracing);
	} else {
		t->blocks += traced.blocks;
		if (traced.blocks > t->most_blocks) {
			t->most_blocks = traced.blocks;
			t->most_ms = (clock_mono_ns() - start) / NS_PER_MS;
		}
		check_sums(t, &traced, told);
		check_lines(t, &traced, told);
	}
	py_traced_deinit(&traced);
}

static void check(struct test *t, const struct told *told) {
	struct test before = *t;
	uint64_t end = clock_mono_ns() + SETTLE_NS;

	for (;;) {
		*t = before;
		strbuf_deinit(&t->said);
		check_collector(t, told);
		check_traced(t, told);
		if (!t->wrong || clock_mono_ns() >= end)
			return;
		before.again++;
		nanosleep(&(struct timespec){ .tv_nsec = STEP_NS }, NULL);
	}
}

static void run(struct test *t, struct target *target) {
	char *line = NULL;
	size_t size = 0;
	struct told told = { 0 };

	if (getline(&line, &size, target->out) <= 0 || strncmp(line, "start ", 6) || begin(t, target->pid))
		wrong(t, "not started");
	while (!t->wrong && getline(&line, &size, target->out) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (strcmp(line, "ready")) {
			take(&told, line);
			continue;
		}
		t->looks++;
		check(t, &told);
		forget(&told);
		if (write(target->held, "", 1) != 1)
			break;
	}
	forget(&told);
	free(line);
}

int main(int argc, char **argv) {
	struct test t = { .wrong = 0 };
	struct target target;

	if (argc < 3 || target_start(argv[1], argv + 2, &target)) {
		fprintf(stderr, "usage: tracemalloc_driver ORACLE COMMAND…\n");
		return 2;
	}
	run(&t, &target);
	close(target.held);
	fclose(target.out);
	waitpid(target.pid, NULL, 0);
	printf("%s%" PRIu64 " looks, %" PRIu64 " lines, %" PRIu64 " blocks (%" PRIu64 " in %" PRIu64 " ms), %" PRIu64
	       " read again, %" PRIu64 " wrong%s\n",
		strbuf_str(&t.said), t.looks, t.lines, t.blocks, t.most_blocks, t.most_ms, t.again, t.wrong,
		t.found ? "" : "; tracemalloc's variables have no symbols");
	strbuf_deinit(&t.said);
	mem_free(t.mem);
	return t.wrong || t.looks < 6;
}
