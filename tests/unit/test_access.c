/* SPDX-License-Identifier: MIT */
/* The verdict on refused access, from tables, and the check itself on a child that made itself undumpable. */
#include "engine/proc/access.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define PTRACE (UINT64_C(1) << CAP_SYS_PTRACE)
#define OURS .our_euid = 1000, .same_userns = true, .in_initial_userns = true, .yama_scope = -1
#define THEIRS .target_uid = { 1000, 1000, 1000 }, .target_dumpable = true, .error = EPERM

static const struct {
	const char *name;
	struct access_facts facts;
	enum access_layer layer;
} cases[] = {
	{ "no error", { OURS }, ACCESS_OK },
	{ "no reason to be seen", { OURS, THEIRS }, ACCESS_LSM },
	{ "another user", { OURS, .target_uid = { 0, 0, 0 }, .target_dumpable = true, .error = EPERM }, ACCESS_UID },
	{ "set-uid", { OURS, .target_uid = { 1000, 0, 0 }, .error = EPERM }, ACCESS_CAPABILITY },
	{ "capabilities", { OURS, THEIRS, .target_caps = 4 }, ACCESS_CAPABILITY },
	{ "undumpable", { OURS, .target_uid = { 1000, 1000, 1000 }, .error = EPERM }, ACCESS_DUMPABLE },
	{ "yama 1", { .our_euid = 1000, .same_userns = true, .yama_scope = 1, THEIRS }, ACCESS_YAMA },
	{ "yama 1, descendant", { .our_euid = 1000, .same_userns = true, .yama_scope = 1, .descendant = true, THEIRS },
		ACCESS_LSM },
	{ "yama 2, descendant", { .our_euid = 1000, .same_userns = true, .yama_scope = 2, .descendant = true, THEIRS },
		ACCESS_YAMA },
	{ "yama 3, root",
		{ .our_caps = PTRACE, .same_userns = true, .in_initial_userns = true, .yama_scope = 3, THEIRS },
		ACCESS_YAMA },
	{ "root of another namespace", { .our_caps = PTRACE, .yama_scope = 3, THEIRS }, ACCESS_USERNS },
	{ "user of another namespace", { .our_euid = 5, .yama_scope = -1, THEIRS }, ACCESS_USERNS },
	{ "seccomp, root",
		{ .our_caps = PTRACE,
			.same_userns = true,
			.in_initial_userns = true,
			.our_seccomp = 2,
			.yama_scope = 1,
			THEIRS },
		ACCESS_SECCOMP },
	{ "seccomp, user", { OURS, THEIRS, .our_seccomp = 2 }, ACCESS_SECCOMP },
	{ "not implemented", { OURS, .error = ENOSYS }, ACCESS_SECCOMP },
	{ "security module, root",
		{ .our_caps = PTRACE, .same_userns = true, .in_initial_userns = true, .yama_scope = -1, THEIRS },
		ACCESS_LSM },
};

Test(access, judges) {
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		cr_expect_eq(access_judge(&cases[i].facts), cases[i].layer, "%s", cases[i].name);
}

Test(access, explains_why_and_how) {
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err err = { 0 };

		access_explain(cases[i].layer, &cases[i].facts, 4711, &err);
		cr_expect(strstr(err.text, "4711"), "%s", cases[i].name);
		if (cases[i].layer == ACCESS_OK)
			continue;
		cr_expect_eq(err.code, PYSPYD_E_DENIED);
		cr_expect(strstr(err.text, "\nto permit: "), "%s", cases[i].name);
		cr_expect_lt(strlen(err.text), sizeof(err.text) - 1);
	}
	access_explain(ACCESS_YAMA, &cases[6].facts, 1, NULL);
}

Test(access, own_process_is_permitted) {
	enum access_layer layer = ACCESS_LSM;
	struct err err = { 0 };
	struct proc proc;

	cr_assert_eq(proc_open("/proc", getpid(), &proc), 0);
	cr_assert_eq(access_check(&proc, &layer, &err), 0, "%s", err.text);
	cr_assert_eq(layer, ACCESS_OK);
	proc_close(&proc);
}

/* Starts a child that makes itself undumpable, says so, and waits for the pipe's end. */
static pid_t start_undumpable(int *ret_hold) {
	int ready[2], hold[2];
	char byte = 0;
	pid_t pid;

	cr_assert(!pipe2(ready, O_CLOEXEC) && !pipe2(hold, O_CLOEXEC));
	pid = fork();
	if (!pid) {
		close(hold[1]);
		prctl(PR_SET_DUMPABLE, 0);
		_exit(write(ready[1], &byte, 1) != 1 || read(hold[0], &byte, 1) != 0);
	}
	cr_assert_eq(read(ready[0], &byte, 1), 1);
	*ret_hold = hold[1];
	return pid;
}

/* In a child, which gives up its rights. */
static int check_as_nobody(void) {
	enum access_layer layer = ACCESS_OK;
	struct err err = { 0 };
	struct proc proc;
	pid_t pid;
	int hold, r;

	if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
		return 77;
	prctl(PR_SET_DUMPABLE, 1);
	pid = start_undumpable(&hold);
	if (proc_open("/proc", pid, &proc))
		return 1;
	r = access_check(&proc, &layer, &err);
	close(hold);
	waitpid(pid, NULL, 0);
	if (r != PYSPYD_E_DENIED || layer != ACCESS_DUMPABLE || !strstr(err.text, "undumpable"))
		return 2;
	return access_check(&proc, &layer, &err) == PYSPYD_E_GONE ? 0 : 3;
}

Test(access, an_undumpable_process_is_named_so) {
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(check_as_nobody());
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		cr_skip_test("needs root, to become somebody who is not");
	cr_assert_eq(status, 0, "%d", WEXITSTATUS(status));
}
