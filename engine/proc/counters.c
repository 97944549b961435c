/* SPDX-License-Identifier: MIT */
/* Counters of a process, each from where it is cheapest.
 *
 * CPU time comes from stat, in clock ticks (10 ms): the kernel scales it from exact run times, so nothing is lost but
 * the last tick. Descriptors: the size of the fd folder is their number since Linux 6.2; before, the entries are
 * counted. Context switches are kept per thread and nowhere summed: beyond SWITCH_THREADS threads the sum would cost
 * more than it tells and stays unknown; threads that have ended take theirs with them, so that the sum can fall. */
#include "engine/proc/files.h"

#include "engine/base/clock.h"
#include "engine/proc/text.h"
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define SWITCH_THREADS 256
#define ROLLUP_MAX (16U << 10)

static uint64_t count_fds(const struct proc *proc) {
	pid_vec fds = { 0 };
	struct statfs fs;
	struct stat st;
	uint64_t n;

	/* Only procfs: the size of a folder on disk says something else. */
	if (!fstatfs(proc->dir_fd, &fs) && fs.f_type == PROC_SUPER_MAGIC && !fstatat(proc->dir_fd, "fd", &st, 0) &&
		st.st_size > 0)
		return (uint64_t)st.st_size;
	if (files_list_numbers(proc->dir_fd, "fd", &fds))
		return PROC_UNKNOWN;
	n = fds.n;
	vec_free(&fds);
	return n;
}

static bool add_switches(const struct proc *proc, pid_t tid, struct proc_counters *counters) {
	struct proc_status status;
	_free_ char *data = NULL;
	char name[32];
	size_t len;
	int r;

	snprintf(name, sizeof(name), "task/%d/status", (int)tid);
	r = proc_read_file(proc, name, FILES_STATUS_MAX, &data, &len);
	if (r == PROC_E_GONE)
		return true;
	if (r || proc_status_parse(data, len, &status))
		return false;
	counters->voluntary_switches += status.voluntary_switches;
	counters->involuntary_switches += status.involuntary_switches;
	return true;
}

static void sum_switches(const struct proc *proc, struct proc_counters *counters) {
	pid_vec tids = { 0 };
	bool known;

	counters->voluntary_switches = counters->involuntary_switches = 0;
	known = counters->threads <= SWITCH_THREADS && !proc_threads(proc, &tids) && tids.n <= SWITCH_THREADS;
	for (size_t i = 0; known && i < tids.n; i++)
		known = add_switches(proc, tids.items[i], counters);
	if (!known)
		counters->voluntary_switches = counters->involuntary_switches = PROC_UNKNOWN;
	vec_free(&tids);
}

/* "Pss:                 484 kB". Return: bytes, 0 where the line is another. */
static uint64_t kib_of(struct text line, const char *key) {
	size_t n = strlen(key);
	uint64_t kib, bytes;

	if (text_left(&line) < n || memcmp(line.at, key, n))
		return 0;
	line.at += n;
	text_blanks(&line);
	return text_u64(&line, &kib) && !__builtin_mul_overflow(kib, (uint64_t)1024, &bytes) ? bytes : 0;
}

static void read_rollup(const struct proc *proc, struct proc_counters *counters) {
	_free_ char *data = NULL;
	struct text t, line;
	size_t len;

	if (proc_read_file(proc, "smaps_rollup", ROLLUP_MAX, &data, &len) || !len)
		return;
	counters->pss_bytes = counters->uss_bytes = counters->swap_bytes = 0;
	for (t = text_of(data, len); text_line(&t, &line);) {
		counters->pss_bytes += kib_of(line, "Pss:");
		counters->uss_bytes += kib_of(line, "Private_Clean:") + kib_of(line, "Private_Dirty:") +
			kib_of(line, "Private_Hugetlb:");
		counters->swap_bytes += kib_of(line, "Swap:");
	}
}

int proc_counters_read(const struct proc *proc, bool with_smaps, struct proc_counters *ret) {
	uint64_t tick_ns = NS_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK);
	struct proc_counters counters = {
		.pss_bytes = PROC_UNKNOWN,
		.uss_bytes = PROC_UNKNOWN,
		.swap_bytes = PROC_UNKNOWN,
	};
	struct proc_stat stat;
	int r = proc_stat_read(proc, &stat);

	if (r)
		return r;
	counters.user_ns = stat.user_ticks * tick_ns;
	counters.system_ns = stat.system_ticks * tick_ns;
	counters.rss_bytes = stat.rss_pages * (uint64_t)sysconf(_SC_PAGESIZE);
	counters.threads = (uint64_t)stat.threads;
	counters.minor_faults = stat.minor_faults;
	counters.major_faults = stat.major_faults;
	counters.fds = count_fds(proc);
	sum_switches(proc, &counters);
	if (with_smaps)
		read_rollup(proc, &counters);
	*ret = counters;
	return 0;
}
