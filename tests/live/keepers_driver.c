/* SPDX-License-Identifier: MIT */
/* Starts an interpreter on keepers_oracle.py and checks, from outside, what keeps the objects that it tells of. usage:
 * keepers_driver ORACLE COMMAND… — the lines are described in keepers_oracle.py. */
#include "engine/base/clock.h"
#include "engine/leaks/keepers.h"
#include "engine/proc/proc.h"
#include "tests/live/target.h"

#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define TARGETS_MAX 64
#define SEARCH_NS (60 * NS_PER_SEC)

struct told {
	char *line, *name, *roots, *path;
	uint64_t length;
};

struct test {
	struct proc proc;
	struct mem *mem;
	struct py_runtime rt;
	struct census census;
	struct told told[TARGETS_MAX];
	raddr objects[TARGETS_MAX];
	size_t n;
	uint64_t wrong;
};

static const char *root_name(enum keeper_root root) {
	static const char *const names[] = { "unknown", "python", "static", "native", "stack", "cycle" };

	return names[root];
}

/* Whether one of the parts of `list` is the text. */
static bool is_one_of(const char *list, const char *separator, const char *text) {
	_free_ char *copy = strdup(list);
	char *rest = copy, *part;

	while ((part = strsep(&rest, separator)))
		if (!strcmp(part, text) || !strcmp(part, "*"))
			return true;
	return false;
}

static uint64_t length_of(const struct census *census, raddr container) {
	vec_foreach (item, &census->containers)
		if (item->addr == container)
			return item->length;
	return 0;
}

static void check(struct test *t, const struct told *told, const struct keeper *keeper) {
	uint64_t length = length_of(&t->census, keeper->container);
	const char *path = keeper->path ? keeper->path : "(none)";

	if (is_one_of(told->roots, ",", root_name(keeper->root)) && is_one_of(told->path, "|", path) &&
		(length == told->length || strcmp(root_name(keeper->root), "python")) &&
		!keeper->container == !keeper->container_path)
		return;
	t->wrong++;
	printf("%s: %s %s, in %s of %" PRIu64 " items; told: %s %s, %" PRIu64 "\n", told->name, root_name(keeper->root),
		path, keeper->container_path ? keeper->container_path : "nothing", length, told->roots, told->path,
		told->length);
}

static int look(struct test *t) {
	const struct keeper_limits limits = { .until_ns = clock_mono_ns() + SEARCH_NS };
	struct keeper keepers[TARGETS_MAX];
	proc_map_vec maps = { 0 };
	uint64_t start = clock_mono_ns(), counted;
	struct rusage usage;
	int r = proc_maps_read(&t->proc, &maps);

	if (!r)
		r = census_take(
			&t->rt, &maps, &(struct census_options){ .flags = CENSUS_KEEP_PLACES }, &t->census, NULL);
	proc_maps_free(&maps);
	counted = clock_mono_ns();
	if (!r)
		r = keepers_find(&t->rt, &t->census, t->objects, t->n, &limits, keepers);
	if (r)
		return r;
	for (size_t i = 0; i < t->n; i++)
		check(t, &t->told[i], &keepers[i]);
	keepers_deinit(keepers, t->n);
	getrusage(RUSAGE_SELF, &usage);
	printf("%zu objects, %" PRIu64 " wrong; heap of %" PRIu64 " MiB: census %" PRIu64 " ms, keepers %" PRIu64
	       " ms, %ld MiB used\n",
		t->n, t->wrong, (t->census.bytes + t->census.other_bytes) >> 20,
		(uint64_t)((counted - start) / NS_PER_MS), (uint64_t)((clock_mono_ns() - counted) / NS_PER_MS),
		usage.ru_maxrss / 1024);
	return 0;
}

static int begin(struct test *t, pid_t pid) {
	struct err err = { 0 };
	int r = proc_open("/proc", pid, &t->proc);

	if (!r)
		r = mem_live_new(pid, &t->mem);
	if (!r)
		r = py_runtime_attach(&t->proc, t->mem, &t->rt, &err);
	return r;
}

static void add(struct test *t, char *line) {
	struct told told = { .line = line };
	char *rest = line, *address, *length;

	told.name = strsep(&rest, "\t");
	address = strsep(&rest, "\t");
	told.roots = strsep(&rest, "\t");
	length = strsep(&rest, "\t");
	told.path = rest;
	if (t->n == TARGETS_MAX || !told.path) {
		t->wrong++;
		printf("a line that is none: %s\n", line);
		return;
	}
	told.length = strtoull(length, NULL, 10);
	t->objects[t->n] = strtoull(address, NULL, 16);
	t->told[t->n++] = told;
}

static int run(struct test *t, FILE *in) {
	char *line = NULL;
	size_t size = 0;
	pid_t pid = 0;

	while (getline(&line, &size, in) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (!strcmp(line, "ready")) {
			free(line);
			return pid && !begin(t, pid) ? look(t) : -1;
		}
		if (!pid && !strncmp(line, "start ", 6)) {
			pid = (pid_t)atoi(line + 6);
		} else {
			add(t, strdup(line));
		}
	}
	free(line);
	return -1;
}

int main(int argc, char **argv) {
	static struct test t;
	struct target target;
	int r;

	if (argc < 3 || target_start(argv[1], argv + 2, &target)) {
		fprintf(stderr, "usage: keepers_driver ORACLE COMMAND…\n");
		return 2;
	}
	r = run(&t, target.out);
	if (r)
		printf("not looked at: %d\n", r);
	close(target.held);
	fclose(target.out);
	waitpid(target.pid, NULL, 0);
	for (size_t i = 0; i < t.n; i++)
		free(t.told[i].line);
	census_deinit(&t.census);
	mem_free(t.mem);
	return r || t.wrong || !t.n;
}
