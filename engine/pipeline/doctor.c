/* SPDX-License-Identifier: MIT */
/* pyspyd_doctor: one function for each check, one line in the table for each function. A check looks, says what it
 * found, what that turns off, and what mends it. What a process may do is the table of privileges.c: looked for here,
 * or, for the service, read out of what it says of itself. */
#include "pyspyd/doctor.h"

#include "engine/base/clock.h"
#include "engine/base/strbuf.h"
#include "engine/base/vec.h"
#include "engine/cpython/runtime.h"
#include "engine/pipeline/privileges.h"
#include "engine/proc/access.h"
#include "engine/sample/bpf_events.h"
#include "engine/sample/bpf_offcpu.h"
#include "engine/sample/bpf_source.h"
#include "engine/sample/bpf_tasks.h"
#include "engine/sample/priority.h"
#include "pyspyd/version.h"
#include <fcntl.h>
#include <jansson.h>
#include <linux/capability.h>
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

static int read_number(const char *path, int fallback) {
	FILE *file _fclose_ = fopen(path, "re");
	int value;

	return file && fscanf(file, "%d", &value) == 1 ? value : fallback;
}

static void check_yama(const struct patient *patient, struct report *report) {
	int scope = read_number("/proc/sys/kernel/yama/ptrace_scope", -1);
	bool capable = privilege_capabilities() >> CAP_SYS_PTRACE & 1;

	(void)patient;
	if (scope < 0)
		strbuf_adds(&report->found, "this kernel has no yama");
	else
		strbuf_addf(&report->found, "kernel.yama.ptrace_scope=%d%s", scope,
			scope > 0 && scope < 3 && capable ? ", which CAP_SYS_PTRACE overrides" : "");
	if (scope <= 0 || (scope < 3 && capable))
		return;
	report->result = PYSPYD_CHECK_FAILED;
	strbuf_adds(&report->effect,
		scope == 1 ? "only processes that pyspyd started itself can be read" : "no process can be read");
	strbuf_adds(&report->remedy,
		scope < 3 ? "sudo pyspyd …, or: sudo sysctl kernel.yama.ptrace_scope=0"
			  : "kernel.yama.ptrace_scope=1 in /etc/sysctl.d, and a reboot: 3 cannot be left before");
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
		strbuf_adds(&report->remedy, "what gives cap_sys_nice (above)");
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

static void check_ebpf(const struct patient *patient, struct report *report) {
	const struct bpf_source_options options = { .rate_hz = 1 };
	struct bpf_source *source;
	struct err err = { 0 };
	int r = bpf_source_new(&options, &source, &err);

	(void)patient;
	if (!r) {
		bpf_source_free(source);
		strbuf_adds(&report->found, "stacks of running threads are taken by eBPF, where they run");
		return;
	}
	report->result = PYSPYD_CHECK_LIMITED;
	strbuf_addf(&report->found, "%s%s", err.text,
		access("/sys/kernel/btf/vmlinux", R_OK) ? "; the kernel does not describe itself (no BTF)" : "");
	strbuf_adds(&report->effect,
		"stacks are read by a sampler on each CPU instead: exact where the priority can be raised, and dearer");
	strbuf_adds(&report->remedy,
		r == PYSPYD_E_DENIED ? "what gives cap_bpf and cap_perfmon (above)"
				     : "a kernel from 5.10 on, with CONFIG_DEBUG_INFO_BTF");
}

static void check_off_cpu(const struct patient *patient, struct report *report) {
	const struct bpf_offcpu_options options = { .threshold_ns = NS_PER_MS };
	struct bpf_offcpu *offcpu;
	struct err err = { 0 };
	int r = bpf_offcpu_new(&options, &offcpu, &err);

	(void)patient;
	if (!r) {
		bpf_offcpu_free(offcpu);
		strbuf_adds(&report->found, "time off CPU can be measured (record --mode offcpu)");
		return;
	}
	report->result = PYSPYD_CHECK_LIMITED;
	strbuf_adds(&report->found, err.text);
	strbuf_adds(&report->effect, "there is no record --mode offcpu");
	strbuf_adds(&report->remedy,
		r == PYSPYD_E_DENIED ? "what gives cap_bpf and cap_perfmon (above)"
				     : "a kernel from 5.10 on, with CONFIG_DEBUG_INFO_BTF");
}

static void check_events(const struct patient *patient, struct report *report) {
	struct bpf_events *events;
	struct err err = { 0 };
	int r = bpf_events_new(false, &events, &err);

	(void)patient;
	if (!r) {
		bpf_events_free(events);
		strbuf_adds(&report->found, "the kernel tells of new processes, and how those that are watched end");
		return;
	}
	report->result = PYSPYD_CHECK_LIMITED;
	strbuf_adds(&report->found, err.text);
	strbuf_adds(&report->effect,
		"new processes are searched, those that live for less than two seconds may be missed; how a process "
		"ended "
		"is known of own children alone (no crash)");
	strbuf_adds(&report->remedy,
		r == PYSPYD_E_DENIED ? "what gives cap_bpf and cap_perfmon (above)"
				     : "a kernel from 5.10 on, with CONFIG_DEBUG_INFO_BTF");
}

static void check_counters(const struct patient *patient, struct report *report) {
	struct bpf_tasks *tasks;
	struct err err = { 0 };
	int r = bpf_tasks_new(&tasks, &err);

	(void)patient;
	if (!r) {
		bpf_tasks_free(tasks);
		strbuf_adds(&report->found, "one pass through the kernel's tasks tells which threads have run");
		return;
	}
	report->result = PYSPYD_CHECK_LIMITED;
	strbuf_adds(&report->found, err.text);
	strbuf_adds(&report->effect,
		"where many processes are watched each is asked which of its threads have run, which costs more");
	strbuf_adds(&report->remedy,
		r == PYSPYD_E_DENIED ? "what gives cap_bpf and cap_perfmon (above)"
				     : "a kernel from 5.10 on, with CONFIG_DEBUG_INFO_BTF");
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
	{ "yama", false, check_yama },
	{ "priority", false, check_priority },
	{ "schedstat", false, check_schedstat },
	{ "waits", false, check_waits },
	{ "files", false, check_files },
	{ "pid-namespace", false, check_namespace },
	{ "ebpf", false, check_ebpf },
	{ "off-cpu", false, check_off_cpu },
	{ "process-events", false, check_events },
	{ "counters", false, check_counters },
	{ "process", true, check_process },
	{ "cpus", true, check_cpus },
};

typedef VEC(struct pyspyd_check) check_vec;

/* Takes the report's texts. Return: 0; -ENOMEM. */
static int add_check(check_vec *list, const char *name, struct report *report) {
	struct pyspyd_check check = { .name = strdup(name), .result = report->result };

	check.found = strbuf_take(&report->found);
	check.effect = strbuf_take(&report->effect);
	check.remedy = strbuf_take(&report->remedy);
	if (check.name && check.found && check.effect && check.remedy && !vec_push(list, check))
		return 0;
	free(check.name);
	free(check.found);
	free(check.effect);
	free(check.remedy);
	return -ENOMEM;
}

static int add_privilege(check_vec *list, const struct privilege_row *row, bool held, unsigned whose) {
	struct report report = { 0 };

	strbuf_adds(&report.found, held ? row->held : row->missing);
	if (!held) {
		report.result = whose == OF_SERVICE ? row->worst : PYSPYD_CHECK_LIMITED;
		strbuf_adds(&report.effect, row->effect);
		privilege_add_remedy(row, whose, &report.remedy);
	}
	return add_check(list, row->name, &report);
}

static int add_own_privileges(check_vec *list) {
	uint64_t capabilities = privilege_capabilities();
	int r = 0;

	for (size_t i = 0; !r && i < privilege_rows_n; i++)
		if (privilege_rows[i].whose & OF_CALLER)
			r = add_privilege(
				list, &privilege_rows[i], privilege_held(&privilege_rows[i], capabilities), OF_CALLER);
	return r;
}

/* Return: 0 with the list's items handed over, or r with a text. */
static int finish(int r, check_vec *list, struct pyspyd_check **ret_checks, size_t *ret_n, struct err *err) {
	if (r) {
		pyspyd_doctor_free(list->items, list->n);
		return err_set(err, r, r == -ENOMEM ? "out of memory" : "the service gave an answer that is none");
	}
	*ret_checks = list->items;
	*ret_n = list->n;
	return 0;
}

int pyspyd_doctor(pid_t pid, struct pyspyd_check **ret_checks, size_t *ret_n, struct err *err) {
	struct patient patient = { .pid = pid };
	check_vec list = { 0 };
	int r = add_own_privileges(&list);

	patient.alive = pid && !proc_open("/proc", pid, &patient.proc);
	for (size_t i = 0; !r && i < ARRAY_SIZE(checks); i++) {
		struct report report = { 0 };

		if (checks[i].of_process && !pid)
			continue;
		checks[i].run(&patient, &report);
		r = add_check(&list, checks[i].name, &report);
	}
	if (patient.alive)
		proc_close(&patient.proc);
	return finish(r, &list, ret_checks, ret_n, err);
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

/* The service */

static int add_its_version(check_vec *list, const json_t *status) {
	const char *version = json_string_value(json_object_get(status, "version"));
	struct report report = { 0 };

	strbuf_addf(&report.found, "version %s", version ? version : "unknown");
	if (!version || strcmp(version, PYSPYD_VERSION) != 0) {
		report.result = PYSPYD_CHECK_LIMITED;
		strbuf_adds(&report.effect, "this command is of version " PYSPYD_VERSION);
		strbuf_adds(&report.remedy, "sudo systemctl restart pyspyd");
	}
	return add_check(list, "service", &report);
}

/* What an older service does not know is not told of it. */
static int add_its_privileges(check_vec *list, const json_t *status) {
	const json_t *told = json_object_get(status, "privileges");
	int r = 0;

	for (size_t i = 0; !r && i < privilege_rows_n; i++) {
		const json_t *held = json_object_get(told, privilege_rows[i].name);

		if (json_is_boolean(held))
			r = add_privilege(list, &privilege_rows[i], json_is_true(held), OF_SERVICE);
	}
	return r;
}

static int add_its_processes(check_vec *list, const json_t *status) {
	const json_t *watch = json_object_get(status, "watch");
	json_int_t watched = json_integer_value(json_object_get(watch, "processes"));
	json_int_t denied = json_integer_value(json_object_get(watch, "processes_denied"));
	struct report report = { 0 };

	if (!watch)
		return 0;
	strbuf_addf(&report.found, "%lld watched, %lld may not be read", (long long)watched, (long long)denied);
	if (denied > 0) {
		report.result = PYSPYD_CHECK_LIMITED;
		strbuf_adds(&report.effect, "those that may not be read are not watched");
		strbuf_adds(&report.remedy, "sudo pyspyd ps says which, and why");
	}
	return add_check(list, "processes", &report);
}

static int add_its_sinks(check_vec *list, const json_t *status) {
	const json_t *sinks = json_object_get(status, "sinks");
	int r = 0;

	for (size_t i = 0; !r && i < json_array_size(sinks); i++) {
		const json_t *sink = json_array_get(sinks, i);
		const char *name = json_string_value(json_object_get(sink, "name"));
		struct report report = { 0 };

		if (!json_is_true(json_object_get(sink, "away")))
			continue;
		strbuf_addf(&report.found, "%s takes no findings now: %lld wait", name ? name : "?",
			(long long)json_integer_value(json_object_get(sink, "queued")));
		report.result = PYSPYD_CHECK_LIMITED;
		strbuf_adds(&report.effect, "they wait in the store");
		strbuf_adds(&report.remedy,
			"journalctl -u pyspyd says why; what needs the network needs a drop-in: man pyspyd.conf, "
			"NETWORK");
		r = add_check(list, "sink", &report);
	}
	return r;
}

/* Settings that a reload could not put in force. */
static int add_its_config(check_vec *list, const json_t *status) {
	const json_t *failures = json_object_get(json_object_get(status, "config"), "not_in_force");
	int r = 0;

	for (size_t i = 0; !r && i < json_array_size(failures); i++) {
		const json_t *failure = json_array_get(failures, i);
		const char *key = json_string_value(json_object_get(failure, "key"));
		const char *reason = json_string_value(json_object_get(failure, "reason"));
		struct report report = { .result = PYSPYD_CHECK_LIMITED };

		strbuf_addf(&report.found, "%s is not in force: %s", key ? key : "?", reason ? reason : "?");
		strbuf_adds(&report.effect, "the setting from before stands");
		strbuf_adds(&report.remedy, "sudo systemctl restart pyspyd, once the reason is gone");
		r = add_check(list, "config", &report);
	}
	return r;
}

int pyspyd_doctor_service(const char *answer, struct pyspyd_check **ret_checks, size_t *ret_n, struct err *err) {
	json_t *object = json_loads(answer, 0, NULL);
	const json_t *status = json_object_get(object, "status");
	check_vec list = { 0 };
	int r = json_is_object(status) ? 0 : -EPROTO;

	r = r ? r : add_its_version(&list, status);
	r = r ? r : add_its_privileges(&list, status);
	r = r ? r : add_its_config(&list, status);
	r = r ? r : add_its_processes(&list, status);
	r = r ? r : add_its_sinks(&list, status);
	json_decref(object);
	return finish(r, &list, ret_checks, ret_n, err);
}
