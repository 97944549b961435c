/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROC_PROC_H
#define PYSPYD_PROC_PROC_H

#include "engine/base/util.h"
#include "engine/base/vec.h"
#include "pyspyd/err.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Processes and threads as /proc shows them. All access goes through a process's open directory, so a captured tree
 * serves as well as /proc (tests), and a reused pid cannot answer for the one that ended. */

enum {
	PROC_E_GONE = 1, /* the process or thread has ended */
};

struct proc {
	pid_t pid;
	int dir_fd;           /* /proc/PID */
	int pidfd;            /* -1 on a captured tree, and before Linux 5.3 */
	uint64_t start_ticks; /* start time since boot, in clock ticks: with the pid, the process's identity */
};

/* `root` is "/proc", or a captured tree. Return: 0; PROC_E_GONE; negative errno. */
int proc_open(const char *root, pid_t pid, struct proc *ret_proc);
void proc_close(struct proc *proc);

/* Return: whether the process that was opened still exists (a zombie does not count). */
bool proc_alive(const struct proc *proc);

/* Pids under root, ascending. The vector is the caller's to vec_free. */
typedef VEC(pid_t) pid_vec;
int proc_list(const char *root, pid_vec *ret_pids);

/* Reads a whole file of the process ("status", "task/12/comm") into memory, at most max bytes; *ret_data is
 * NUL-terminated and the caller's to free. Return: 0; PROC_E_GONE; -EACCES; negative errno. */
int proc_read_file(const struct proc *proc, const char *name, size_t max, char **ret_data, size_t *ret_len);

/* Threads of a process, ascending. */
int proc_threads(const struct proc *proc, pid_vec *ret_tids);

/* Descendants of a process, parents before children, the process itself not among them. */
int proc_descendants(const char *root, pid_t pid, pid_vec *ret_pids);

/* /proc/PID/stat and /proc/PID/task/TID/stat (Linux man 5 proc_pid_stat). */
struct proc_stat {
	char comm[64]; /* as the kernel has it: may hold any byte but NUL, ')' and spaces too */
	char state;    /* R S D Z T t X I … */
	pid_t ppid;
	uint64_t minor_faults, major_faults;
	uint64_t user_ticks, system_ticks;
	long threads;
	uint64_t start_ticks;
	uint64_t vsize_bytes;
	uint64_t rss_pages;
	int processor; /* the CPU it last ran on */
};

/* Pure: parses the text. Return: 0, -EINVAL. */
int proc_stat_parse(const char *text, size_t len, struct proc_stat *ret);
int proc_stat_read(const struct proc *proc, struct proc_stat *ret);
int proc_thread_stat(const struct proc *proc, pid_t tid, struct proc_stat *ret);

/* Fast path for samplers: state and last CPU out of a stat line, without the rest. Pure. Return: 0, -EINVAL. */
int proc_stat_state(const char *text, size_t len, char *ret_state, int *ret_processor);

/* /proc/PID/task/TID/schedstat. */
struct proc_schedstat {
	uint64_t run_ns;  /* on a CPU */
	uint64_t wait_ns; /* runnable, waiting for one */
	uint64_t slices;  /* times it got one */
};
int proc_schedstat_parse(const char *text, size_t len, struct proc_schedstat *ret);

/* Kept-open files of one thread. Reading a kept-open file costs a fifth of opening it (facts: measured). */
struct proc_task {
	pid_t tid;
	int stat_fd;
	int schedstat_fd; /* -1 where the kernel has none: use stat */
	int sched_fd;     /* -1: not needed yet, or the kernel has none */
};
#define PROC_TASK_NONE ((struct proc_task){ .stat_fd = -1, .schedstat_fd = -1, .sched_fd = -1 })
int proc_task_open(const struct proc *proc, pid_t tid, struct proc_task *ret_task);
void proc_task_close(struct proc_task *task);
int proc_task_state(const struct proc_task *task, char *ret_state, int *ret_processor);
int proc_task_schedstat(const struct proc_task *task, struct proc_schedstat *ret);
/* When the scheduler accounted for it last, by the clock of its CPU: for a thread that is not on a CPU, when it left
 * it. Opens its file at the first call. */
int proc_task_exec_start(const struct proc *proc, struct proc_task *task, uint64_t *ret_ns);

/* /proc/PID/status: what we use of it. */
struct proc_status {
	uid_t uid, euid;
	gid_t gid;
	pid_t tracer;     /* 0: nobody */
	int seccomp;      /* 0 none, 1 strict, 2 filter */
	uint64_t cap_eff; /* effective capabilities, a bit each */
	uint64_t voluntary_switches, involuntary_switches;
	pid_t ns_pid;      /* its pid in its own (innermost) PID namespace */
	unsigned ns_depth; /* number of PID namespaces it is seen in */
};
int proc_status_parse(const char *text, size_t len, struct proc_status *ret);
int proc_status_read(const struct proc *proc, struct proc_status *ret);

/* /proc/PID/maps. */
struct proc_map {
	raddr start, end;
	uint64_t offset;
	uint64_t dev, inode; /* dev as makedev; inode 0: anonymous */
	bool read, write, exec, shared;
	char *path; /* as the kernel shows it ("[heap]", "/usr/lib/x.so (deleted)"), "" where none */
};
typedef VEC(struct proc_map) proc_map_vec;
int proc_maps_parse(const char *text, size_t len, proc_map_vec *ret_maps);
int proc_maps_read(const struct proc *proc, proc_map_vec *ret_maps);
void proc_maps_free(proc_map_vec *maps);

/* Opens the file behind a mapping for reading, whatever the mount namespace and even where it was deleted: by map_files
 * (needs a capability), else by root/PATH, else by exe; each only where device and inode agree with the mapping's.
 * Never blocks on a FIFO or a device: only regular files are returned. Return: 0 and *ret_fd the caller's; PROC_E_GONE;
 * -EACCES; -ENOENT where it cannot be had. */
int proc_map_open(const struct proc *proc, const struct proc_map *map, int *ret_fd);

/* Opens a regular file for reading by its path inside the target's root: symbolic links cannot lead out of it, and
 * nothing but a regular file is ever opened. Return: 0 and *ret_fd the caller's; PROC_E_GONE; -ENOENT; -EACCES;
 * negative errno. */
int proc_root_open(const struct proc *proc, const char *path, int *ret_fd);

/* The same below any folder, given by a descriptor. Return: 0; -ENOENT; -EACCES; negative errno. */
int proc_open_below(int root_fd, const char *path, int *ret_fd);

/* As proc_root_open for a folder, to be listed. */
int proc_root_open_folder(const struct proc *proc, const char *path, int *ret_fd);

/* Who it is, for people and findings. */
struct proc_identity {
	char *name;     /* comm */
	char **cmdline; /* NULL-terminated; at least one entry; at most 256 entries, each cut at 4096 bytes */
	char *exe;      /* target of the exe link, without " (deleted)" */
	bool exe_deleted;
	uid_t uid;
	char *cgroup;           /* of the unified hierarchy, or systemd's; "" where none */
	char *container;        /* id out of the cgroup path (docker, containerd, cri-o, podman, lxc, nspawn), or "" */
	char *unit;             /* systemd unit out of the cgroup path, or "" */
	uint64_t start_real_ns; /* start as CLOCK_REALTIME */
};
int proc_identity_read(const struct proc *proc, struct proc_identity *ret_id);
void proc_identity_free(struct proc_identity *id);

/* Counters of a process. A value that could not be read is PROC_UNKNOWN. */
#define PROC_UNKNOWN UINT64_MAX
struct proc_counters {
	uint64_t user_ns, system_ns;
	uint64_t rss_bytes;
	uint64_t pss_bytes, uss_bytes,
		swap_bytes; /* smaps_rollup: costs the target its mmap lock, so asked for separately */
	uint64_t threads;
	uint64_t fds;
	uint64_t minor_faults, major_faults;
};
int proc_counters_read(const struct proc *proc, bool with_smaps, struct proc_counters *ret);

#endif
