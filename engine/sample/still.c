/* SPDX-License-Identifier: MIT */
/* The witness is the thread's run counter: the kernel brings it up to date whenever the thread leaves a CPU. While we
 * run on the CPU that the thread waits for, it is off it; if it had run between two of our instructions, the counter
 * would have moved. */
#include "engine/sample/still.h"

#include <sched.h>

#define TRIES 50

/* Goes to the CPU. Return: whether we are there. */
static bool move_to(int cpu) {
	cpu_set_t set;

	if (sched_getcpu() == cpu) {
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		return !sched_setaffinity(0, sizeof(set), &set);
	}
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return !sched_setaffinity(0, sizeof(set), &set) && sched_getcpu() == cpu;
}

struct witness {
	char state;
	int cpu;
	uint64_t run_ns, slices;
};

static int read_witness(const struct proc_task *task, struct witness *w) {
	struct proc_schedstat stat;
	int r = proc_task_state(task, &w->state, &w->cpu);

	if (!r)
		r = proc_task_schedstat(task, &stat);
	if (!r) {
		w->run_ns = stat.run_ns;
		w->slices = stat.slices;
	}
	return r;
}

static bool agree(const struct witness *a, const struct witness *b) {
	return a->run_ns == b->run_ns && a->slices == b->slices && a->cpu == b->cpu &&
		(a->state == 'R') == (b->state == 'R');
}

int still_run(
	const struct proc_task *task, still_look look, void *userdata, enum still_proof *ret_proof, char *ret_state) {
	struct witness before, after;
	int r = 0;

	*ret_proof = STILL_UNPROVEN;
	for (int i = 0; i < TRIES; i++) {
		bool placed;

		r = read_witness(task, &before);
		if (r)
			return r == PROC_E_GONE ? MEM_E_GONE : r;
		*ret_state = before.state;
		placed = before.state != 'R' || move_to(before.cpu);
		if (placed && before.state == 'R') { /* now that we are there, it is not running */
			r = read_witness(task, &before);
			if (r)
				return r == PROC_E_GONE ? MEM_E_GONE : r;
			placed = before.cpu == sched_getcpu();
		}
		r = look(userdata);
		if (r == MEM_E_GONE || r < 0)
			return r;
		if (!placed)
			continue;
		if (read_witness(task, &after))
			return MEM_E_GONE;
		if (agree(&before, &after)) {
			*ret_proof = STILL_PROVEN;
			return r;
		}
	}
	return r;
}
