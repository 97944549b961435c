/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_MEM_CORE_H
#define PYSPYD_MEM_CORE_H

#include "engine/base/vec.h"
#include "engine/mem/mem.h"
#include "engine/proc/captured.h"
#include "engine/proc/proc.h"
#include "pyspyd/err.h"
#include <sys/user.h>

/* ELF core files, as the kernel, gcore and systemd-coredump write them, also compressed (zstd, xz, lz4, gzip): what the
 * process was, why it died, its threads with their registers, its memory. A core may be anything, and may be cut short:
 * what is missing is missing and counted, never guessed.
 *
 * Read-only code and data of files are mostly not in a core. They are read from the files, but only where the core
 * itself has a file's build id and the file has the same one. */

struct core_segment {
	raddr start, end;
	uint64_t offset, bytes; /* in the core; memory behind `bytes` was not dumped */
	bool read, write, exec;
};

/* A thread; the one that died is the first of them. */
struct core_thread {
	pid_t tid;    /* as the process saw it */
	int signal;   /* that it had to deal with; 0: none */
	int64_t call; /* number of its system call, negative: it was in none, as far as the registers tell */
	struct user_regs_struct regs;
};

/* Why it died, of the thread that died. */
struct core_signal {
	int number; /* 0: it did not die, the core was taken from a living process */
	int code;   /* si_code */
	bool has_address, has_sender;
	raddr address;    /* that faulted */
	pid_t sender;     /* who sent it, as the process saw it */
	uid_t sender_uid; /* … */
};

enum core_file_state {
	CORE_FILE_VERIFIED,   /* has the build id that the core has */
	CORE_FILE_UNVERIFIED, /* the core, or the file, has none: good for names, not for data */
	CORE_FILE_DIFFERENT,  /* another one than the process had */
	CORE_FILE_MISSING,    /* it is not there, or cannot be read */
	CORE_FILE_NONE,       /* not looked at: no program and no library */
};

#define CORE_BUILD_ID_MAX 64

/* A file that was mapped. */
struct core_file {
	char *path; /* as the process had it; may end in " (deleted)" */
	enum core_file_state state;
	char *place;                         /* where it is now: below the root, or of the host; NULL: nowhere */
	bool on_host;                        /* `place` is a path of the host */
	uint64_t dev, inode;                 /* of `place` */
	uint8_t build_id[CORE_BUILD_ID_MAX]; /* as the core has it */
	size_t build_id_len;                 /* 0: it has none */
};

/* Where one of them was mapped. */
struct core_mapping {
	raddr start, end;
	uint64_t offset; /* bytes */
	size_t file;
};

struct core {
	int fd;
	bool by_kernel;                    /* as far as one can see, the kernel has written it: the process died */
	uint64_t bytes;                    /* of the core, unpacked */
	uint64_t expected_bytes;           /* that its headers promise */
	VEC(struct core_segment) segments; /* ascending, without overlaps */
	VEC(struct core_thread) threads;
	VEC(struct core_file) files;
	VEC(struct core_mapping) mappings; /* ascending, without overlaps */
	VEC(uint64_t) auxv;                /* pairs of type and value */
	struct core_signal signal;
	pid_t pid, ppid;
	uid_t uid;
	gid_t gid;
	char comm[17]; /* of the thread that died */
	char args[81]; /* of the command line, cut; blanks between them */
	size_t exe;    /* index of its file; SIZE_MAX unknown */
	char *root;    /* where files were looked for; NULL: not yet */
	int root_fd;
};

/* Return: 0; -ENOEXEC: it is no core file, or a foreign or broken one; -ENODATA: it is cut off before its first
 * thread; -EFBIG, -ENOSPC: it does not fit when unpacked; negative errno.
 * The text says it. */
int core_open(const char *path, struct core **ret_core, struct err *err);

/* The same; `fd` is taken over, whatever happens. `name` is for the text. */
int core_open_fd(int fd, const char *name, struct core **ret_core, struct err *err);
void core_free(struct core *core);

static inline bool core_is_truncated(const struct core *core) {
	return core->bytes < core->expected_bytes;
}

/* Return: whether the process was told a value of this type (AT_PHDR …). */
bool core_auxv(const struct core *core, uint64_t type, uint64_t *ret_value);

/* The thread of that id; NULL: there is none. */
const struct core_thread *core_thread(const struct core *core, pid_t tid);

/* Looks for the mapped files below `root` (NULL: "/"), and takes `exe`, a path of the host, for the executable (NULL:
 * where the process had it). None of them is ever executed. To be called once, before core_mem_new. Return: 0;
 * -ESTALE: `exe` is not the executable of this core; negative errno of opening `root` or `exe`. */
int core_find_files(struct core *core, const char *root, const char *exe, struct err *err);

/* The process's memory. `core` is borrowed. Return: 0; -ENOMEM. */
int core_mem_new(struct core *core, struct mem **ret_mem);

/* The process as a tree of /proc; after core_find_files. Return: 0; -ENOMEM; -E2BIG: too many mappings; negative errno.
 */
int core_tree(const struct core *core, struct mem *mem, struct captured **ret_tree, struct err *err);

/* The line that /proc/PID/task/TID/syscall had for a thread, with its newline. `mem` shows whether it stands behind an
 * instruction that enters the kernel. */
void core_thread_syscall(const struct core_thread *thread, struct mem *mem, char *buf, size_t size);

#endif
