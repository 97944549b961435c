/* SPDX-License-Identifier: MIT */
/* Passes through the kernel's tasks, on request, for host_tasks.py. Commands on stdin, one a line:
 *
 *   watch PID, leave PID   no answer
 *   pass, all              one JSON array: of those that are watched, of everybody. Each task: [pid, tid, state, cpu,
 *                          run_ns, wait_ns, slices, voluntary, involuntary, start_ns]
 *
 * "ready" comes first; or exit status 77 and the reason. */
#include "engine/base/util.h"
#include "engine/sample/bpf_tasks.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void tell(void *userdata, const struct bpf_task *task) {
	size_t *n = userdata;

	printf("%s[%d,%d,\"%c\",%d,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 "]",
		(*n)++ ? "," : "", (int)task->pid, (int)task->tid, task->state, task->cpu, task->run_ns, task->wait_ns,
		task->slices, task->voluntary, task->involuntary, task->start_ns);
}

static int pass(struct bpf_tasks *tasks, bool everybody) {
	size_t n = 0;
	int r;

	printf("[");
	r = bpf_tasks_read(tasks, everybody, tell, &n);
	printf("]\n");
	fflush(stdout);
	if (r)
		fprintf(stderr, "host_tasks_driver: %s\n", strerror(-r));
	return r;
}

static int obey(struct bpf_tasks *tasks, const char *line) {
	int pid;

	if (sscanf(line, "watch %d", &pid) == 1)
		bpf_tasks_watch(tasks, pid, true);
	else if (sscanf(line, "leave %d", &pid) == 1)
		bpf_tasks_watch(tasks, pid, false);
	else
		return pass(tasks, !strncmp(line, "all", 3));
	return 0;
}

int main(void) {
	struct bpf_tasks *tasks;
	struct err err = { 0 };
	char line[64];
	int r = bpf_tasks_new(&tasks, &err);

	if (r) {
		puts(err.text);
		return 77;
	}
	puts("ready");
	fflush(stdout);
	while (!r && fgets(line, sizeof(line), stdin))
		r = obey(tasks, line);
	bpf_tasks_free(tasks);
	return r ? 1 : 0;
}
