/* SPDX-License-Identifier: MIT */
/* pyspyd_doctor: one function for each check, one line in the table for each function. A check looks, says what it
 * found, what that turns off, and what mends it. */
#include "pyspyd/doctor.h"

#include "engine/base/clock.h"
#include "engine/base/strbuf.h"
#include "engine/base/vec.h"
#include "engine/cpython/runtime.h"
#include "engine/proc/access.h"
#include "engine/sample/priority.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>

struct report {
	enum pyspyd_check_result result;
	struct strbuf found, effect, remedy;
};

struct patient {
	pid_t pid;
	struct proc proc; /* valid where pid is not 0 and alive */
	bool alive;
};

static void check_kernel(const struct patient *patient, struct report *report) {
	struct utsname name;
	unsigned major = 0, minor = 0;

	(void)patient;
	uname(&name);
	sscanf(name.release, "%u.%u", &major, &minor);
	strbuf_addf(&report->found, "Linux %s, %s", name.release, name.machine);
	if (major < 5 || (major == 5 && minor < 10)) {
		report->result = PYSPYD_CHECK_LIMITED;
		strbuf_adds(&report->effect, "older than 5.10: not tested");
	}
}

#define CAP_SYS_PTRACE_BIT 19
#define CAP_SYS_NICE_BIT 23

static bool own_capability(int bit) {
	struct proc self;
	struct proc_status status = { 0 };

	if (proc_open("/proc", getpid(), &self))
		return false;
	proc_status_read(&self, &status);
	proc_close(&self);
	return status.cap_eff >> bit & 1;
}

static int read_number(const char *path, int fallback) {
	FILE *file _fclose_ = fopen(path, "re");
	int value;

	return file && fscanf(file, "%d", &value) == 1 ? value : fallback;
}

static void check_ptrace(const struct patient *patient, struct report *report) {
	int scope = read_number("/proc/sys/kernel/yama/ptrace_scope", -1);

	(void)patient;
	if (own_capability(CAP_SYS_PTRACE_BIT)) {
		strbuf_adds(&report->found, "CAP_SYS_PTRACE: every process may be read");
		return;
	}
	report->result = scope > 0 ? PYSPYD_CHECK_FAILED : PYSPYD_CHECK_LIMITED;
	strbuf_addf(&report->found, "no CAP_SYS_PTRACE, %s", scope < 0 ? "no yama" : "");
	if (scope >= 0)
		strbuf_addf(&report->found, "kernel.yama.ptrace_scope=%d", scope);
	strbuf_adds(&report->effect,
		scope > 0 ? "only processes that pyspyd started itself can be read"
			  : "only your own processes can be read");
	strbuf_adds(&report->remedy,
		"sudo pyspyd …, or: sudo setcap cap_sys_ptrace,cap_sys_nice+ep \"$(command -v pyspyd)\"");
}

static void *reach(void *arg) {
	*(enum sample_priority *)arg = priority_raise();
	return NULL;
}

static void check_priority(const struct patient *patient, struct report *report) {
	enum sample_priority reached = PRIORITY_NONE;
	pthread_t thread;

	(void)patient;
	if (!pthread_create(&thread, NULL, reach, &reached))
		pthread_join(thread, NULL);
	strbuf_addf(&report->found, "priority of the samplers: %s", priority_name(reached));
	if (reached == PRIORITY_NONE) {
		report->result = PYSPYD_CHECK_LIMITED;
		strbuf_adds(&report->effect,
			"only wake-ups that come at once count: up to nine in ten samples are discarded");
		strbuf_adds(&report->remedy, "sudo setcap cap_sys_ptrace,cap_sys_nice+ep \"$(command -v pyspyd)\"");
	}
}

static void check_schedstat(const struct patient *patient, struct report *report) {
	(void)patient;
	if (!access("/proc/self/schedstat", R_OK)) {
		strbuf_adds(&report->found, "/proc/PID/schedstat is there");
		return;
	}
	report->result = PYSPYD_CHECK_LIMITED;
	strbuf_adds(&report->found, "no /proc/PID/schedstat");
	strbuf_adds(&report->effect, "sleeping threads are noticed by clock ticks only");
	strbuf_adds(&report->remedy, "a kernel with CONFIG_SCHED_INFO");
}

static void check_waits(const struct patient *patient, struct report *report) {
	(void)patient;
	if (access("/proc/thread-self/syscall", R_OK)) {
		report->result = PYSPYD_CHECK_FAILED;
		strbuf_adds(&report->found, "no /proc/PID/syscall");
		strbuf_adds(&report->effect,
			"what threads wait for is not known: no deadlock, no hang, empty `pyspyd waits`");
		strbuf_adds(&report->remedy, "a kernel with CONFIG_HAVE_ARCH_TRACEHOOK and /proc/PID/syscall");
		return;
	}
	strbuf_addf(&report->found, "/proc/PID/syscall tells what threads wait for; /proc/PID/sched %s since when",
		access("/proc/self/sched", R_OK) ? "is not there to tell" : "tells");
	if (geteuid()) {
		report->result = PYSPYD_CHECK_LIMITED;
		strbuf_adds(
			&report->effect, "who holds the other end of a pipe is known among your own processes only");
		strbuf_adds(&report->remedy, "sudo pyspyd …");
	}
}

static void check_files(const struct patient *patient, struct report *report) {
	struct rlimit limit = { 0 };

	(void)patient;
	getrlimit(RLIMIT_NOFILE, &limit);
	strbuf_addf(&report->found, "up to %llu open files: about %llu threads", (unsigned long long)limit.rlim_max,
		(unsigned long long)limit.rlim_max / 2);
	if (limit.rlim_max < 8192) {
		report->result = PYSPYD_CHECK_LIMITED;
		strbuf_adds(&report->effect, "threads beyond that are not watched");
		strbuf_adds(&report->remedy, "ulimit -Hn 65536, or LimitNOFILE=65536 in the unit");
	}
}

static void check_namespace(const struct patient *patient, struct report *report) {
	char target[64] = "";
	ssize_t n = readlink("/proc/1/ns/pid", target, sizeof(target) - 1);
	char own[64] = "";

	(void)patient;
	if (readlink("/proc/self/ns/pid", own, sizeof(own) - 1) < 0)
		own[0] = '\0';
	if (n > 0 && strcmp(own, target)) {
		report->result = PYSPYD_CHECK_LIMITED;
		strbuf_adds(&report->found, "/proc belongs to another PID namespace than this process");
		strbuf_adds(&report->effect, "pids do not mean here what they mean in /proc");
		strbuf_adds(&report->remedy, "mount the /proc of this namespace");
		return;
	}
	strbuf_adds(&report->found, "/proc is that of this PID namespace");
}

static void check_btf(const struct patient *patient, struct report *report) {
	(void)patient;
	strbuf_addf(&report->found, "kernel BTF %s; this version samples by reading memory, without eBPF",
		access("/sys/kernel/btf/vmlinux", R_OK) ? "is not there" : "is there");
}

static void check_process(const struct patient *patient, struct report *report) {
	enum access_layer layer;
	struct err err = { 0 };
	struct mem *mem = NULL;
	struct py_runtime rt;
	const char *newline;
	int r;

	if (!patient->alive) {
		report->result = PYSPYD_CHECK_FAILED;
		strbuf_addf(&report->found, "there is no process %d", (int)patient->pid);
		return;
	}
	r = access_check(&patient->proc, &layer, &err);
	if (!r)
		r = mem_live_new(patient->proc.pid, &mem);
	if (!r)
		r = py_runtime_attach(&patient->proc, mem, &rt, &err);
	mem_free(mem);
	if (!r) {
		strbuf_addf(&report->found, "Python %s, can be read%s", rt.version,
			rt.foreign_tids ? "; it is in another PID namespace" : "");
		return;
	}
	report->result = PYSPYD_CHECK_FAILED;
	newline = strchr(err.text, '\n');
	strbuf_add(&report->found, err.text, newline ? (size_t)(newline - err.text) : strlen(err.text));
	strbuf_adds(&report->effect, "process cannot be watched");
	strbuf_adds(&report->remedy, newline ? newline + 1 : "");
}

static void check_cpus(const struct patient *patient, struct report *report) {
	cpu_set_t ours, theirs;
	int outside = 0;

	CPU_ZERO(&ours);
	CPU_ZERO(&theirs);
	if (!patient->alive || sched_getaffinity(0, sizeof(ours), &ours) ||
		sched_getaffinity(patient->pid, sizeof(theirs), &theirs)) {
		strbuf_adds(&report->found, "not known");
		return;
	}
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		outside += CPU_ISSET(cpu, &theirs) && !CPU_ISSET(cpu, &ours);
	strbuf_addf(&report->found, "runs on %d CPUs, %d of which are closed to us", CPU_COUNT(&theirs), outside);
	if (outside) {
		report->result = PYSPYD_CHECK_LIMITED;
		strbuf_adds(&report->effect, "on those its stacks are copied from another CPU, less exactly");
		strbuf_adds(&report->remedy, "start pyspyd in a cpuset that holds the target's");
	}
}

static const struct {
	const char *name;
	bool of_process;
	void (*run)(const struct patient *patient, struct report *report);
} checks[] = {
	{ "kernel", false, check_kernel },
	{ "ptrace", false, check_ptrace },
	{ "priority", false, check_priority },
	{ "schedstat", false, check_schedstat },
	{ "waits", false, check_waits },
	{ "files", false, check_files },
	{ "pid-namespace", false, check_namespace },
	{ "ebpf", false, check_btf },
	{ "process", true, check_process },
	{ "cpus", true, check_cpus },
};

int pyspyd_doctor(pid_t pid, struct pyspyd_check **ret_checks, size_t *ret_n, struct err *err) {
	struct pyspyd_check *found = calloc(ARRAY_SIZE(checks), sizeof(*found));
	struct patient patient = { .pid = pid };
	size_t n = 0;
	bool failed = !found;

	if (failed)
		return err_set(err, -ENOMEM, "out of memory");
	patient.alive = pid && !proc_open("/proc", pid, &patient.proc);
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		struct report report = { 0 };

		if (checks[i].of_process && !pid)
			continue;
		checks[i].run(&patient, &report);
		found[n].name = strdup(checks[i].name);
		found[n].result = report.result;
		found[n].found = strbuf_take(&report.found);
		found[n].effect = strbuf_take(&report.effect);
		found[n].remedy = strbuf_take(&report.remedy);
		failed |= !found[n].name || !found[n].found || !found[n].effect || !found[n].remedy;
		n++;
	}
	if (patient.alive)
		proc_close(&patient.proc);
	if (failed) {
		pyspyd_doctor_free(found, n);
		return err_set(err, -ENOMEM, "out of memory");
	}
	*ret_checks = found;
	*ret_n = n;
	return 0;
}

void pyspyd_doctor_free(struct pyspyd_check *found, size_t n) {
	for (size_t i = 0; found && i < n; i++) {
		free(found[i].name);
		free(found[i].found);
		free(found[i].effect);
		free(found[i].remedy);
	}
	free(found);
}
