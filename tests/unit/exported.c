/* SPDX-License-Identifier: MIT */
/* Small profiles, and what becomes of them in a format, for the tests of exporters. */
#include "tests/unit/exported.h"

#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LONG_NAME 4096

static char long_name[LONG_NAME + 1];

const char *const exported_hostile_names[EXPORTED_HOSTILE] = {
	"",
	"two\nlines\r\n",
	"semi;colon 12",
	"<script>alert(1)</script>",
	"]]><svg onload=\"x\" '&amp;",
	"\xff\xc3\x28\xed\xa0\x80 broken",
	"\x1b[31mred\x1b]0;title\x07",
	"\xc2\x9b"
	"31m \xe2\x80\xae bidi",
	"\xef\xbf\xbe\xef\xbf\xbf no XML",
	"\xe4\xb8\xad\xe6\x96\x87\xe5\x87\xbd\xe6\x95\xb0",
	"tab\there \x01\x0b\x7f",
	"</script><!--<script>",
	long_name,
};

static uint32_t intern(struct profile *profile, const char *s) {
	return intern_add(&profile->strings, s, strlen(s));
}

struct profile *exported_new(void) {
	struct profile *profile = NULL;

	cr_assert_eq(profile_new(&profile), 0);
	profile->kind = PROFILE_CPU;
	profile->period_ns = 10000000;
	profile->duration_ns = 12000000000;
	profile->start_real_ns = 1700000000000000000;
	profile->accuracy = (struct pyspyd_accuracy){
		.source = "vm", .priority = "fifo", .expected = 1201, .looks = 1200, .torn = 17, .late = 3
	};
	return profile;
}

uint32_t exported_frame(struct profile *profile, const char *function, const char *file, int line) {
	struct profile_frame frame = { .function = intern(profile, function), .file = intern(profile, file) };

	frame.line = line;
	return profile_add_frame(profile, &frame);
}

uint32_t exported_thread(struct profile *profile, pid_t pid, pid_t tid, const char *name, const char *process) {
	struct profile_thread thread = { .pid = pid, .tid = tid };

	thread.name = intern(profile, name);
	thread.process_name = intern(profile, process);
	return profile_add_thread(profile, &thread);
}

struct profile *exported_sample(pid_t pid_b) {
	struct profile *p = exported_new();
	uint32_t root = profile_add_node(p, 0, exported_frame(p, "<module>", "app.py", 40));
	uint32_t f = profile_add_node(p, root, exported_frame(p, "f", "app.py", 3));
	uint32_t g = profile_add_node(p, root, exported_frame(p, "C.g", "lib.py", 0));
	uint32_t a = exported_thread(p, 10, 10, "MainThread", "python3");
	uint32_t b = exported_thread(p, pid_b, 11, "worker", "python3");

	cr_assert_eq(profile_count(p, a, f, 3, 30), 0);
	cr_assert_eq(profile_count(p, b, f, 4, 40), 0);
	cr_assert_eq(profile_count(p, a, g, 5, 50), 0);
	return p;
}

struct profile *exported_hostile(void) {
	struct profile *p = exported_new();

	memset(long_name, 'x', LONG_NAME);
	for (size_t i = 0; i < EXPORTED_HOSTILE; i++) {
		struct profile_frame frame = { .function = intern(p, exported_hostile_names[i]),
			.file = intern(p, exported_hostile_names[i]) };
		uint32_t thread = exported_thread(
				 p, (pid_t)i, (pid_t)i, exported_hostile_names[i], exported_hostile_names[i]),
			 node;

		frame.module = frame.function;
		frame.line = (int)i - 2;
		frame.lang = (enum pyspyd_lang)(i % 3);
		node = profile_add_node(p, 0, profile_add_frame(p, &frame));
		cr_assert_eq(profile_count(p, thread, node, 1, 10), 0);
	}
	return p;
}

static char *contents(int fd, size_t *ret_len) {
	off_t size = lseek(fd, 0, SEEK_END);
	char *text = calloc(1, (size_t)size + 1);

	cr_assert_eq(pread(fd, text, (size_t)size, 0), size);
	if (ret_len)
		*ret_len = (size_t)size;
	return text;
}

char *exported_text(
	const struct profile *p, const char *format, const struct export_options *options, size_t *ret_len) {
	_close_ int fd = memfd_create("export", MFD_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(export_find(format)->write(p, options, fd), 0);
	return contents(fd, ret_len);
}

char *exported_diff(const struct profile *p, const struct profile_count *before, size_t n, const char *format,
	const struct export_options *options) {
	_close_ int fd = memfd_create("export", MFD_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(export_find(format)->diff(p, before, n, options, fd), 0);
	return contents(fd, NULL);
}

void exported_check_printable(const char *text, size_t len) {
	for (size_t i = 0; i < len; i++) {
		cr_assert(text[i] == '\n' || text[i] == '\t' || (unsigned char)text[i] >= 0x20, "control at %zu", i);
		cr_assert_neq(text[i], 0x7f);
		cr_assert(memcmp(text + i, "\xc2\x9b", min_of(len - i, (size_t)2)), "C1 at %zu", i);
		cr_assert(memcmp(text + i, "\xe2\x80\xae", min_of(len - i, (size_t)3)), "bidi at %zu", i);
	}
}
