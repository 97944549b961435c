/* SPDX-License-Identifier: MIT */
/* Starts an interpreter on roots_oracle.py and checks, from outside, by which paths objects are reached.
 * usage: roots_driver ORACLE COMMAND… — the lines are described in roots_oracle.py. */
#include "engine/base/clock.h"
#include "engine/leaks/roots.h"
#include "engine/proc/proc.h"
#include "tests/live/target.h"

#include <inttypes.h>
#include <string.h>
#include <sys/wait.h>

#define PATHS_MAX 8

struct test {
	struct proc proc;
	struct mem *mem;
	struct py_runtime rt;
	struct root_map *map;
	uint64_t build_ns, build_reads;
	uint64_t paths, steps, wrong;
};

static bool begin(struct test *t, pid_t pid) {
	struct err err = { 0 };
	int r = proc_open("/proc", pid, &t->proc);

	if (!r)
		r = mem_live_new(pid, &t->mem);
	if (!r)
		r = py_runtime_attach(&t->proc, t->mem, &t->rt, &err);
	if (!r) {
		t->build_ns = clock_mono_ns();
		t->build_reads = t->mem->reads;
		r = root_map_build(&t->rt, NULL, &t->map);
		t->build_ns = clock_mono_ns() - t->build_ns;
		t->build_reads = t->mem->reads - t->build_reads;
	}
	if (r)
		printf("not attached, or no map: %d %s\n", r, err.text);
	return !r;
}

static void expect(struct test *t, const char *what, int r, const struct strbuf *got, char *const *wanted, size_t n) {
	for (size_t i = 0; i < n; i++)
		if (r == PY_E_TYPE ? !strcmp(wanted[i], "-") : !r && !strcmp(strbuf_str(got), wanted[i]))
			return;
	t->wrong++;
	printf("%s: result %d, '%s' instead of '%s'\n", what, r, strbuf_str(got), wanted[0]);
}

static raddr address(const char *text) {
	return text ? strtoull(text, NULL, 16) : 0;
}

static void check(struct test *t, char *line) {
	_cleanup_(strbuf_deinit) struct strbuf got = { 0 };
	char *parts[PATHS_MAX] = { NULL }, *word;
	size_t n = 0;
	int r;

	while (n < PATHS_MAX && (word = strsep(&line, "\t")))
		parts[n++] = word;
	if (!strcmp(parts[0], "step") && n == 4) {
		t->steps++;
		r = root_step(&t->rt, address(parts[1]), address(parts[2]), &got);
		expect(t, "step", r, &got, parts + 3, 1);
	} else if (!strcmp(parts[0], "rest") && n == 4) {
		t->paths++;
		r = root_map_path_to(t->map, address(parts[1]), parts[2], &got);
		expect(t, "rest", r, &got, parts + 3, 1);
	} else if (!strcmp(parts[0], "path") && n > 2) {
		t->paths++;
		r = root_map_path(t->map, address(parts[1]), &got);
		expect(t, "path", r, &got, parts + 2, n - 2);
	} else {
		t->wrong++;
		printf("not understood: %s\n", parts[0]);
	}
}

static void run(struct test *t, FILE *in) {
	target_lines lines = { 0 };
	bool ready = target_read(in, &lines);

	if (ready && !strncmp(lines.items[0], "start\t", 6) && begin(t, (pid_t)atoi(lines.items[0] + 6))) {
		for (size_t i = 1; i + 1 < lines.n; i++)
			check(t, lines.items[i]);
	} else {
		printf("the interpreter ended early, or was not attached to\n");
		t->wrong++;
	}
	target_forget(&lines);
}

int main(int argc, char **argv) {
	struct test t = { .wrong = 0 };
	struct target target;

	if (argc < 3 || target_start(argv[1], argv + 2, &target)) {
		fprintf(stderr, "usage: roots_driver ORACLE COMMAND…\n");
		return 2;
	}
	run(&t, target.out);
	close(target.held);
	fclose(target.out);
	waitpid(target.pid, NULL, 0);
	printf("%" PRIu64 " paths, %" PRIu64 " steps, %" PRIu64 " wrong; ", t.paths, t.steps, t.wrong);
	printf("%zu objects in %" PRIu64 " reads, %.0f ms\n", t.map ? root_map_count(t.map) : 0, t.build_reads,
		(double)t.build_ns / NS_PER_MS);
	root_map_free(t.map);
	mem_free(t.mem);
	return t.wrong || !t.paths || !t.steps;
}
