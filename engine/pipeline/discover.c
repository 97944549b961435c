/* SPDX-License-Identifier: MIT */
/* A known process is told from one that has its number by when it started, and from what it was by its program's file.
 * Both cost some system calls, so of those that are known every scan checks only some: a process that executes Python
 * late, or takes a number that was used a moment ago, is found within VERIFY_SCANS scans. */
#include "engine/pipeline/discover.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "engine/proc/proc.h"
#include <fcntl.h>
#include <sys/stat.h>

#define VERIFY_SCANS 8
#define YOUNG_NS (5 * NS_PER_SEC) /* what is no Python yet may become one: a shell that executes it */
#define DENIED_BIT 1

/* Never 0; the lowest bit is free. 0: it has ended. */
static uint64_t identity_of(pid_t pid, uint64_t *ret_start_ns) {
	struct proc proc;
	struct stat st;
	uint64_t key;

	if (proc_open("/proc", pid, &proc))
		return 0;
	*ret_start_ns = proc.start_ticks * (NS_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK));
	key = hash_mix(proc.start_ticks);
	if (!fstatat(proc.dir_fd, "exe", &st, 0))
		key = hash_mix(key ^ st.st_ino ^ st.st_dev << 32);
	proc_close(&proc);
	return (key | 2) & ~(uint64_t)DENIED_BIT;
}

static bool is_turn(const struct discover *discover, pid_t pid) {
	return ((unsigned)pid + discover->scans) % VERIFY_SCANS == 0;
}

/* Return: what is to be kept of the process; 0: nothing. */
static uint64_t look_at(
	struct discover *discover, pid_t pid, enum discover_answer (*ask)(void *userdata, pid_t pid), void *userdata) {
	uint64_t known = 0, now, start_ns = 0;

	map_get(&discover->known, (uint64_t)pid, &known);
	if (known && !is_turn(discover, pid))
		return known;
	now = identity_of(pid, &start_ns);
	if (!now || (known & ~(uint64_t)DENIED_BIT) == now)
		return now ? known : 0;
	switch (ask(userdata, pid)) {
	case DISCOVER_DENIED: return now | DENIED_BIT;
	case DISCOVER_LATER:
	case DISCOVER_OTHER: return 0;
	case DISCOVER_DONE: break;
	}
	return clock_boot_ns() < start_ns + YOUNG_NS ? 0 : now;
}

int discover_scan(struct discover *discover, enum discover_answer (*ask)(void *userdata, pid_t pid), void *userdata) {
	struct map kept = { 0 };
	pid_vec pids = { 0 };
	uint64_t denied = 0;
	int r = proc_list("/proc", &pids);

	discover->scans++;
	for (size_t i = 0; !r && i < pids.n; i++) {
		uint64_t keep = pids.items[i] == getpid() ? 0 : look_at(discover, pids.items[i], ask, userdata);

		denied += keep & DENIED_BIT;
		if (keep)
			r = map_put(&kept, (uint64_t)pids.items[i], keep);
	}
	vec_free(&pids);
	if (r) {
		map_deinit(&kept);
		return r;
	}
	map_deinit(&discover->known);
	discover->known = kept;
	discover->denied = denied;
	return 0;
}

void discover_forget(struct discover *discover) {
	map_clear(&discover->known);
}

void discover_deinit(struct discover *discover) {
	map_deinit(&discover->known);
}
