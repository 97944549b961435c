/* SPDX-License-Identifier: MIT */
/* The words of the kernel, and the folders of the crash handler. */
#include "daemon/crash_handler.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORDS_MAX 8

/* Return: as crash_words_parse, of words with blanks between. */
static int parse(const char *line, struct crash_words *words, struct err *err) {
	char copy[256], *each[WORDS_MAX], *rest = copy;
	size_t n = 0;

	snprintf(copy, sizeof(copy), "%s", line);
	while (n < WORDS_MAX && rest)
		each[n++] = strsep(&rest, " ");
	return crash_words_parse(each, n, words, err);
}

Test(crash_handler, words) {
	struct crash_words words;
	struct err err = { 0 };

	cr_assert_eq(parse("4711 1000 1001 11 1700000000 18446744073709551615 host -x", &words, &err), 0);
	cr_expect_eq(words.pid, 4711);
	cr_expect_eq(words.uid, 1000);
	cr_expect_eq(words.gid, 1001);
	cr_expect_eq(words.signal, 11);
	cr_expect_eq(words.time_s, 1700000000);
	cr_expect_eq(words.limit, UINT64_MAX);
}

Test(crash_handler, bad_words) {
	static const char *const bad[] = { "0 0 0 6 1 0", "2147483648 0 0 6 1 0", "-1 0 0 6 1 0", "../1 0 0 6 1 0",
		" 0 0 6 1 0", "%P 0 0 6 1 0", "1 0 0 6 1", "1 x 0 6 1 0", "1 0 0 65 1 0", "1 0 0 6 1 -1" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct crash_words words;
		struct err err = { 0 };

		cr_expect_eq(parse(bad[i], &words, &err), -EINVAL, "%s", bad[i]);
		cr_expect(*err.text, "%s", bad[i]);
	}
}

Test(crash_handler, folder_and_files) {
	char base[] = "/tmp/pyspyd-crash-unit-XXXXXX", path[64], link[64];
	struct err err = { 0 };
	int fd = -1, none = -1, pipe_fd[2], core = -1;
	uint64_t bytes = 0;

	cr_assert(mkdtemp(base));
	snprintf(path, sizeof(path), "%s/own", base);
	snprintf(link, sizeof(link), "%s/link", base);
	cr_assert_eq(crash_folder_open(path, &fd, &err), 0);
	cr_assert_eq(symlink(path, link), 0);
	cr_expect_neq(crash_folder_open(link, &none, &err), 0);

	cr_assert_eq(pipe(pipe_fd), 0);
	cr_assert_eq(write(pipe_fd[1], "core of a test", 14), 14);
	close(pipe_fd[1]);
	cr_assert_eq(crash_copy(pipe_fd[0], fd, 1 << 20, &core, &bytes), 0);
	cr_expect_eq(bytes, 14);
	for (char name[] = "core.1.zst"; name[5] < '5'; name[5]++)
		cr_expect_eq(crash_keep(core, fd, name, 2, 1 << 20), 0, "%s", name);
	cr_expect_neq(faccessat(fd, "core.2.zst", F_OK, 0), 0);
	cr_expect_eq(faccessat(fd, "core.4.zst", F_OK, 0), 0);
	cr_expect_eq(crash_keep(core, fd, "core.4.zst", 2, 1 << 20), -EEXIST);
	cr_expect_eq(crash_keep(core, fd, "core.5.zst", 2, 4), -EFBIG);
	cr_expect_neq(faccessat(fd, "core.5.zst", F_OK, 0), 0);

	cr_expect_eq(crash_spool(fd, "1.json", 7, "{}"), 0);
	cr_expect_eq(faccessat(fd, "1.json", F_OK, 0), 0);
	cr_expect_eq(unlinkat(fd, "1.json", 0) | unlinkat(fd, "core.3.zst", 0) | unlinkat(fd, "core.4.zst", 0), 0);
	cr_expect_eq(chmod(path, 0777), 0);
	cr_expect_eq(crash_folder_open(path, &none, &err), -EPERM);
	cr_expect_eq(unlink(link) | rmdir(path) | rmdir(base), 0);
	close(core);
	close(fd);
	close(pipe_fd[0]);
}

Test(crash_handler, a_folder_in_the_services_folder_becomes_its) {
	char base[] = "/tmp/pyspyd-crash-unit-XXXXXX", path[64];
	struct err err = { 0 };
	struct stat st;
	int fd = -1;

	if (geteuid())
		cr_skip_test("needs root");
	cr_assert(mkdtemp(base));
	snprintf(path, sizeof(path), "%s/own", base);
	cr_assert_eq(crash_folder_open(path, &fd, &err), 0);
	cr_expect_eq(crash_folder_give(fd), 0);
	cr_expect_eq(fstat(fd, &st), 0);
	cr_expect_eq(st.st_uid, 0);
	cr_assert_eq(chown(base, 4711, 4712), 0);
	cr_expect_eq(crash_folder_give(fd), 0);
	cr_expect_eq(fstat(fd, &st), 0);
	cr_expect_eq(st.st_uid, 4711);
	cr_expect_eq(st.st_gid, 4712);
	cr_expect_eq(fchown(fd, 4713, 4713), 0); /* what is nobody's of these two stays */
	cr_expect_eq(crash_folder_give(fd), 0);
	cr_expect_eq(fstat(fd, &st), 0);
	cr_expect_eq(st.st_uid, 4713);
	close(fd);
	cr_expect_eq(rmdir(path) | rmdir(base), 0);
}
