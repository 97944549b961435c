/* SPDX-License-Identifier: MIT */
/* Counters of a process, each from where it is cheapest.
 *
 * CPU time comes from stat, in clock ticks (10 ms): the kernel scales it from exact run times, so nothing is lost but
 * the last tick. Descriptors: the size of the fd folder is their number since Linux 6.2; before, the entries are
 * counted. */
#include "engine/proc/files.h"

#include "engine/base/clock.h"
#include "engine/proc/text.h"
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

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
	if (with_smaps)
		read_rollup(proc, &counters);
	*ret = counters;
	return 0;
}
