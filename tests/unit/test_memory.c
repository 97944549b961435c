/* SPDX-License-Identifier: MIT */
/* Whose memory it is: texts of /proc as the kernel writes them and as nobody should, and the test's own process. */
#include "engine/proc/memory.h"

#include "engine/base/limits.h"
#include "engine/base/strbuf.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define MIB (1ULL << 20)
#define KIB 1024ULL
#define ARENAS "anonymous arenas of malloc"

/* As of Linux 6.1: the lines that are read, among others. */
#define VALUES(clean, dirty, swap) \
	"Size:               1024 kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n" \
	"Rss:                 900 kB\nPss:                 900 kB\nPss_Dirty:           900 kB\n" \
	"Shared_Clean:         77 kB\nShared_Dirty:         78 kB\n" \
	"Private_Clean:      " #clean " kB\nPrivate_Dirty:      " #dirty " kB\n" \
	"Referenced:          900 kB\nAnonymous:           900 kB\nSwap:               " #swap " kB\n" \
	"SwapPss:              79 kB\nLocked:                0 kB\nTHPeligible:    0\nProtectionKey:         0\n" \
	"VmFlags: rd wr mr mw me ac \n"
#define AT(range, perms) range " " perms " 00000000 00:00 0 \n"
#define NAMED(range, name) range " rw-p 00000000 00:00 0                          " name "\n"
#define FILE_AT(range, perms, path) range " " perms " 00000000 fe:00 312                        " path "\n"

static int parse_text(const char *text, memory_groups *ret_groups) {
	return memory_groups_parse(text, strlen(text), ret_groups);
}

static memory_groups groups_of(const char *text) {
	memory_groups groups = { 0 };

	cr_assert_eq(parse_text(text, &groups), 0, "%s", text);
	return groups;
}

static void refused(const char *text, size_t len, int error) {
	memory_groups groups = { .n = 42 };

	cr_assert_eq(memory_groups_parse(text, len, &groups), error, "%.*s", (int)len, text);
	cr_assert_eq(groups.n, 42);
}

static const struct memory_group *group_of(const memory_groups *groups, const char *name) {
	vec_foreach (group, groups)
		if (!strcmp(group->name, name))
			return group;
	return NULL;
}

static void expect(const memory_groups *groups, const char *name, uint64_t mappings, uint64_t bytes) {
	const struct memory_group *group = group_of(groups, name);

	cr_assert_not_null(group, "%s", name);
	cr_assert_eq(group->mappings, mappings, "%s: %lu mappings", name, group->mappings);
	cr_assert_eq(group->bytes, bytes, "%s: %lu bytes", name, group->bytes);
}

/* The only group's name, of memory of 8 KiB in `mappings` mappings. */
static void expect_only(const char *text, const char *name) {
	memory_groups groups = groups_of(text);

	cr_assert_eq(groups.n, 1, "%s", text);
	expect(&groups, name, 1, 8 * KIB);
	memory_groups_free(&groups);
}

Test(memory, groups_what_is_alike_and_most_comes_first) {
	memory_groups groups = groups_of(FILE_AT("1000-2000", "r--p", "/usr/lib/x.so") VALUES(4, 0, 0) NAMED(
		"3000-4000", "[heap]") VALUES(0, 100, 20) FILE_AT("5000-6000", "rw-p", "/usr/lib/x.so") VALUES(0, 8, 0)
			AT("7000-8000", "rw-p") VALUES(0, 30, 0) NAMED("9000-a000", "[anon:pool]") VALUES(0, 1, 0)
				AT("b000-c000", "rw-p") VALUES(0, 0, 7) NAMED("d000-e000", "[stack]") VALUES(0, 2, 0));
	static const char *const order[] = { "[heap]", "anonymous", "/usr/lib/x.so", "[stack]", "[anon:pool]" };

	cr_assert_eq(groups.n, ARRAY_SIZE(order));
	for (size_t i = 0; i < groups.n; i++)
		cr_assert_str_eq(groups.items[i].name, order[i]);
	expect(&groups, "[heap]", 1, 120 * KIB);
	expect(&groups, "anonymous", 2, 37 * KIB);
	expect(&groups, "/usr/lib/x.so", 2, 12 * KIB);
	memory_groups_free(&groups);
}

Test(memory, what_has_no_private_memory_is_left_out) {
	memory_groups groups = groups_of(
		FILE_AT("1000-2000", "r-xp", "/usr/lib/x.so") VALUES(0, 0, 0) AT("2000-3000", "---p") VALUES(0, 0, 0));

	cr_assert_eq(groups.n, 0);
	groups = groups_of("");
	cr_assert_eq(groups.n, 0);
}

Test(memory, swap_of_shared_memory_is_not_the_process_s) {
	memory_groups groups = groups_of(FILE_AT("1000-2000", "rw-s", "/dev/shm/queue") VALUES(0, 4, 900));

	expect(&groups, "/dev/shm/queue", 1, 4 * KIB);
	memory_groups_free(&groups);
}

Test(memory, huge_pages_count) {
	expect_only(AT("1000-2000", "rw-p") "Private_Hugetlb:       8 kB\nShared_Hugetlb:       99 kB\n", "anonymous");
}

Test(memory, arenas_of_malloc_are_known_by_their_bounds) {
	/* The rest follows and ends where the heap does. */
	expect_only(AT("7f2a64000000-7f2a644b0000", "rw-p") VALUES(0, 8, 0) AT("7f2a644b0000-7f2a68000000", "---p")
			    VALUES(0, 0, 0),
		ARENAS);
	/* Used up. */
	expect_only(AT("7f2a64000000-7f2a68000000", "rw-p") VALUES(0, 8, 0), ARENAS);
}

Test(memory, an_arena_may_be_used_in_pieces) {
	memory_groups groups = groups_of(AT("7f1340000000-7f1344000000", "rw-p") VALUES(0, 1, 0)
			AT("7f1344000000-7f1344021000", "rw-p") VALUES(0, 2, 0) AT("7f1344021000-7f1345861000", "rw-p")
				VALUES(0, 4, 0) AT("7f1345861000-7f1346861000", "rw-p") VALUES(0, 0, 0)
					AT("7f1346861000-7f1348000000", "---p") VALUES(0, 0, 0)
						AT("7f1348000000-7f1348021000", "rw-p") VALUES(0, 8, 0)
							AT("7f1348021000-7f1348041000", "rw-p") VALUES(0, 16, 0));

	cr_assert_eq(groups.n, 2);
	expect(&groups, ARENAS, 3, 7 * KIB);
	expect(&groups, "anonymous", 2, 24 * KIB);
	memory_groups_free(&groups);
}

Test(memory, what_only_begins_like_an_arena_is_none) {
	static const char *const texts[] = {
		/* nothing behind it */
		AT("7f2a64000000-7f2a644b0000", "rw-p") VALUES(0, 8, 0),
		/* a gap */
		AT("7f2a64000000-7f2a644b0000", "rw-p") VALUES(0, 8, 0) AT("7f2a644b1000-7f2a68000000", "---p")
			VALUES(0, 0, 0),
		/* the rest is too short, too long, can be read, is a file's */
		AT("7f2a64000000-7f2a644b0000", "rw-p") VALUES(0, 8, 0) AT("7f2a644b0000-7f2a67fff000", "---p"),
		AT("7f2a64000000-7f2a644b0000", "rw-p") VALUES(0, 8, 0) AT("7f2a644b0000-7f2a6c000000", "---p"),
		AT("7f2a64000000-7f2a644b0000", "rw-p") VALUES(0, 8, 0) AT("7f2a644b0000-7f2a68000000", "r--p"),
		AT("7f2a64000000-7f2a644b0000", "rw-p") VALUES(0, 8, 0)
			FILE_AT("7f2a644b0000-7f2a68000000", "---p", "/x"),
		/* begins elsewhere */
		AT("7f2a65000000-7f2a654b0000", "rw-p") VALUES(0, 8, 0) AT("7f2a654b0000-7f2a68000000", "---p"),
		/* larger than a heap: another allocator's */
		AT("7f2a40000000-7f2a80000000", "rw-p") VALUES(0, 8, 0),
		/* cannot be written */
		AT("7f2a64000000-7f2a68000000", "r--p") VALUES(0, 8, 0),
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		expect_only(texts[i], "anonymous");
}

Test(memory, a_given_name_counts_more_than_bounds) {
	expect_only(NAMED("7f2a64000000-7f2a68000000", "[anon: glibc: malloc arena]") VALUES(0, 8, 0),
		"[anon: glibc: malloc arena]");
}

Test(memory, names_are_taken_as_they_are) {
	expect_only(FILE_AT("1000-2000", "rw-p", "/tmp/a\\012Private_Dirty: 9 kB") VALUES(0, 8, 0),
		"/tmp/a\\012Private_Dirty: 9 kB");
	expect_only(FILE_AT("1000-2000", "rw-p", "/tmp/\033[2J (deleted)") VALUES(0, 8, 0), "/tmp/\033[2J (deleted)");
	expect_only(FILE_AT("1000-2000", "rw-p", "anonymous") VALUES(0, 8, 0), "anonymous");
}

Test(memory, what_the_kernel_does_not_write_is_refused) {
	static const char *const texts[] = {
		"Private_Dirty:  4 kB\n",
		"\n",
		AT("1000-2000", "rw-p") "\n",
		AT("1000-2000", "rw-p") "Private_Dirty:  kB\n",
		AT("1000-2000", "rw-p") "Private_Dirty: -4 kB\n",
		AT("1000-2000", "rw-p") "Private_Dirty: 18446744073709551616 kB\n",
		AT("1000-2000", "rw-p") "Private_Dirty: 18446744073709551615 kB\n",
		AT("1000-2000", "rw-p") "Private_Dirty: 18014398509481983 kB\nPrivate_Clean: 1 kB\n",
		AT("1000-2000", "rw-p") "Swap: 18014398509481983 kB\n" AT("2000-3000", "rw-p") "Swap: 1 kB\n",
		NAMED("1000-2000", "[heap]") "Swap: 18014398509481983 kB\n" AT(
			"2000-3000", "rw-p") "Swap: 1 kB\n" NAMED("4000-5000", "[heap]") "Swap: 1 kB\n",
		"2000-1000 rw-p 00000000 00:00 0 \n",
		"not a mapping\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		refused(texts[i], strlen(texts[i]), -EINVAL);
}

Test(memory, a_text_may_end_anywhere) {
	static const char text[] = AT("7f2a64000000-7f2a644b0000", "rw-p") VALUES(1, 2, 3)
		AT("7f2a644b0000-7f2a68000000", "---p") VALUES(0, 0, 0);

	for (size_t len = 0; len < sizeof(text); len++) {
		char *cut = malloc(len + 1); /* that a sanitizer sees its end */
		memory_groups groups = { 0 };

		cr_assert_not_null(cut);
		memcpy(cut, text, len);
		if (!memory_groups_parse(cut, len, &groups))
			cr_assert_leq(groups.n, 1);
		memory_groups_free(&groups);
		free(cut);
	}
}

/* smaps as a file */

static char folder[] = "/tmp/test-memory-XXXXXX";
static struct proc captured = { .dir_fd = -1, .pidfd = -1 };

static void folder_make(void) {
	cr_assert_not_null(mkdtemp(folder));
	captured.dir_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_assert_geq(captured.dir_fd, 0);
}

static void folder_remove(void) {
	unlinkat(captured.dir_fd, "smaps", 0);
	unlinkat(captured.dir_fd, "stat", 0);
	close(captured.dir_fd);
	rmdir(folder);
}

static void write_file(const char *name, const char *text, size_t len) {
	_close_ int fd = openat(captured.dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, text + done, len - done);

		cr_assert_gt(n, 0);
		done += (size_t)n;
	}
}

static void add_mappings(struct strbuf *text, unsigned long n) {
	for (unsigned long i = 0; i < n; i++) {
		strbuf_addf(text, "%lx-%lx rw-p 00000000 00:00 0 ", (i + 1) << 12, (i + 2) << 12);
		strbuf_addf(text, "%.*s\n" VALUES(0, 4, 0), (int)(i % 4), "[a]");
	}
	cr_assert_not(text->failed);
}

TestSuite(smaps, .init = folder_make, .fini = folder_remove);

Test(smaps, a_large_file_says_what_its_text_says) {
	struct strbuf text = { 0 };
	memory_groups streamed = { 0 }, whole;

	add_mappings(&text, LIMIT_MAPS);
	cr_assert_gt(text.len, 32 * MIB);
	write_file("smaps", text.data, text.len);
	whole = groups_of(text.data);
	cr_assert_eq(memory_groups_read(&captured, &streamed), 0);
	cr_assert_eq(streamed.n, 4);
	cr_assert_eq(whole.n, 4);
	for (size_t i = 0; i < streamed.n; i++) {
		cr_assert_str_eq(streamed.items[i].name, whole.items[i].name);
		expect(&streamed, whole.items[i].name, LIMIT_MAPS / 4, LIMIT_MAPS * KIB);
		cr_assert_eq(whole.items[i].bytes, LIMIT_MAPS * KIB);
	}
	memory_groups_free(&streamed);
	memory_groups_free(&whole);
	strbuf_deinit(&text);
}

Test(smaps, more_mappings_than_the_limit_are_refused) {
	struct strbuf text = { 0 };
	memory_groups groups = { .n = 42 };

	add_mappings(&text, LIMIT_MAPS + 1);
	refused(text.data, text.len, -E2BIG);
	write_file("smaps", text.data, text.len);
	cr_assert_eq(memory_groups_read(&captured, &groups), -E2BIG);
	cr_assert_eq(groups.n, 42);
	strbuf_deinit(&text);
}

Test(smaps, a_line_without_end_is_refused) {
	memory_groups groups = { .n = 42 };
	char *text = malloc(MIB);

	cr_assert_not_null(text);
	memset(text, 'A', MIB);
	write_file("smaps", text, MIB);
	cr_assert_eq(memory_groups_read(&captured, &groups), -EINVAL);
	cr_assert_eq(groups.n, 42);
	free(text);
}

Test(smaps, a_last_line_may_lack_its_newline) {
	static const char text[] = AT("1000-2000", "rw-p") "Private_Dirty: 8 kB";
	memory_groups groups = { 0 };

	write_file("smaps", text, sizeof(text) - 1);
	cr_assert_eq(memory_groups_read(&captured, &groups), 0);
	expect(&groups, "anonymous", 1, 8 * KIB);
	memory_groups_free(&groups);
}

Test(smaps, no_file_is_a_process_that_has_ended) {
	memory_groups groups = { .n = 42 };

	cr_assert_eq(memory_groups_read(&captured, &groups), PROC_E_GONE);
	write_file("stat", "", 0);
	cr_assert_eq(memory_groups_read(&captured, &groups), -ENOENT);
	cr_assert_eq(groups.n, 42);
}

/* the cheap counters */

static int private_of(const char *text, uint64_t *ret_bytes) {
	return memory_private_parse(text, strlen(text), ret_bytes);
}

Test(memory, private_is_anonymous_in_ram_and_in_swap) {
	uint64_t bytes = 0;

	cr_assert_eq(
		private_of("Name:\tRssAnon: 7 kB\nVmRSS:\t    9000 kB\nRssAnon:\t    4200 kB\nRssFile:\t    4800 kB\n"
			   "VmSwap:\t      12 kB\n",
			&bytes),
		0);
	cr_assert_eq(bytes, 4212 * KIB);
	cr_assert_eq(private_of("RssAnon:\t4 kB\n", &bytes), 0, "a kernel without swap");
	cr_assert_eq(bytes, 4 * KIB);
	cr_assert_eq(private_of("Name:\tkthreadd\nVmSwap:\t 4 kB\n", &bytes), 0);
	cr_assert_eq(bytes, PROC_UNKNOWN);
}

Test(memory, private_of_nonsense_is_refused) {
	static const char *const texts[] = { "RssAnon:\n", "RssAnon:\t-1 kB\n", "RssAnon:\t18446744073709551615 kB\n",
		"RssAnon: 4 kB\nVmSwap: x\n", "RssAnon: 18014398509481983 kB\nVmSwap: 1 kB\n" };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		uint64_t bytes = 42;

		cr_assert_eq(private_of(texts[i], &bytes), -EINVAL, "%s", texts[i]);
		cr_assert_eq(bytes, 42);
	}
}

Test(memory, available_is_what_the_kernel_says) {
	static const char text[] = "MemTotal:       24684096 kB\nMemFree:        22002480 kB\n"
				   "MemAvailable:   24078288 kB\nBuffers:          281304 kB\n";
	static const char old[] = "MemTotal:       24684096 kB\nMemFree:        22002480 kB\n";
	uint64_t bytes = 42;

	cr_assert_eq(memory_available_parse(old, sizeof(old) - 1, &bytes), -EINVAL);
	cr_assert_eq(bytes, 42);
	cr_assert_eq(memory_available_parse(text, sizeof(text) - 1, &bytes), 0);
	cr_assert_eq(bytes, 24078288 * KIB);
	cr_assert_eq(memory_available_read(&bytes), 0);
	cr_assert_gt(bytes, MIB);
}

/* a process as it is */

#define TOUCHED (24 * MIB)

/* A child with the memory that `fill` takes, which waits to be killed: at latest when the test ends. */
static pid_t child_with(void (*fill)(void), struct proc *ret_proc) {
	int ready[2];
	pid_t pid;
	char c;

	cr_assert_eq(pipe(ready), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fill();
		if (write(ready[1], "r", 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	cr_assert_eq(read(ready[0], &c, 1), 1);
	close(ready[0]);
	cr_assert_eq(proc_open("/proc", pid, ret_proc), 0);
	return pid;
}

static void end_child(pid_t pid) {
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void map_and_touch(void) {
	char *shared = mmap(NULL, TOUCHED, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *mine = mmap(NULL, TOUCHED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(mine, 1, TOUCHED);
	memset(shared, 1, 2 * TOUCHED / 3);
}

Test(memory, a_process_with_much_memory) {
	const struct memory_group *group;
	memory_groups groups = { 0 };
	struct proc proc;
	uint64_t bytes;
	pid_t pid = child_with(map_and_touch, &proc);

	cr_assert_eq(memory_groups_read(&proc, &groups), 0);
	group = group_of(&groups, "anonymous");
	cr_assert_not_null(group);
	cr_assert_geq(group->bytes, TOUCHED);
	group = group_of(&groups, "/dev/zero (deleted)");
	cr_assert_not_null(group);
	cr_assert_eq(group->bytes, 2 * TOUCHED / 3);
	memory_groups_free(&groups);
	cr_assert_eq(memory_private_read(&proc, &bytes), 0);
	cr_assert_geq(bytes, TOUCHED);
	cr_assert_neq(bytes, PROC_UNKNOWN);
	end_child(pid);
	cr_assert_eq(memory_groups_read(&proc, &groups), PROC_E_GONE);
	cr_assert_eq(memory_private_read(&proc, &bytes), PROC_E_GONE);
	proc_close(&proc);
}

/* A chain, that the compiler leaves nothing out. */
static void *allocate_much(void *last) {
	for (size_t i = 0; i < TOUCHED / 1024; i++) {
		void **block = malloc(1024);

		if (!block)
			break;
		memset(block, 1, 1024);
		*block = last;
		last = block;
	}
	return last;
}

static void allocate_in_thread(void) {
	pthread_t thread;

	pthread_create(&thread, NULL, allocate_much, NULL);
	pthread_join(thread, NULL);
}

Test(memory, a_thread_that_allocates_has_an_arena) {
	const struct memory_group *group;
	memory_groups groups = { 0 };
	struct proc proc;
	pid_t pid;

#ifdef __SANITIZE_ADDRESS__
	cr_skip_test("the sanitizer has another malloc");
#endif
	pid = child_with(allocate_in_thread, &proc);
	cr_assert_eq(memory_groups_read(&proc, &groups), 0);
	group = group_of(&groups, ARENAS);
	cr_assert_not_null(group);
	cr_assert_geq(group->bytes, TOUCHED);
	memory_groups_free(&groups);
	end_child(pid);
	proc_close(&proc);
}
