/* SPDX-License-Identifier: MIT */
/* What the service may do: six capabilities, and the system calls of privileges_calls.def.
 *
 * The list of calls was made by watching the engine, SQLite, libsystemd, libmicrohttpd and libcurl at work, and by
 * adding the calls that another libc, kernel or processor uses for the same purpose. It keeps out, for all threads and
 * for good: new processes and programs, writing into or tracing other processes, signals to them, other identities and
 * namespaces, modules, mounts, io_uring, memory that is written and executed, and the network where no sink
 * needs it.
 *
 * It does not look at paths: which files can be reached is the unit's business (mount namespace, capabilities). */
#include "daemon/privileges.h"

#include <assert.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <linux/sockios.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CAP_CHECKPOINT_RESTORE /* Linux 5.9, include/uapi/linux/capability.h */
#define CAP_CHECKPOINT_RESTORE 40
#endif
#ifndef PR_SET_VMA /* Linux 5.17, include/uapi/linux/prctl.h */
#define PR_SET_VMA 0x53564d41
#endif

#define FIRST_FD 3 /* behind stdin, stdout and stderr; where the service manager's sockets begin */

static const cap_value_t kept[] = { CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_CHECKPOINT_RESTORE, CAP_SYS_NICE, CAP_BPF,
	CAP_PERFMON };

#define KEPT_N (sizeof(kept) / sizeof(kept[0]))

/* Capabilities */

static bool is_kept(cap_value_t capability) {
	for (size_t i = 0; i < KEPT_N; i++)
		if (kept[i] == capability)
			return true;
	return false;
}

/* Not permitted without CAP_SETPCAP; then no_new_privs alone keeps the others away. */
static void drop_bounding(void) {
	for (cap_value_t capability = 0; cap_get_bound(capability) >= 0; capability++)
		if (!is_kept(capability))
			(void)!cap_drop_bound(capability);
}

/* Permitted and effective: what there is of those that are kept. Inheritable and ambient: none. */
static int keep_only(void) {
	cap_t now = cap_get_proc(), wanted = cap_init();
	int r = now && wanted ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < KEPT_N; i++) {
		cap_flag_value_t held;

		if (cap_get_flag(now, kept[i], CAP_PERMITTED, &held) || held != CAP_SET)
			continue;
		if (cap_set_flag(wanted, CAP_PERMITTED, 1, &kept[i], CAP_SET) ||
			cap_set_flag(wanted, CAP_EFFECTIVE, 1, &kept[i], CAP_SET))
			r = -errno;
	}
	if (!r && cap_set_proc(wanted))
		r = -errno;
	cap_free(now);
	cap_free(wanted);
	return r;
}

/* Sockets that the service manager hands over stay (man 3 sd_listen_fds). */
static unsigned handed_over(void) {
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");

	if (!pid || !n || strtol(pid, NULL, 10) != getpid())
		return 0;
	return (unsigned)strtoul(n, NULL, 10);
}

static void close_all_but(int kept_fd) {
	unsigned first = FIRST_FD + handed_over(), fd = (unsigned)kept_fd;

	if (kept_fd >= 0 && fd > first)
		(void)!syscall(SYS_close_range, first, fd - 1, 0);
	(void)!syscall(SYS_close_range, kept_fd >= 0 && fd >= first ? fd + 1 : first, ~0U, 0);
}

int privileges_drop(int kept_fd, struct err *err) {
	int r;

	close_all_but(kept_fd);
	drop_bounding();
	if (cap_reset_ambient() && errno != EINVAL) /* EINVAL: before Linux 4.3 there are none */
		return err_set(err, -errno, "cannot drop ambient capabilities: %s", strerror(errno));
	r = keep_only();
	if (r)
		return err_set(err, r, "cannot drop capabilities: %s", strerror(-r));
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return err_set(err, -errno, "prctl: %s", strerror(errno));
	return 0;
}

/* System calls */

struct argument {
	const char *call;
	unsigned index;
	uint64_t mask, value;
};

#define LOW UINT32_MAX /* an int: the upper half of the register is not ours to count on */

#define CALLS(names) names,
#define CALL_IF(call, index, mask, value)
#define CALL_INET(call, index, mask, value)
static const char *const calls[] = {
#include "daemon/privileges_calls.def"
};
#undef CALLS
#undef CALL_IF

#define CALLS(names)
#define CALL_IF(call, index, mask, value) { #call, index, mask, value },
static const struct argument arguments[] = {
#include "daemon/privileges_calls.def"
};
#undef CALL_IF
#undef CALL_INET

#define CALL_IF(call, index, mask, value)
#define CALL_INET(call, index, mask, value) { #call, index, mask, value },
static const struct argument inet_arguments[] = {
#include "daemon/privileges_calls.def"
};
#undef CALLS
#undef CALL_IF
#undef CALL_INET

/* Takes in what this libseccomp knows and this processor has. */
static int allow(scmp_filter_ctx filter, const char *call, unsigned n, const struct scmp_arg_cmp *compare) {
	int number = seccomp_syscall_resolve_name(call), r;

	if (number == __NR_SCMP_ERROR)
		return 0;
	r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, n, compare);
	return r == -EDOM || r == -EEXIST ? 0 : r;
}

static int allow_arguments(scmp_filter_ctx filter, const struct argument *arguments_of, size_t n) {
	int r = 0;

	for (size_t i = 0; !r && i < n; i++) {
		const struct argument *a = &arguments_of[i];
		const struct scmp_arg_cmp compare = {
			.arg = a->index, .op = SCMP_CMP_MASKED_EQ, .datum_a = a->mask, .datum_b = a->value
		};

		r = allow(filter, a->call, 1, &compare);
	}
	return r;
}

#define ALLOW_ARGUMENTS(filter, table) allow_arguments(filter, table, sizeof(table) / sizeof((table)[0]))

/* abort() and pthread_kill() of its own threads. */
static int allow_own_signals(scmp_filter_ctx filter) {
	const struct scmp_arg_cmp own = {
		.arg = 0, .op = SCMP_CMP_MASKED_EQ, .datum_a = LOW, .datum_b = (scmp_datum_t)getpid()
	};
	int r = allow(filter, "tgkill", 1, &own);

	return r ? r : allow(filter, "rt_tgsigqueueinfo", 1, &own);
}

static int allow_words(scmp_filter_ctx filter, const char *words) {
	char copy[256], *rest = NULL;
	int r = 0;

	assert(strlen(words) < sizeof(copy));
	memcpy(copy, words, strlen(words) + 1);
	for (char *word = strtok_r(copy, " ", &rest); !r && word; word = strtok_r(NULL, " ", &rest))
		r = allow(filter, word, 0, NULL);
	return r;
}

static int fill(scmp_filter_ctx filter, bool inet) {
	int r = allow_own_signals(filter);

	for (size_t i = 0; !r && i < sizeof(calls) / sizeof(calls[0]); i++)
		r = allow_words(filter, calls[i]);
	r = r ? r : ALLOW_ARGUMENTS(filter, arguments);
	return r || !inet ? r : ALLOW_ARGUMENTS(filter, inet_arguments);
}

static int load(scmp_filter_ctx filter, bool log) {
	int r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);

	r = r ? r : seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!r && log)
		(void)!seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1); /* Linux 4.14 */
	(void)!seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);    /* a tree in place of a chain */
	return r ? r : seccomp_load(filter);
}

/* A filter of its own, which logs nothing: libcs try clone3 for each thread, and take clone on ENOSYS. */
static int refuse_clone3(void) {
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int number = seccomp_syscall_resolve_name("clone3"), r = filter ? 0 : -ENOMEM;

	if (!r && number != __NR_SCMP_ERROR)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), number, 0);
	r = r ? r : load(filter, false);
	seccomp_release(filter);
	return r;
}

static int seal(const struct privileges_options *options) {
	scmp_filter_ctx filter = seccomp_init(options->strict ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_ERRNO(EPERM));
	int r = filter ? fill(filter, options->inet) : -ENOMEM;

	r = r ? r : load(filter, true);
	seccomp_release(filter);
	return r;
}

int privileges_seal(const struct privileges_options *options, struct err *err) {
	int r;

	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0 && errno == EINVAL)
		return err_set(err, -ENOTSUP, "this kernel has no seccomp: system calls are not limited");
	r = refuse_clone3(); /* first: loading a filter is not on the list */
	r = r ? r : seal(options);
	return r ? err_set(err, r, "cannot limit system calls: %s", strerror(-r)) : 0;
}
