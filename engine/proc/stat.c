/* SPDX-License-Identifier: MIT */
/* /proc/PID/stat, /proc/PID/task/TID/stat, sched and schedstat, whole and by the fast path of samplers.
 *
 *	7187 (python3) R 7184 7184 5661 0 -1 4194304 2858 6610 9 0 4 1 3 1 20 0 1 0 136519 16961536 3335 18446744073…
 *
 * The name in brackets is the thread's own choice and is not escaped: it ends at the line's last ')', since nothing but
 * numbers follows. Fields are counted from 1 as in man 5 proc_pid_stat. */
#include "engine/proc/files.h"

#include "engine/proc/sched.h"
#include "engine/proc/text.h"
#include <fcntl.h>
#include <string.h>

enum {
	FIELD_STATE = 3,
	FIELD_PPID = 4,
	FIELD_MINOR_FAULTS = 10,
	FIELD_MAJOR_FAULTS = 12,
	FIELD_USER = 14,
	FIELD_SYSTEM = 15,
	FIELD_THREADS = 20,
	FIELD_START = 22,
	FIELD_VSIZE = 23,
	FIELD_RSS = 24,
	FIELD_PROCESSOR = 39,
};

/* Moves behind the name: at the state, where there is one. */
static bool behind_name(struct text *t) {
	const char *bracket = memrchr(t->at, ')', text_left(t));

	if (!bracket)
		return false;
	t->at = bracket + 1;
	return text_char(t, ' ') && text_left(t);
}

static bool parse_name(const char *text, size_t len, struct proc_stat *stat) {
	const char *open = memchr(text, '(', len);
	const char *close = memrchr(text, ')', len);
	size_t n;

	if (!open || !close || close < open)
		return false;
	n = min_of((size_t)(close - open - 1), sizeof(stat->comm) - 1);
	memcpy(stat->comm, open + 1, n);
	stat->comm[n] = '\0';
	return true;
}

static void store(struct proc_stat *stat, int field, uint64_t value) {
	switch (field) {
	case FIELD_PPID: stat->ppid = (pid_t)value; break;
	case FIELD_MINOR_FAULTS: stat->minor_faults = value; break;
	case FIELD_MAJOR_FAULTS: stat->major_faults = value; break;
	case FIELD_USER: stat->user_ticks = value; break;
	case FIELD_SYSTEM: stat->system_ticks = value; break;
	case FIELD_THREADS: stat->threads = (long)value; break;
	case FIELD_START: stat->start_ticks = value; break;
	case FIELD_VSIZE: stat->vsize_bytes = value; break;
	case FIELD_RSS: stat->rss_pages = value; break;
	case FIELD_PROCESSOR: stat->processor = (int)value; break;
	default: break;
	}
}

int proc_stat_parse(const char *text, size_t len, struct proc_stat *ret) {
	struct proc_stat stat = { 0 };
	struct text t = text_of(text, len);

	if (!parse_name(text, len, &stat) || !behind_name(&t))
		return -EINVAL;
	stat.state = *t.at++;
	for (int field = FIELD_STATE + 1; field <= FIELD_PROCESSOR; field++) {
		uint64_t value;
		bool negative;

		if (!text_char(&t, ' '))
			return -EINVAL;
		negative = text_char(&t, '-');
		if (!text_u64(&t, &value))
			return -EINVAL;
		/* Only fields that we do not use can be below zero, and rss, which is for a moment. */
		store(&stat, field, negative ? 0 : value);
	}
	*ret = stat;
	return 0;
}

int proc_stat_state(const char *text, size_t len, char *ret_state, int *ret_processor) {
	struct text t = text_of(text, len);
	int processor;
	char state;

	if (!behind_name(&t))
		return -EINVAL;
	state = *t.at++;
	for (int field = FIELD_STATE; field < FIELD_PROCESSOR; field++) {
		const char *blank = memchr(t.at, ' ', text_left(&t));

		if (!blank)
			return -EINVAL;
		t.at = blank + 1;
	}
	if (!text_int(&t, &processor))
		return -EINVAL;
	*ret_state = state;
	*ret_processor = processor;
	return 0;
}

static int read_stat(const struct proc *proc, const char *name, struct proc_stat *ret) {
	char buf[FILES_STAT_SIZE];
	size_t len;
	int r = files_read_small(proc->dir_fd, name, buf, sizeof(buf), &len);

	return r ? proc_condition(proc, name, r) : proc_stat_parse(buf, len, ret);
}

int proc_stat_read(const struct proc *proc, struct proc_stat *ret) {
	return read_stat(proc, "stat", ret);
}

int proc_thread_stat(const struct proc *proc, pid_t tid, struct proc_stat *ret) {
	char name[32];

	snprintf(name, sizeof(name), "task/%d/stat", (int)tid);
	return read_stat(proc, name, ret);
}

int proc_schedstat_parse(const char *text, size_t len, struct proc_schedstat *ret) {
	struct text t = text_of(text, len);
	struct proc_schedstat stat;

	if (!text_u64(&t, &stat.run_ns) || !text_char(&t, ' ') || !text_u64(&t, &stat.wait_ns) || !text_char(&t, ' ') ||
		!text_u64(&t, &stat.slices))
		return -EINVAL;
	*ret = stat;
	return 0;
}

/* Return: 0; PROC_E_GONE; negative errno. *ret_fd is -1 then. */
static int open_task_file(const struct proc *proc, pid_t tid, const char *file, int *ret_fd) {
	char name[32];

	snprintf(name, sizeof(name), "task/%d/%s", (int)tid, file);
	*ret_fd = openat(proc->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	return *ret_fd < 0 ? proc_condition(proc, name, -errno) : 0;
}

int proc_task_open(const struct proc *proc, pid_t tid, struct proc_task *ret_task) {
	struct proc_task task = PROC_TASK_NONE;
	int r = open_task_file(proc, tid, "stat", &task.stat_fd);

	if (r)
		return r;
	r = open_task_file(proc, tid, "schedstat", &task.schedstat_fd);
	if (r == -EMFILE || r == -ENFILE) {
		proc_task_close(&task);
		return r;
	}
	task.tid = tid;
	*ret_task = task;
	return 0;
}

void proc_task_close(struct proc_task *task) {
	close_fd(&task->stat_fd);
	close_fd(&task->schedstat_fd);
	close_fd(&task->sched_fd);
}

/* Return: 0; PROC_E_GONE; negative errno. */
static int reread(int fd, char *buf, size_t size, size_t *ret_len) {
	ssize_t n;

	if (fd < 0)
		return -ENOENT;
	n = pread(fd, buf, size, 0);
	if (n < 0)
		return errno == ESRCH ? PROC_E_GONE : -errno;
	*ret_len = (size_t)n;
	return n ? 0 : PROC_E_GONE;
}

int proc_task_state(const struct proc_task *task, char *ret_state, int *ret_processor) {
	char buf[FILES_STAT_SIZE];
	size_t len = 0;
	int r = reread(task->stat_fd, buf, sizeof(buf), &len);

	return r ? r : proc_stat_state(buf, len, ret_state, ret_processor);
}

int proc_task_schedstat(const struct proc_task *task, struct proc_schedstat *ret) {
	char buf[128];
	size_t len = 0;
	int r = reread(task->schedstat_fd, buf, sizeof(buf), &len);

	return r ? r : proc_schedstat_parse(buf, len, ret);
}

int proc_task_exec_start(const struct proc *proc, struct proc_task *task, uint64_t *ret_ns) {
	char buf[FILES_STAT_SIZE]; /* the head of the file; a thread's name in it is short */
	size_t len = 0;
	int r = task->sched_fd < 0 ? open_task_file(proc, task->tid, "sched", &task->sched_fd) : 0;

	if (!r)
		r = reread(task->sched_fd, buf, sizeof(buf), &len);
	return r ? r : proc_sched_parse(buf, len, ret_ns);
}
