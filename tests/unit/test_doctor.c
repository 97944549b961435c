/* SPDX-License-Identifier: MIT */
/* What doctor says of privileges: the table, and what becomes of the service's answer. */
#include "engine/base/util.h"
#include "engine/pipeline/privileges.h"
#include "pyspyd/version.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

Test(doctor, rows_are_whole) {
	for (size_t i = 0; i < privilege_rows_n; i++) {
		const struct privilege_row *row = &privilege_rows[i];

		cr_assert(row->whose & (OF_CALLER | OF_SERVICE), "%s", row->name);
		cr_assert_neq(!row->capability, !row->probe, "%s is a capability or is tried", row->name);
		cr_assert(row->capability || row->remedy, "%s has no remedy", row->name);
		cr_assert(row->held && row->missing && row->effect, "%s", row->name);
		cr_assert_neq(row->worst, PYSPYD_CHECK_OK, "%s", row->name);
		for (size_t j = 0; j < i; j++)
			cr_assert_str_neq(row->name, privilege_rows[j].name);
	}
	cr_assert_leq(privilege_rows_n, (size_t)PYSPYD_PRIVILEGES_MAX);
}

static const struct privilege_row *row_of(const char *name) {
	for (size_t i = 0; i < privilege_rows_n; i++)
		if (!strcmp(privilege_rows[i].name, name))
			return &privilege_rows[i];
	cr_assert_fail("no row %s", name);
	return NULL;
}

Test(doctor, a_capability_is_a_bit) {
	cr_assert(privilege_held(row_of("cap_sys_ptrace"), 1ULL << 19));
	cr_assert_not(privilege_held(row_of("cap_sys_ptrace"), ~(1ULL << 19)));
	cr_assert(privilege_held(row_of("cap_sys_nice"), 1ULL << 23));
	cr_assert(privilege_held(row_of("cap_dac_read_search"), 1ULL << 2));
	cr_assert(privilege_held(row_of("cap_checkpoint_restore"), 1ULL << 40));
}

Test(doctor, what_the_service_tells) {
	struct pyspyd_privilege list[PYSPYD_PRIVILEGES_MAX];
	size_t n = pyspyd_service_privileges(list, PYSPYD_PRIVILEGES_MAX), capabilities = 0;

	for (size_t i = 0; i < n; i++) {
		cr_assert(row_of(list[i].name)->whose & OF_SERVICE);
		capabilities += list[i].capability;
	}
	cr_assert_eq(capabilities, 6u);
	cr_assert_eq(pyspyd_service_privileges(list, 2), 2u);
}

struct told {
	struct pyspyd_check *checks;
	size_t n;
};

static struct told tell(const char *answer) {
	struct told told;
	struct err err = { 0 };

	cr_assert_eq(pyspyd_doctor_service(answer, &told.checks, &told.n, &err), 0, "%s", err.text);
	return told;
}

static const struct pyspyd_check *find(const struct told *told, const char *name) {
	for (size_t i = 0; i < told->n; i++)
		if (!strcmp(told->checks[i].name, name))
			return &told->checks[i];
	return NULL;
}

#define VERSION_AND "{\"status\":{\"version\":\"" PYSPYD_VERSION "\","

Test(doctor, a_service_that_has_all) {
	struct told told = tell(VERSION_AND "\"privileges\":{\"cap_sys_ptrace\":true,\"seccomp\":true,\"later\":true},"
					    "\"watch\":{\"processes\":3,\"processes_denied\":0},"
					    "\"sinks\":[{\"name\":\"file\",\"away\":false,\"queued\":0}]}}");

	cr_assert_eq(told.n, 4u);
	for (size_t i = 0; i < told.n; i++) {
		cr_assert_eq(told.checks[i].result, PYSPYD_CHECK_OK, "%s", told.checks[i].name);
		cr_assert_str_empty(told.checks[i].effect);
		cr_assert_str_empty(told.checks[i].remedy);
	}
	cr_assert(find(&told, "service") && find(&told, "seccomp"));
	cr_assert_str_eq(find(&told, "processes")->found, "3 watched, 0 may not be read");
	pyspyd_doctor_free(told.checks, told.n);
}

Test(doctor, a_service_that_lacks) {
	struct told told = tell(
		VERSION_AND "\"privileges\":{\"cap_sys_ptrace\":false,\"cap_sys_nice\":false,"
			    "\"sandbox\":false,\"pids\":1},"
			    "\"config\":{\"not_in_force\":[{\"key\":\"[store] path\",\"reason\":\"no such folder\"}]},"
			    "\"watch\":{\"processes\":3,\"processes_denied\":2},"
			    "\"sinks\":[{\"name\":\"otlp\",\"away\":true,\"queued\":7}]}}");
	const struct pyspyd_check *check = find(&told, "cap_sys_ptrace");

	cr_assert_eq(check->result, PYSPYD_CHECK_FAILED);
	check = find(&told, "cap_sys_nice");
	cr_assert_eq(check->result, PYSPYD_CHECK_LIMITED);
	cr_assert(strstr(check->effect, "discarded"));
	cr_assert(strstr(check->remedy, "AmbientCapabilities=CAP_SYS_NICE"));
	check = find(&told, "sandbox");
	cr_assert_eq(check->result, PYSPYD_CHECK_LIMITED);
	cr_assert(strstr(check->remedy, "ProtectSystem"));
	cr_assert_null(find(&told, "pids"), "no boolean: not said");
	cr_assert_null(find(&told, "seccomp"));
	cr_assert_str_eq(find(&told, "config")->found, "[store] path is not in force: no such folder");
	cr_assert_eq(find(&told, "processes")->result, PYSPYD_CHECK_LIMITED);
	cr_assert_str_eq(find(&told, "sink")->found, "otlp takes no findings now: 7 wait");
	pyspyd_doctor_free(told.checks, told.n);
}

Test(doctor, a_service_of_another_version) {
	struct told told = tell("{\"status\":{\"version\":\"0.0.1\"}}");

	cr_assert_eq(told.n, 1u);
	cr_assert_eq(told.checks[0].result, PYSPYD_CHECK_LIMITED);
	cr_assert_str_eq(told.checks[0].found, "version 0.0.1");
	pyspyd_doctor_free(told.checks, told.n);
}

Test(doctor, no_answer) {
	static const char *const answers[] = { "", "[]", "{}", "{\"status\":7}", "{\"status\":{}", "null" };

	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		struct pyspyd_check *checks = NULL;
		struct err err = { 0 };
		size_t n = 77;

		cr_assert_eq(pyspyd_doctor_service(answers[i], &checks, &n, &err), -EPROTO, "%s", answers[i]);
		cr_assert_str_not_empty(err.text);
		cr_assert(!checks && n == 77);
	}
}

Test(doctor, the_host) {
	struct pyspyd_check *checks;
	struct err err = { 0 };
	size_t n, rows = 0;

	cr_assert_eq(pyspyd_doctor(getpid(), &checks, &n, &err), 0, "%s", err.text);
	for (size_t i = 0; i < n; i++) {
		cr_assert_str_not_empty(checks[i].found, "%s", checks[i].name);
		cr_assert_eq(!checks[i].effect[0], checks[i].result == PYSPYD_CHECK_OK, "%s", checks[i].name);
		for (size_t j = 0; j < privilege_rows_n; j++)
			rows += !strcmp(checks[i].name, privilege_rows[j].name);
	}
	cr_assert_geq(rows, 4u);
	pyspyd_doctor_free(checks, n);
}
