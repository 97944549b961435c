/* SPDX-License-Identifier: MIT */
/* /proc/PID/task/TID/sched: how long a thread has slept, on kernels that have the file.
 *
 *	se.exec_start                                :      17013151.649328
 *
 * is when it was last on a CPU, in milliseconds of the clock by which that CPU schedules. No other clock is equal to
 * it, not even another CPU's: it leaves out the time that went to interrupts and to other guests of the host. What it
 * shows now is the value of a thread that is on that CPU: ours, for a moment. */
#include "engine/proc/sched.h"

#include "engine/base/clock.h"
#include "engine/proc/files.h"
#include "engine/proc/text.h"
#include <fcntl.h>
#include <sched.h>
#include <string.h>

#define SCHED_MAX (16U << 10)
#define DECIMALS 6 /* of a millisecond */

/* "se.exec_start : 84048319.155139", in ms. The first line is the thread's name, which is not escaped: a line of its
 * own making has no number behind the colon, but the end of the first line. */
static bool parse_exec_start(struct text line, uint64_t *ret_ns) {
	static const char label[] = "se.exec_start";
	const char *decimals;
	uint64_t ms, ns;

	if (text_left(&line) < sizeof(label) - 1 || memcmp(line.at, label, sizeof(label) - 1) != 0)
		return false;
	line.at += sizeof(label) - 1;
	text_blanks(&line);
	if (!text_char(&line, ':'))
		return false;
	text_blanks(&line);
	if (!text_u64(&line, &ms) || !text_char(&line, '.'))
		return false;
	decimals = line.at;
	return text_u64(&line, &ns) && line.at - decimals == DECIMALS && !__builtin_mul_overflow(ms, NS_PER_MS, &ms) &&
		!__builtin_add_overflow(ms, ns, ret_ns);
}

int proc_sched_parse(const char *text, size_t len, uint64_t *ret_exec_start_ns) {
	struct text t = text_of(text, len), line;
	uint64_t ns;

	while (text_line(&t, &line))
		if (parse_exec_start(line, &ns)) {
			*ret_exec_start_ns = ns;
			return 0;
		}
	return -EINVAL;
}

static int read_exec_start(const struct proc *proc, pid_t tid, uint64_t *ret_ns) {
	char *text _free_ = NULL;
	char name[64];
	size_t len;
	int r;

	snprintf(name, sizeof(name), "task/%d/sched", (int)tid);
	r = proc_read_file(proc, name, SCHED_MAX, &text, &len);
	return r ? r : proc_sched_parse(text, len, ret_ns);
}

/* Being put on a CPU sets the caller's own value to what that CPU's clock shows. */
static int read_clock(int cpu, uint64_t *ret_ns) {
	char *text _free_ = NULL;
	cpu_set_t before, one;
	size_t len;
	int r;

	if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof(before), &before))
		return -EINVAL;
	CPU_ZERO(&one);
	CPU_SET((size_t)cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		return -errno;
	sched_yield();
	r = files_read(AT_FDCWD, "/proc/thread-self/sched", SCHED_MAX, &text, &len);
	sched_setaffinity(0, sizeof(before), &before);
	return r ? r : proc_sched_parse(text, len, ret_ns);
}

void sched_clocks_deinit(struct sched_clocks *clocks) {
	map_deinit(&clocks->by_cpu);
}

static int clock_of(struct sched_clocks *clocks, int cpu, uint64_t *ret_ns) {
	int r;

	if (map_get(&clocks->by_cpu, (uint64_t)cpu, ret_ns))
		return *ret_ns ? 0 : -EINVAL;
	r = read_clock(cpu, ret_ns);
	(void)!map_put(&clocks->by_cpu, (uint64_t)cpu, r ? 0 : *ret_ns);
	return r;
}

static uint64_t age_of(const struct proc_stat *stat) {
	uint64_t born = stat->start_ticks * (NS_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK)), now = clock_boot_ns();

	return now > born ? now - born : 0;
}

int proc_thread_slept(const struct proc *proc, pid_t tid, struct sched_clocks *clocks, uint64_t *ret_ns) {
	struct proc_stat stat;
	uint64_t then, now;
	int r = proc_thread_stat(proc, tid, &stat);

	if (!r)
		r = read_exec_start(proc, tid, &then);
	if (!r)
		r = clock_of(clocks, stat.processor, &now);
	if (!r)
		*ret_ns = min_of(now > then ? now - then : 0, age_of(&stat));
	return r;
}
