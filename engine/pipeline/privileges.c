/* SPDX-License-Identifier: MIT */
/* The table of what pyspyd needs of the system, and of what keeps its service in bounds. A new one is a row here.
 *
 * Each row is looked for at the process that asks; what the service found at its own start stands in its status by the
 * row's name, so that a command without privileges can say what the service lacks. */
#include "engine/pipeline/privileges.h"

#include "engine/base/util.h"
#include "engine/proc/proc.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef CAP_CHECKPOINT_RESTORE /* Linux 5.9, include/uapi/linux/capability.h */
#define CAP_CHECKPOINT_RESTORE 40
#endif
#ifndef CAP_BPF /* Linux 5.8, ibid. */
#define CAP_PERFMON 38
#define CAP_BPF 39
#endif

/* Linux include/linux/proc_ns.h: the inodes of the first namespaces are the same since 3.8. */
#define FIRST_USER_NS 0xEFFFFFFDU
#define FIRST_PID_NS 0xEFFFFFFCU

static bool reads_memory(void) {
	char from = 1, to = 0;
	struct iovec local = { &to, 1 }, remote = { &from, 1 };

	return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == 1;
}

static bool is_namespace(const char *path, ino_t inode) {
	struct stat st;

	return stat(path, &st) || st.st_ino == inode; /* not to be seen: nothing is claimed */
}

static bool sees_all_pids(void) {
	return is_namespace("/proc/self/ns/pid", FIRST_PID_NS);
}

static bool in_first_users(void) {
	return is_namespace("/proc/self/ns/user", FIRST_USER_NS);
}

static bool has_filter(void) {
	return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 2;
}

static bool is_no_root(void) {
	return geteuid() != 0;
}

static bool is_read_only(void) {
	struct statvfs fs;

	return !statvfs("/usr", &fs) && fs.f_flag & ST_RDONLY;
}

/* Where there is none, nothing keeps it away. */
static bool reads_journal(void) {
	static const char *const folders[] = { "/run/log/journal", "/var/log/journal" };
	char id[33] = "", path[96];
	FILE *file = fopen("/etc/machine-id", "re");
	bool known = file && fgets(id, sizeof(id), file), denied = false;
	int fd;

	if (file)
		fclose(file);
	for (size_t i = 0; known && i < ARRAY_SIZE(folders); i++) {
		snprintf(path, sizeof(path), "%s/%s/system.journal", folders[i], id);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		denied = denied || (fd < 0 && errno == EACCES);
		if (fd >= 0)
			close(fd);
	}
	return !denied;
}

#define BOTH (OF_CALLER | OF_SERVICE)

/* The effects of capabilities were measured on Linux 6.18 with all but one, looking at a process of another user. */
const struct privilege_row privilege_rows[] = {
	{ "cap_sys_ptrace", BOTH, "SYS_PTRACE", CAP_SYS_PTRACE, NULL, "processes of all users may be read",
		"processes of other users may not be read", "no process of another user can be watched", NULL,
		PYSPYD_CHECK_FAILED },
	{ "cap_dac_read_search", BOTH, "DAC_READ_SEARCH", CAP_DAC_READ_SEARCH, NULL,
		"files of all users in /proc may be read", "files of other users in /proc may not be read",
		"what threads of other users' processes wait for is not known (no deadlock, no hang), nor are their "
		"descriptors (no handle-leak)",
		NULL, PYSPYD_CHECK_LIMITED },
	{ "cap_checkpoint_restore", BOTH, "CHECKPOINT_RESTORE", CAP_CHECKPOINT_RESTORE, NULL,
		"mapped files may be opened that were deleted", "mapped files may not be opened that were deleted",
		"a process whose libpython was deleted or replaced since it started, as by an upgrade, cannot be "
		"watched",
		NULL, PYSPYD_CHECK_LIMITED },
	{ "cap_sys_nice", BOTH, "SYS_NICE", CAP_SYS_NICE, NULL, "samplers may preempt what they look at",
		"samplers may not preempt what they look at",
		"samplers do not come at once: more samples are discarded, and shares are less exact", NULL,
		PYSPYD_CHECK_LIMITED },
	{ "cap_bpf", BOTH, "BPF", CAP_BPF, NULL, "eBPF programs may be loaded", "eBPF programs may not be loaded",
		"stacks are read by a sampler on each CPU, which costs more; processes are found by looking for them",
		NULL, PYSPYD_CHECK_LIMITED },
	{ "cap_perfmon", BOTH, "PERFMON", CAP_PERFMON, NULL, "eBPF programs may look at other processes",
		"eBPF programs may not look at other processes", "as without cap_bpf", NULL, PYSPYD_CHECK_LIMITED },
	{ "memory", BOTH, NULL, 0, reads_memory, "process_vm_readv is there",
		"process_vm_readv is refused by a seccomp filter, or the kernel lacks it",
		"memory is read by /proc/PID/mem where that is open, else no process can be watched",
		"container: --cap-add=SYS_PTRACE, which opens it in the engine's profile, or "
		"--security-opt=seccomp=unconfined; kernel: CONFIG_CROSS_MEMORY_ATTACH",
		PYSPYD_CHECK_FAILED },
	{ "pids", BOTH, NULL, 0, sees_all_pids, "the PID namespace is the host's",
		"this is a PID namespace of its own, as a container's", "processes outside of it are not seen",
		"on the host; or podman and docker: --pid=host, Kubernetes: hostPID: true", PYSPYD_CHECK_LIMITED },
	{ "users", BOTH, NULL, 0, in_first_users, "the user namespace is the host's",
		"this is a user namespace of its own: its capabilities are worth nothing outside",
		"processes outside of it can be read only where they are of the same user",
		"root on the host; containers: an engine that runs as root, without --userns", PYSPYD_CHECK_LIMITED },
	{ "journal", OF_SERVICE, NULL, 0, reads_journal, "the journal may be read", "the journal may not be read",
		"crashes are told of without what systemd-coredump has stored of them",
		"systemctl edit pyspyd: [Service] SupplementaryGroups=systemd-journal; systemctl restart pyspyd",
		PYSPYD_CHECK_LIMITED },
	{ "seccomp", OF_SERVICE, NULL, 0, has_filter, "system calls are limited to those that it needs",
		"system calls are not limited",
		"nothing fails, but a fault in pyspyd could do all that its capabilities permit",
		"a kernel with CONFIG_SECCOMP_FILTER; the journal says what failed: journalctl -u pyspyd",
		PYSPYD_CHECK_LIMITED },
	{ "user", OF_SERVICE, NULL, 0, is_no_root, "it does not run as root", "it runs as root",
		"nothing fails, but a fault in pyspyd could do what root may do with the files that it sees",
		"systemctl start pyspyd (its unit has User=pyspyd); a container needs root, and --read-only",
		PYSPYD_CHECK_LIMITED },
	{ "sandbox", OF_SERVICE, NULL, 0, is_read_only, "file systems are read-only, but for its own folders",
		"file systems may be written",
		"nothing fails, but a fault in pyspyd could change whatever its user may",
		"systemctl start pyspyd (its unit has ProtectSystem=strict); containers: --read-only",
		PYSPYD_CHECK_LIMITED },
};

const size_t privilege_rows_n = ARRAY_SIZE(privilege_rows);

uint64_t privilege_capabilities(void) {
	struct proc_status status = { 0 };
	struct proc self;

	if (proc_open("/proc", getpid(), &self))
		return 0;
	proc_status_read(&self, &status);
	proc_close(&self);
	return status.cap_eff;
}

bool privilege_held(const struct privilege_row *row, uint64_t capabilities) {
	return row->capability ? capabilities >> row->bit & 1 : row->probe();
}

/* What is outside of the bounding set no program gets, root's neither. */
static void add_callers_remedy(const struct privilege_row *row, struct strbuf *sb) {
	if (prctl(PR_CAPBSET_READ, row->bit, 0, 0, 0) == 1 && geteuid())
		strbuf_adds(sb,
			"sudo pyspyd …, or: sudo setcap "
			"cap_sys_ptrace,cap_dac_read_search,cap_checkpoint_restore,cap_sys_nice,cap_bpf,cap_perfmon+ep "
			"\"$(command -v pyspyd)\"");
	else
		strbuf_addf(sb,
			"whatever started this process keeps it away; container: --cap-add=%s, Kubernetes: "
			"capabilities.add",
			row->capability);
}

void privilege_add_remedy(const struct privilege_row *row, unsigned whose, struct strbuf *sb) {
	if (row->remedy)
		strbuf_adds(sb, row->remedy);
	else if (whose == OF_CALLER)
		add_callers_remedy(row, sb);
	else
		strbuf_addf(sb,
			"systemctl edit pyspyd: [Service] AmbientCapabilities=CAP_%s CapabilityBoundingSet=CAP_%s, a "
			"line each; systemctl restart pyspyd; container: --cap-add=%s",
			row->capability, row->capability, row->capability);
}

size_t pyspyd_service_privileges(struct pyspyd_privilege *ret, size_t max) {
	uint64_t capabilities = privilege_capabilities();
	size_t n = 0;

	for (size_t i = 0; i < privilege_rows_n && n < max; i++) {
		const struct privilege_row *row = &privilege_rows[i];

		if (row->whose & OF_SERVICE)
			ret[n++] = (struct pyspyd_privilege){ row->name, row->effect, privilege_held(row, capabilities),
				row->capability != NULL };
	}
	return n;
}
