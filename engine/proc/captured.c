/* SPDX-License-Identifier: MIT */
/* Writes a tree of /proc. Names in it are numbers and fixed words; what the process has chosen only goes into files and
 * the targets of links, in the way in which the kernel would show it there.
 *
 * The folder is locked as long as somebody uses it. One without a lock was left behind by who was killed: the next tree
 * that is made here removes it. */
#include "engine/proc/captured.h"

#include "engine/base/strbuf.h"
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define STAT_ZEROS_BEFORE_THREADS 15 /* fields 5 to 19 of stat */
#define STAT_ZEROS_AFTER_THREADS 32  /* 21 to 52 */
#define PREFIX "pyspyd-tree-"
#define DEPTH 3 /* PID, task, TID */
#define TREES_MAX 8
#define ENTRIES_MAX 65536 /* that are looked at in the folder of temporary files */
#define TRIES 16
#define ENDING_TRIES 5000 /* waits of a millisecond for trees that are made or removed just now */

struct captured {
	char root[PATH_MAX];
	int fd; /* holds the lock */
};

/* Those that there are, for a handler of signals; more than there is room for have to wait for the next tree. */
static struct captured *_Atomic trees[TREES_MAX];

/* What another thread writes into a tree meanwhile the handler would leave behind: it waits for those that are made or
 * removed just now, and no other is begun. */
static atomic_bool ending;
static atomic_uint changing;
static _Thread_local volatile sig_atomic_t changes; /* this thread: a handler that has interrupted it must not wait */

static int write_file(int dir_fd, const char *name, const void *data, size_t len) {
	_close_ int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	size_t done = 0;

	if (fd < 0)
		return -errno;
	while (done < len) {
		ssize_t n = write(fd, (const char *)data + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

static int write_text(int dir_fd, const char *name, struct strbuf *sb) {
	int r = sb->failed ? -ENOMEM : write_file(dir_fd, name, strbuf_str(sb), sb->len);

	strbuf_deinit(sb);
	*sb = (struct strbuf){ 0 };
	return r;
}

static void add_stat(
	struct strbuf *sb, const struct captured_process *process, pid_t id, const char *comm, char state) {
	strbuf_addf(sb, "%d (%s) %c %d", (int)id, comm, state, (int)process->ppid);
	for (int i = 0; i < STAT_ZEROS_BEFORE_THREADS; i++)
		strbuf_adds(sb, " 0");
	strbuf_addf(sb, " %zu", process->threads_n);
	for (int i = 0; i < STAT_ZEROS_AFTER_THREADS; i++)
		strbuf_adds(sb, " 0");
	strbuf_adds(sb, "\n");
}

static int write_stat(int dir_fd, const struct captured_process *process, pid_t id, const char *comm, char state) {
	struct strbuf sb = { 0 };

	add_stat(&sb, process, id, comm, state);
	return write_text(dir_fd, "stat", &sb);
}

static int write_status(int dir_fd, const struct captured_process *process, pid_t id) {
	struct strbuf sb = { 0 };

	strbuf_addf(&sb, "Pid:\t%d\nUid:\t%u\t%u\t%u\t%u\nGid:\t%u\t%u\t%u\t%u\nNSpid:\t%d\n", (int)id, process->uid,
		process->uid, process->uid, process->uid, process->gid, process->gid, process->gid, process->gid,
		(int)id);
	return write_text(dir_fd, "status", &sb);
}

static int write_comm(int dir_fd, const char *comm) {
	struct strbuf sb = { 0 };

	strbuf_addf(&sb, "%s\n", comm);
	return write_text(dir_fd, "comm", &sb);
}

static void add_map(struct strbuf *sb, const struct proc_map *map) {
	strbuf_addf(sb, "%" PRIx64 "-%" PRIx64 " %c%c%c%c %08" PRIx64 " %02x:%02x %" PRIu64 " ", map->start, map->end,
		map->read ? 'r' : '-', map->write ? 'w' : '-', map->exec ? 'x' : '-', map->shared ? 's' : 'p',
		map->offset, major(map->dev), minor(map->dev), map->inode);
	for (const char *at = map->path; *at; at++) {
		if (*at == '\n')
			strbuf_adds(sb, "\\012");
		else
			strbuf_add(sb, at, 1);
	}
	strbuf_adds(sb, "\n");
}

static int write_maps(int dir_fd, const proc_map_vec *maps) {
	struct strbuf sb = { 0 };

	vec_foreach (map, maps)
		add_map(&sb, map);
	return write_text(dir_fd, "maps", &sb);
}

static int write_link(int dir_fd, const char *name, const char *target) {
	return !target || !symlinkat(target, dir_fd, name) ? 0 : -errno;
}

static int write_process(int dir_fd, const struct captured_process *process) {
	char state = process->threads_n ? process->threads[0].state : 'S';
	int r = write_stat(dir_fd, process, process->pid, process->comm, state);

	if (!r)
		r = write_status(dir_fd, process, process->pid);
	if (!r)
		r = write_comm(dir_fd, process->comm);
	if (!r)
		r = write_maps(dir_fd, process->maps);
	if (!r)
		r = write_file(dir_fd, "cmdline", process->cmdline, process->cmdline_len);
	if (!r)
		r = write_file(dir_fd, "auxv", process->auxv, process->auxv_len);
	if (!r)
		r = write_link(dir_fd, "exe", process->exe);
	return r ? r : write_link(dir_fd, "root", process->root);
}

static int write_thread(int task_fd, const struct captured_process *process, const struct captured_thread *thread) {
	static const char no_times[] = "0 0 0\n";
	const char *comm = thread->comm ? thread->comm : "?";
	_close_ int fd = -1;
	char name[16];
	int r;

	snprintf(name, sizeof(name), "%d", (int)thread->tid);
	if (mkdirat(task_fd, name, 0700))
		return errno == EEXIST ? 0 : -errno; /* a thread is there once */
	fd = openat(task_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	r = write_stat(fd, process, thread->tid, comm, thread->state);
	if (!r)
		r = write_status(fd, process, thread->tid);
	if (!r)
		r = write_comm(fd, comm);
	if (!r)
		r = write_file(fd, "schedstat", no_times, strlen(no_times));
	return r ? r : write_file(fd, "syscall", thread->system_call, strlen(thread->system_call));
}

static int make_folder(int dir_fd, const char *name, int *ret_fd) {
	int fd;

	if (mkdirat(dir_fd, name, 0700))
		return -errno;
	fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

static int write_tree(const struct captured *captured, const struct captured_process *process) {
	_close_ int fd = -1, task_fd = -1;
	char name[16];
	int r;

	snprintf(name, sizeof(name), "%d", (int)process->pid);
	r = make_folder(captured->fd, name, &fd);
	if (!r)
		r = write_process(fd, process);
	if (!r)
		r = make_folder(fd, "task", &task_fd);
	for (size_t i = 0; !r && i < process->threads_n; i++)
		if (process->threads[i].tid > 0)
			r = write_thread(task_fd, process, &process->threads[i]);
	return r;
}

/* As the kernel has it, Linux man 2 getdents. */
struct entry {
	uint64_t inode;
	int64_t next;
	uint16_t len;
	uint8_t type;
	char name[];
};

/* What else may lie there is somebody's own. */
static bool is_ours(const char *name) {
	static const char *const names[] = { "stat", "status", "comm", "maps", "cmdline", "auxv", "exe", "root", "task",
		"schedstat", "syscall" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i]))
			return true;
	return name[0] && !name[strspn(name, "0123456789")];
}

/* Links are removed, never followed. Only calls that a handler of signals may make. */
static void remove_below(int dir_fd, int depth) {
	_Alignas(struct entry) char bytes[2048];
	long n;

	while ((n = syscall(SYS_getdents64, dir_fd, bytes, sizeof(bytes))) > 0)
		for (long at = 0; at < n;) {
			const struct entry *entry = (const void *)(bytes + at);
			int fd;

			at += entry->len;
			if (!is_ours(entry->name) || !unlinkat(dir_fd, entry->name, 0) || depth == 0)
				continue;
			fd = openat(dir_fd, entry->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
			if (fd < 0)
				continue;
			remove_below(fd, depth - 1);
			close(fd);
			unlinkat(dir_fd, entry->name, AT_REMOVEDIR);
		}
}

/* Of whoever was killed while it had one. */
static void sweep(const char *folder) {
	_closedir_ DIR *dir = opendir(folder);
	const struct dirent *entry;

	for (int i = 0; dir && i < ENTRIES_MAX && (entry = readdir(dir)); i++) {
		_close_ int fd = -1;
		struct stat st;

		if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) != 0)
			continue;
		fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0 || fstat(fd, &st) || st.st_uid != geteuid() || flock(fd, LOCK_EX | LOCK_NB))
			continue;
		remove_below(fd, DEPTH);
		unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR);
	}
}

/* Between the making and the lock somebody may take it for one that was left behind: then it is made once more. Where
 * folders cannot be locked, nobody else can lock it either. */
static int make_root(const char *folder, struct captured *captured) {
	for (int i = 0; i < TRIES; i++) {
		struct stat st;

		if (snprintf(captured->root, sizeof(captured->root), "%s/" PREFIX "XXXXXX", folder) >= PATH_MAX)
			return -ENAMETOOLONG;
		if (!mkdtemp(captured->root))
			return -errno;
		captured->fd = open(captured->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (captured->fd >= 0) {
			(void)!flock(captured->fd, LOCK_EX);
			if (!fstat(captured->fd, &st) && st.st_nlink)
				return 0;
		}
		close_fd(&captured->fd);
	}
	return -EAGAIN;
}

static void remember(struct captured *captured) {
	for (size_t i = 0; i < TREES_MAX; i++) {
		struct captured *none = NULL;

		if (atomic_compare_exchange_strong(&trees[i], &none, captured))
			return;
	}
}

static void forget(struct captured *captured) {
	for (size_t i = 0; i < TREES_MAX; i++) {
		struct captured *it = captured;

		if (atomic_compare_exchange_strong(&trees[i], &it, NULL))
			return;
	}
}

static void remove_tree(const struct captured *captured) {
	int fd = open(captured->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd >= 0) {
		remove_below(fd, DEPTH);
		close(fd);
	}
	rmdir(captured->root);
}

static void drop(struct captured *captured) {
	remove_tree(captured);
	forget(captured);
	close(captured->fd);
	free(captured);
}

static void begin_change(void) {
	changes = 1;
	atomic_fetch_add(&changing, 1);
	if (!atomic_load(&ending))
		return;
	atomic_fetch_sub(&changing, 1);
	for (;;) /* until the handler has ended the process */
		pause();
}

static void end_change(void) {
	atomic_fetch_sub(&changing, 1);
	changes = 0;
}

static int make(const struct captured_process *process, struct captured **ret_captured, struct err *err) {
	const char *folder = getenv("TMPDIR");
	struct captured *captured = calloc(1, sizeof(*captured));
	int r;

	if (!captured)
		return -ENOMEM;
	if (!folder || folder[0] != '/')
		folder = "/tmp";
	captured->fd = -1;
	sweep(folder);
	remember(captured); /* before there is something to be removed */
	r = make_root(folder, captured);
	if (r) {
		err_set(err, r, "no temporary folder in %s: %s", folder, strerror(-r));
		forget(captured);
		free(captured);
		return r;
	}
	r = write_tree(captured, process);
	if (r) {
		err_set(err, r, "%s: %s", captured->root, strerror(-r));
		drop(captured);
		return r;
	}
	*ret_captured = captured;
	return 0;
}

int captured_new(const struct captured_process *process, struct captured **ret_captured, struct err *err) {
	int r;

	if (process->pid <= 0)
		return -EINVAL;
	begin_change();
	r = make(process, ret_captured, err);
	end_change();
	return r;
}

const char *captured_root(const struct captured *captured) {
	return captured->root;
}

void captured_free(struct captured *captured) {
	if (!captured)
		return;
	begin_change();
	drop(captured);
	end_change();
}

void captured_remove_all(void) {
	atomic_store(&ending, true);
	for (int i = 0; i < ENDING_TRIES && atomic_load(&changing) > (unsigned)changes; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	for (size_t i = 0; i < TREES_MAX; i++) {
		const struct captured *captured = atomic_load(&trees[i]);

		if (captured)
			remove_tree(captured);
	}
}
