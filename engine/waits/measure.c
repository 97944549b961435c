/* SPDX-License-Identifier: MIT */
/* How long the threads of a graph have waited, as the scheduler knows it. */
#include "engine/proc/sched.h"
#include "engine/waits/look.h"
#include <string.h>

#define MEASURED_MAX 512 /* threads whose sleep is asked for */

/* A GIL waiter has always slept for a few milliseconds. */
static bool is_measurable(const struct pyspyd_wait_node *node) {
	return node->kind == PYSPYD_WAIT_THREAD && !node->gil_waiter && !node->idle && strchr("SD", node->state);
}

static void measure(struct pyspyd_wait_node *node, struct proc *proc, struct sched_clocks *clocks) {
	uint64_t ns;

	if (proc->pid != node->pid) {
		proc_close(proc);
		proc->pid = 0;
		if (proc_open("/proc", node->pid, proc))
			return;
	}
	if (!proc_thread_slept(proc, node->tid, clocks, &ns))
		node->waited_ns = max_of(node->waited_ns, ns);
}

void wait_look_measure(struct pyspyd_waits *waits) {
	struct proc proc = { .dir_fd = -1, .pidfd = -1 };
	struct sched_clocks clocks = { 0 };
	size_t left = MEASURED_MAX;

	for (int stuck = 1; stuck >= 0; stuck--)
		for (size_t i = 0; left && i < waits->nodes_n; i++) {
			if (waits->nodes[i].stuck != (stuck == 1) || !is_measurable(&waits->nodes[i]))
				continue;
			measure(&waits->nodes[i], &proc, &clocks);
			left--;
		}
	proc_close(&proc);
	sched_clocks_deinit(&clocks);
}
