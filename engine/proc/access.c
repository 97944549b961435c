/* SPDX-License-Identifier: MIT */
/* Why a process may not be read.
 *
 * The kernel says EPERM whoever refuses. So the question is asked once for real, and where the answer is no, the facts
 * that the kernel's own check looks at are gathered and judged in the kernel's order (Linux kernel/ptrace.c
 * __ptrace_may_access, security/commoncap.c, security/yama/yama_lsm.c): owner, dumpable, capabilities, yama; what none
 * of them explains is a security module's doing. CAP_SYS_PTRACE in the target's user namespace overrides all of them
 * but yama's scope 3. What cannot be seen (the target's namespace link is closed to us as well) is inferred from files
 * that everybody may read; the verdict explains, it decides nothing. */
#include "engine/proc/access.h"

#include "engine/proc/files.h"
#include "engine/proc/text.h"
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define INITIAL_USERNS "user:[4026531837]" /* PROC_USER_INIT_INO, Linux include/linux/proc_ns.h */
#define UNMAPPED_ID UINT32_MAX             /* an id that has no name in our user namespace */
#define ANCESTORS_MAX 4096
#define USERNS_DEPTH_MAX 40 /* the kernel's is 32 */

static bool may_ptrace(const struct access_facts *facts) {
	return facts->our_caps >> CAP_SYS_PTRACE & 1;
}

static enum access_layer judge_privileged(const struct access_facts *facts) {
	if (!facts->same_userns)
		return ACCESS_USERNS;
	if (facts->yama_scope == 3)
		return ACCESS_YAMA;
	if (facts->our_seccomp)
		return ACCESS_SECCOMP;
	return !facts->target_dumpable && !facts->in_initial_userns ? ACCESS_USERNS : ACCESS_LSM;
}

enum access_layer access_judge(const struct access_facts *facts) {
	const uid_t *uid = facts->target_uid;

	if (!facts->error)
		return ACCESS_OK;
	if (facts->error == ENOSYS)
		return ACCESS_SECCOMP;
	if (may_ptrace(facts))
		return judge_privileged(facts);
	if (uid[0] != facts->our_euid)
		return facts->same_userns ? ACCESS_UID : ACCESS_USERNS;
	if (uid[1] != uid[0] || uid[2] != uid[0])
		return ACCESS_CAPABILITY;
	if (!facts->target_dumpable)
		return ACCESS_DUMPABLE;
	if (!facts->same_userns)
		return ACCESS_USERNS;
	if (facts->target_caps & ~facts->our_caps)
		return ACCESS_CAPABILITY;
	if (facts->yama_scope > 1 || (facts->yama_scope == 1 && !facts->descendant))
		return ACCESS_YAMA;
	return facts->our_seccomp ? ACCESS_SECCOMP : ACCESS_LSM;
}

/* How to get CAP_SYS_PTRACE, by what we are. */
static const char *privilege_remedy(const struct access_facts *facts) {
	if (!facts->in_initial_userns)
		return "run pyspyd on the host as root, or, in a container of a rootful engine, start the container "
		       "with "
		       "`--cap-add SYS_PTRACE`";
	if (!facts->our_euid)
		return "this root lacks CAP_SYS_PTRACE: start the container with `docker run --cap-add SYS_PTRACE` "
		       "(Kubernetes: "
		       "securityContext.capabilities.add: [\"SYS_PTRACE\"]; systemd: "
		       "CapabilityBoundingSet=CAP_SYS_PTRACE)";
	return "run it with sudo, or once: `sudo setcap cap_sys_ptrace+ep \"$(command -v pyspyd)\"`";
}

static void explain_yama(const struct access_facts *facts, int pid, struct err *err) {
	if (facts->yama_scope == 3)
		err_set(err, PYSPYD_E_DENIED,
			"process %d cannot be read: kernel.yama.ptrace_scope is 3, nobody may, root neither\n"
			"to permit: set kernel.yama.ptrace_scope=1 in /etc/sysctl.d and reboot; scope 3 cannot be left "
			"before",
			pid);
	else if (facts->yama_scope == 2)
		err_set(err, PYSPYD_E_DENIED,
			"process %d cannot be read: kernel.yama.ptrace_scope is 2, only CAP_SYS_PTRACE may\nto permit: "
			"%s; or "
			"`sudo sysctl kernel.yama.ptrace_scope=0`",
			pid, privilege_remedy(facts));
	else
		err_set(err, PYSPYD_E_DENIED,
			"process %d cannot be read: kernel.yama.ptrace_scope is 1, only its ancestors may\n"
			"to permit: `sudo sysctl kernel.yama.ptrace_scope=0`, or %s; a program that pyspyd starts "
			"itself (`pyspyd "
			"record -- CMD`) may be read as well",
			pid, privilege_remedy(facts));
}

static void explain_dumpable(const struct access_facts *facts, int pid, struct err *err) {
	err_set(err, PYSPYD_E_DENIED,
		"process %d cannot be read: it made itself undumpable (PR_SET_DUMPABLE, or started from a file that "
		"its user "
		"may not read or with other rights)\nto permit: %s",
		pid, privilege_remedy(facts));
}

static void explain_seccomp(const struct access_facts *facts, int pid, struct err *err) {
	err_set(err, PYSPYD_E_DENIED, "process %d cannot be read: %s\nto permit: %s", pid,
		facts->our_seccomp
			? "a seccomp filter on pyspyd itself forbids process_vm_readv (a container engine's default)"
			: "this kernel has no process_vm_readv and /proc/PID/mem is closed",
		facts->our_seccomp
			? "start the container with `--cap-add SYS_PTRACE` (opens these calls in the default profile "
			  "too) or "
			  "`--security-opt seccomp=unconfined`; systemd: SystemCallFilter=process_vm_readv ptrace"
			: "a kernel with CONFIG_CROSS_MEMORY_ATTACH=y");
}

void access_explain(enum access_layer layer, const struct access_facts *facts, pid_t pid, struct err *err) {
	int number = (int)pid;

	switch (layer) {
	case ACCESS_OK: err_set(err, 0, "process %d can be read", number); break;
	case ACCESS_UID:
		err_set(err, PYSPYD_E_DENIED,
			"process %d cannot be read: it belongs to uid %u, pyspyd runs as uid %u without "
			"CAP_SYS_PTRACE\n"
			"to permit: %s",
			number, facts->target_uid[0], facts->our_euid, privilege_remedy(facts));
		break;
	case ACCESS_CAPABILITY:
		err_set(err, PYSPYD_E_DENIED,
			"process %d cannot be read: it has rights that pyspyd lacks (set-uid, or capabilities %#llx)\n"
			"to permit: %s",
			number, (unsigned long long)(facts->target_caps & ~facts->our_caps), privilege_remedy(facts));
		break;
	case ACCESS_YAMA: explain_yama(facts, number, err); break;
	case ACCESS_USERNS:
		err_set(err, PYSPYD_E_DENIED,
			"process %d cannot be read: it belongs to a user namespace in which pyspyd has no rights\n"
			"to permit: run pyspyd as root outside of this user namespace (on the host)",
			number);
		break;
	case ACCESS_DUMPABLE: explain_dumpable(facts, number, err); break;
	case ACCESS_SECCOMP: explain_seccomp(facts, number, err); break;
	case ACCESS_LSM:
		err_set(err, PYSPYD_E_DENIED,
			"process %d cannot be read: a security module forbids it (SELinux, AppArmor, Smack, Landlock; "
			"file rights, "
			"capabilities and yama permit it)\nto permit: see `sudo journalctl -k --grep 'denied|ptrace'`; "
			"AppArmor in "
			"docker: `--security-opt apparmor=unconfined`; SELinux: `sudo setsebool deny_ptrace 0`",
			number);
		break;
	}
}

/* One byte at an address that nobody has mapped: permission is asked before the address is looked at.
 * Return: 0 permitted; positive errno. */
static int try_read(pid_t pid) {
	char byte;
	struct iovec local = { .iov_base = &byte, .iov_len = 1 }, remote = { .iov_base = NULL, .iov_len = 1 };

	if (process_vm_readv(pid, &local, 1, &remote, 1, 0) >= 0 || errno == EFAULT)
		return 0;
	return errno;
}

/* Where we may not read ourselves either, the call as such is forbidden, and the file tells whether anything else is.
 * Where there is no such call at all, memory is read through the file. Return: 0 permitted; positive errno. */
static int try_target(const struct proc *proc) {
	_close_ int mem_fd = -1;
	int error = try_read(proc->pid);

	if (error != ENOSYS && (error != EPERM || !try_read(getpid())))
		return error;
	mem_fd = openat(proc->dir_fd, "mem", O_RDONLY | O_CLOEXEC);
	if (mem_fd < 0)
		return errno == ENOENT ? ESRCH : errno;
	return error == ENOSYS ? 0 : ENOSYS;
}

/* Finds "KEY:" in a status text and moves behind it. */
static bool find_key(struct text t, const char *key, struct text *ret_value) {
	struct text line;

	while (text_line(&t, &line)) {
		if (text_left(&line) < strlen(key) || memcmp(line.at, key, strlen(key)))
			continue;
		line.at += strlen(key);
		text_blanks(&line);
		*ret_value = line;
		return true;
	}
	return false;
}

static void read_target_status(const struct proc *proc, struct access_facts *facts) {
	_free_ char *data = NULL;
	struct text value;
	uint64_t id;
	size_t len;

	if (proc_read_file(proc, "status", FILES_STATUS_MAX, &data, &len))
		return;
	if (find_key(text_of(data, len), "Uid:", &value))
		for (size_t i = 0; i < 3 && text_u64(&value, &id); i++, text_blanks(&value))
			facts->target_uid[i] = (uid_t)id;
	if (find_key(text_of(data, len), "CapPrm:", &value))
		text_hex(&value, &facts->target_caps);
}

/* Whether namespace `fd` is the one of `ours` or below it: goes up until it meets it. Takes fd over. */
static bool is_below(int fd, const struct stat *ours) {
	for (int depth = 0; fd >= 0 && depth < USERNS_DEPTH_MAX; depth++) {
		_close_ int here = fd;
		struct stat st;

		if (fstat(here, &st))
			return false;
		if (st.st_dev == ours->st_dev && st.st_ino == ours->st_ino)
			return true;
		fd = ioctl(here, NS_GET_PARENT);
	}
	close_fd(&fd);
	return false;
}

/* What an uid_map says to us: the number of ids, and whether all have a name in our namespace. */
struct id_map {
	uint64_t ids;
	bool named;
};

static bool read_id_map(int dir_fd, const char *name, struct id_map *ret) {
	struct id_map map = { .named = true };
	char buf[8192];
	struct text t, line;
	size_t len;

	if (files_read_small(dir_fd, name, buf, sizeof(buf), &len))
		return false;
	for (t = text_of(buf, len); text_line(&t, &line);) {
		uint64_t column[3];
		size_t i = 0;

		for (text_blanks(&line); i < 3 && text_u64(&line, &column[i]); i++)
			text_blanks(&line);
		if (i < 3)
			continue;
		map.named &= column[1] != UNMAPPED_ID;
		map.ids += column[2];
	}
	*ret = map;
	return true;
}

/* A namespace below ours has only ids that ours has as well: no unnamed ones, and not more. */
static bool ids_fit_below(const struct proc *proc) {
	struct id_map ours, theirs;

	if (!read_id_map(AT_FDCWD, "/proc/self/uid_map", &ours) || !read_id_map(proc->dir_fd, "uid_map", &theirs))
		return true;
	return theirs.named && theirs.ids <= ours.ids;
}

static bool shares_userns(const struct proc *proc) {
	int fd = openat(proc->dir_fd, "ns/user", O_RDONLY | O_CLOEXEC);
	struct stat ours;

	if (fd >= 0 && !stat("/proc/self/ns/user", &ours))
		return is_below(fd, &ours);
	close_fd(&fd);
	return ids_fit_below(proc);
}

static bool is_descendant(const struct proc *proc) {
	pid_t pid = proc->pid, self = getpid();

	for (int i = 0; i < ANCESTORS_MAX && pid > 1; i++) {
		char name[32], buf[FILES_STAT_SIZE];
		struct proc_stat stat;
		size_t len;

		snprintf(name, sizeof(name), "/proc/%d/stat", (int)pid);
		if (files_read_small(AT_FDCWD, name, buf, sizeof(buf), &len) || proc_stat_parse(buf, len, &stat))
			return false;
		if (stat.ppid == self)
			return true;
		pid = stat.ppid;
	}
	return false;
}

/* The files of an undumpable process belong to root. Of a process of root this cannot be told. */
static bool is_dumpable(const struct proc *proc, uid_t target_euid) {
	struct stat st;

	return fstatat(proc->dir_fd, "stat", &st, 0) || st.st_uid == target_euid;
}

static int yama_scope(void) {
	char buf[16];
	struct text t;
	size_t len;
	int scope;

	if (files_read_small(AT_FDCWD, "/proc/sys/kernel/yama/ptrace_scope", buf, sizeof(buf), &len))
		return -1;
	t = text_of(buf, len);
	return text_int(&t, &scope) ? scope : -1;
}

static void gather_ours(struct access_facts *facts) {
	_free_ char *userns = NULL;
	char buf[FILES_STAT_SIZE * 4];
	struct proc_status status;
	size_t len;

	facts->our_euid = geteuid();
	if (!files_read_small(AT_FDCWD, "/proc/self/status", buf, sizeof(buf), &len) &&
		!proc_status_parse(buf, len, &status)) {
		facts->our_caps = status.cap_eff;
		facts->our_seccomp = status.seccomp;
	}
	facts->in_initial_userns =
		files_read_link(AT_FDCWD, "/proc/self/ns/user", &userns) || !strcmp(userns, INITIAL_USERNS);
	facts->yama_scope = yama_scope();
}

int access_check(const struct proc *proc, enum access_layer *ret_layer, struct err *err) {
	struct access_facts facts = { .error = try_target(proc) };
	enum access_layer layer;

	if (!proc_alive(proc))
		return err_set(err, PYSPYD_E_GONE, "process %d has ended", (int)proc->pid);
	/* ESRCH of one that lives: a kernel thread, which has no memory to forbid. */
	if (!facts.error || facts.error == ESRCH) {
		*ret_layer = ACCESS_OK;
		return 0;
	}
	if (facts.error != EPERM && facts.error != EACCES && facts.error != ENOSYS)
		return err_set(
			err, -facts.error, "process %d cannot be read: %s", (int)proc->pid, strerror(facts.error));
	gather_ours(&facts);
	read_target_status(proc, &facts);
	facts.same_userns = shares_userns(proc);
	facts.descendant = is_descendant(proc);
	facts.target_dumpable = is_dumpable(proc, facts.target_uid[1]);
	layer = access_judge(&facts);
	access_explain(layer, &facts, proc->pid, err);
	*ret_layer = layer;
	return PYSPYD_E_DENIED;
}
