/* SPDX-License-Identifier: MIT */
/* Entries of systemd-coredump: what they say, whom they are believed from, and what a hostile one cannot do. */
#include "daemon/coredump_entry.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BOOT "0123456789abcdef0123456789abcdef"
#define CORE COREDUMP_FOLDER "/core.python3.1000." BOOT ".4711.1700000000000000"
#define NEEDED \
	"COREDUMP_PID=4711", "COREDUMP_UID=1000", "COREDUMP_GID=1001", "COREDUMP_SIGNAL=11", \
		"COREDUMP_TIMESTAMP=1700000000000000"

static struct coredump_entry entry;

static void forget(void) {
	coredump_entry_deinit(&entry);
}

TestSuite(coredump_entry, .fini = forget);

static int set(const char *field) {
	return coredump_entry_set(&entry, field, strlen(field));
}

static void set_all(const char *const *fields) {
	forget();
	for (; *fields; fields++)
		cr_assert_eq(set(*fields), 0, "%s", *fields);
}

#define SET_ALL(...) set_all((const char *const[]){ __VA_ARGS__, NULL })

Test(coredump_entry, fields) {
	SET_ALL(NEEDED, "_UID=0", "COREDUMP_EXE=/usr/bin/python3.11", "COREDUMP_COMM=python3",
		"COREDUMP_CMDLINE=python3 -c a=b", "COREDUMP_UNIT=app.service", "COREDUMP_CGROUP=/system.slice",
		"COREDUMP_FILENAME=" CORE ".zst", "COREDUMP_TRUNCATED=1", "COREDUMP_HOSTNAME=x");
	cr_expect_eq(entry.pid, 4711);
	cr_expect_eq(entry.uid, 1000u);
	cr_expect_eq(entry.gid, 1001u);
	cr_expect_eq(entry.signal, 11);
	cr_expect_eq(entry.time_real_ns, 1700000000000000000u);
	cr_expect_str_eq(entry.exe, "/usr/bin/python3.11");
	cr_expect_str_eq(entry.cmdline, "python3 -c a=b");
	cr_expect_str_eq(entry.unit, "app.service");
	cr_expect_str_eq(entry.file, CORE ".zst");
	cr_expect(entry.truncated);
	cr_expect(coredump_entry_is_trusted(&entry));
	cr_expect(coredump_entry_names_python(&entry));
	cr_expect(coredump_entry_owns(&entry, entry.file));
}

/* The first of a name counts: what follows it is not the journal's. */
Test(coredump_entry, twice) {
	SET_ALL("_UID=1000", "_UID=0", NEEDED);
	cr_expect_eq(entry.sender, 1000u);
	cr_expect_not(coredump_entry_is_trusted(&entry));
}

Test(coredump_entry, hostile_values) {
	static const char *const bad[] = { "COREDUMP_PID=0", "COREDUMP_PID=-1", "COREDUMP_PID=2147483648",
		"COREDUMP_PID=", "COREDUMP_PID=1x", "COREDUMP_UID=4294967296", "COREDUMP_UID= 0", "COREDUMP_SIGNAL=65",
		"_UID=root", "COREDUMP_TIMESTAMP=18446744073709551615", "COREDUMP_TIMESTAMP=x",
		"COREDUMP_FILENAME=core", "COREDUMP_FILENAME=" };
	static const char nul[] = "COREDUMP_FILENAME=" CORE "\0/../x", cut[] = "COREDUMP_COMM=py\0thon";
	char *field = malloc(COREDUMP_TEXT_MAX + 100);

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_expect_eq(set(bad[i]), -EINVAL, "%s", bad[i]);
	cr_expect_eq(entry.found, 0u);
	cr_expect_eq(coredump_entry_set(&entry, nul, sizeof(nul) - 1), -EINVAL);
	cr_expect_eq(coredump_entry_set(&entry, cut, sizeof(cut) - 1), 0);
	cr_expect_str_eq(entry.comm, "py");
	cr_expect_eq(set(""), 0);
	cr_expect_eq(set("COREDUMP_PID"), 0, "no value: passed over");
	cr_expect_eq(set("=1"), 0);
	cr_assert(field);
	memset(field, 'x', COREDUMP_TEXT_MAX + 100);
	memcpy(field, "COREDUMP_CMDLINE=", 17);
	cr_expect_eq(coredump_entry_set(&entry, field, COREDUMP_TEXT_MAX + 100), 0);
	cr_expect_eq(strlen(entry.cmdline), (size_t)COREDUMP_TEXT_MAX);
	memcpy(field, "COREDUMP_FILENAME=/", 19);
	cr_expect_eq(coredump_entry_set(&entry, field, COREDUMP_TEXT_MAX + 100), -EINVAL, "no half of a path");
	free(field);
}

Test(coredump_entry, whom_to_believe) {
	SET_ALL(NEEDED);
	cr_expect_not(coredump_entry_is_trusted(&entry), "nobody vouches");
	SET_ALL(NEEDED, "_UID=1000");
	cr_expect_not(coredump_entry_is_trusted(&entry));
	SET_ALL(NEEDED, "_UID=1000", "_COMM=systemd-coredum", "_EXE=/usr/lib/systemd/systemd-coredump");
	cr_expect_not(coredump_entry_is_trusted(&entry), "its user can be called so");
	SET_ALL(NEEDED, "_UID=1000", "_SYSTEMD_UNIT=user@1000.service");
	cr_expect_not(coredump_entry_is_trusted(&entry));
	SET_ALL(NEEDED, "_UID=1000", "_SYSTEMD_UNIT=systemd-coredump@.socket");
	cr_expect_not(coredump_entry_is_trusted(&entry));
	SET_ALL(NEEDED, "_UID=1000", "_SYSTEMD_UNIT=systemd-coredump@3-4711-0.service");
	cr_expect(coredump_entry_is_trusted(&entry));
	SET_ALL(NEEDED, "_UID=0");
	cr_expect(coredump_entry_is_trusted(&entry));
	SET_ALL("_UID=0", "COREDUMP_PID=4711", "COREDUMP_UID=0");
	cr_expect_not(coredump_entry_is_trusted(&entry), "incomplete");
}

Test(coredump_entry, whose_file) {
	static const char *const others[] = { "/etc/shadow", CORE "/x",
		COREDUMP_FOLDER "/../x/core.a.1000." BOOT ".4711.1", COREDUMP_FOLDER "/core.a.0." BOOT ".4711.1.zst",
		COREDUMP_FOLDER "/core.a.1000." BOOT ".4712.1.zst", COREDUMP_FOLDER "/core.a.1000.0123.4711.1",
		COREDUMP_FOLDER "/core.4711", COREDUMP_FOLDER "/core.", COREDUMP_FOLDER "/core.....",
		COREDUMP_FOLDER "/core.a.1000." BOOT ".4711.", "", COREDUMP_FOLDER "/core.1000." BOOT ".4711.1x.zst" };

	SET_ALL(NEEDED);
	cr_expect(coredump_entry_owns(&entry, CORE));
	cr_expect(coredump_entry_owns(&entry, CORE ".lz4"));
	cr_expect(coredump_entry_owns(&entry, COREDUMP_FOLDER "/core.a\\x20b.0." BOOT ".1.2.1000." BOOT ".4711.1.zst"));
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		cr_expect_not(coredump_entry_owns(&entry, others[i]), "%s", others[i]);
}

Test(coredump_entry, what_is_a_python) {
	SET_ALL("COREDUMP_EXE=/usr/bin/uwsgi", "COREDUMP_CMDLINE=/opt/venv/bin/python -m x/y");
	cr_expect(coredump_entry_names_python(&entry));
	SET_ALL("COREDUMP_EXE=/usr/bin/uwsgi", "COREDUMP_CMDLINE=uwsgi /usr/bin/python3");
	cr_expect_not(coredump_entry_names_python(&entry));
	SET_ALL("COREDUMP_EXE=/home/python/x", "COREDUMP_CMDLINE= ");
	cr_expect_not(coredump_entry_names_python(&entry));
	SET_ALL(NEEDED);
	cr_expect_not(coredump_entry_names_python(&entry));
}

Test(coredump_entry, words_of_a_shell) {
	char word[64] = "";

	cr_expect(coredump_quote("/a/core.x.1", word, sizeof(word)));
	cr_expect_str_eq(word, "/a/core.x.1");
	cr_expect(coredump_quote("/a/core.x\\x20$(id).1", word, sizeof(word)));
	cr_expect_str_eq(word, "'/a/core.x\\x20$(id).1'");
	cr_expect_not(coredump_quote("/a/'x", word, sizeof(word)));
	cr_expect_not(coredump_quote("/a/\033[1m", word, sizeof(word)));
	cr_expect_not(coredump_quote("/a/\xff", word, sizeof(word)));
	cr_expect_not(coredump_quote("/a", word, 2));
}
