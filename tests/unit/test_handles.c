/* SPDX-License-Identifier: MIT */
/* What a process holds: patterns, groups of one and of two looks, limits, and the writers for people and machines. */
#include "engine/leaks/handles.h"
#include "engine/proc/limits.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>

#define S(text) ((char[]){ text }) /* the public structs own their strings: not const */
#define K UINT64_C(1024)

/* patterns */

static void expect_narrow(const char *target, const char *want) {
	_free_ char *have = handle_narrow(target, MERGE_PATH);

	cr_expect_str_eq(have, want);
}

Test(handle_targets, numbers_are_taken_out) {
	expect_narrow("/tmp/req-17.log", "/tmp/req-*.log");
	expect_narrow("/tmp/9f86d081884c7d65/x", "/tmp/*/x");
	expect_narrow("/tmp/deface/x", "/tmp/deface/x");
	expect_narrow("/tmp/decafe12/x", "/tmp/*/x");
	expect_narrow("/tmp/cafe12xyz", "/tmp/cafe*xyz");
	expect_narrow("/data/2024/01", "/data/*/*");
	expect_narrow("", "");
	expect_narrow("*7", "**");
}

static void expect_wide(const char *target, enum handle_merge merge, const char *want) {
	_free_ char *have = handle_wide(target, merge);

	cr_expect_str_eq(have, want);
}

Test(handle_targets, names_and_ports_are_taken_out) {
	expect_wide("/tmp/abc.log", MERGE_PATH, "/tmp/*.log");
	expect_wide("/tmp/abc.log (deleted)", MERGE_PATH, "/tmp/*.log (deleted)");
	expect_wide("/tmp/tmpx1_3.4", MERGE_PATH, "/tmp/*");
	expect_wide("/tmp/.hidden", MERGE_PATH, "/tmp/*");
	expect_wide("/tmp/a.averylongsuffix", MERGE_PATH, "/tmp/*");
	expect_wide("no path", MERGE_PATH, "no path");
	expect_wide("/", MERGE_PATH, "/*");
	expect_wide("", MERGE_PATH, "");
	expect_wide("tcp CLOSE_WAIT to 10.0.0.7:4711", MERGE_PORT, "tcp CLOSE_WAIT to 10.0.0.7:*");
	expect_wide("tcp LISTEN at [::1]:80", MERGE_PORT, "tcp LISTEN at [::1]:*");
	expect_wide("worker (app.py)", MERGE_NONE, "worker (app.py)");
}

static void expect_common(const char *a, const char *b, const char *want) {
	_free_ char *have = handle_common(a, b);

	cr_expect_str_eq(have, want);
}

Test(handle_targets, what_is_the_same_stays) {
	expect_common("/tmp/x8y/req-1.log", "/tmp/x8y/req-23.log", "/tmp/x8y/req-*.log");
	expect_common("/tmp/x8y/req-*.log", "/tmp/x9y/req-4.log", "/tmp/x*y/req-*.log");
	expect_common("/a*b", "/a1b", "/a*b");
	expect_common("/9f86d081/1", "/0a86d081/1", "/*/1");
}

static void expect_socket(const struct proc_socket *socket, const handle_ports *ports, const char *want) {
	_free_ char *have = handle_socket_target(socket, ports);

	cr_expect_str_eq(have, want);
}

Test(handle_targets, sockets_by_state_and_peer) {
	struct proc_socket server = {
		.family = SOCKET_TCP, .listening = true, .local = "0.0.0.0:80", .state = "LISTEN"
	};
	struct proc_socket in = {
		.family = SOCKET_TCP, .local = "10.0.0.1:80", .remote = "10.0.0.7:50123", .state = "CLOSE_WAIT"
	};
	struct proc_socket out = {
		.family = SOCKET_TCP, .local = "10.0.0.1:50124", .remote = "[::1]:5432", .state = "ESTABLISHED"
	};
	struct proc_socket fresh = { .family = SOCKET_TCP, .local = "0.0.0.0:0", .state = "CLOSE" };
	struct proc_socket udp = { .family = SOCKET_UDP, .local = "0.0.0.0:53", .state = "CLOSE" };
	struct proc_socket local = { .family = SOCKET_UNIX, .local = "/run/x.sock", .state = "LISTEN" };
	struct proc_socket unknown = { 0 };
	handle_ports ports = { 0 };

	cr_assert_eq(handle_listens(&ports, &server), 0);
	cr_assert_eq(handle_listens(&ports, &in), 0);
	cr_assert_eq(handle_listens(&ports, &local), 0);
	cr_assert_eq(ports.n, 1);
	expect_socket(&server, &ports, "tcp LISTEN at 0.0.0.0:80");
	expect_socket(&in, &ports, "tcp CLOSE_WAIT accepted at 10.0.0.1:80");
	expect_socket(&out, &ports, "tcp ESTABLISHED to [::1]:5432");
	expect_socket(&fresh, &ports, "tcp CLOSE");
	expect_socket(&udp, &ports, "udp at 0.0.0.0:53");
	expect_socket(&local, &ports, "unix LISTEN /run/x.sock");
	expect_socket(&unknown, &ports, "");
	expect_socket(NULL, &ports, "");
	vec_free(&ports);
}

static void expect_map(const char *path, uint64_t inode, bool access, enum handle_kind want) {
	_free_ char *copy = strdup(path);
	struct proc_map map = { .inode = inode, .read = access, .path = copy };

	cr_expect_eq(handle_kind_of_map(&map), want, "%s", path);
}

Test(handle_targets, mappings_by_kind) {
	expect_map("", 0, true, HANDLE_ANONYMOUS);
	expect_map("", 0, false, HANDLE_RESERVED);
	expect_map("[heap]", 0, true, HANDLE_HEAP);
	expect_map("[stack]", 0, true, HANDLE_STACK);
	expect_map("[anon:glibc: malloc]", 0, true, HANDLE_ANONYMOUS);
	expect_map("[anon_shmem:x]", 3, true, HANDLE_SHARED);
	expect_map("[vdso]", 0, true, HANDLE_KERNEL);
	expect_map("/usr/lib/libc.so.6", 7, true, HANDLE_MAPPED_FILE);
	expect_map("/usr/lib/libc.so.6", 7, false, HANDLE_MAPPED_FILE);
	expect_map("/dev/shm/sem.x (deleted)", 7, true, HANDLE_SEMAPHORE);
	expect_map("/dev/shm/psm_1", 7, true, HANDLE_SHARED);
	expect_map("/SYSV00000000 (deleted)", 7, true, HANDLE_SHARED);
	expect_map("/memfd:x (deleted)", 7, true, HANDLE_SHARED);
	expect_map("/dev/zero (deleted)", 7, true, HANDLE_SHARED);
	expect_map("/dev/nvidia0", 7, true, HANDLE_MAPPED_DEVICE);
}

Test(handle_targets, descriptors) {
	struct proc_fd fds[] = {
		{ .kind = FD_PIPE, .write = true, .target = S("pipe:[5]") },
		{ .kind = FD_PIPE, .read = true, .target = S("/run/fifo") },
		{ .kind = FD_FILE, .target = S("/memfd:x (deleted)") },
		{ .kind = FD_EVENTFD, .target = S("anon_inode:[eventfd]") },
		{ .kind = FD_OTHER, .target = S("anon_inode:bpf-map") },
		{ .kind = FD_PIDFD, .pid = -1, .target = S("anon_inode:[pidfd]") },
		{ .kind = FD_PIDFD, .pid = 12, .target = S("anon_inode:[pidfd]") },
	};
	static const char *const want[] = { "write end", "/run/fifo", "/memfd:x (deleted)", "", "anon_inode:bpf-map",
		"ended", "of 12" };

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		_free_ char *have = handle_fd_target(&fds[i]);

		cr_expect_str_eq(have, want[i]);
	}
	cr_expect_eq(handle_kind_of_fd(&fds[1]), HANDLE_PIPE);
	cr_expect_eq(handle_kind_of_fd(&fds[2]), HANDLE_MEMFD);
	cr_expect_eq(handle_kind_of_fd(&fds[6]), HANDLE_PIDFD);
}

#define FRAME(m, f) \
	{ .module = S(m), .function = S(f), .qualname = S(f), .file = S("/x/" m ".py"), .line = 7 }

Test(handle_targets, what_a_thread_was_started_with) {
	struct pyspyd_frame worker[] = { FRAME("app", "fetch"), FRAME("app", "serve"), FRAME("threading", "run"),
		FRAME("threading", "_bootstrap_inner"), FRAME("threading", "_bootstrap") };
	struct pyspyd_frame timer[] = { FRAME("threading", "wait"), FRAME("threading", "run"),
		FRAME("threading", "_bootstrap_inner"), FRAME("threading", "_bootstrap") };
	struct pyspyd_frame early[] = { FRAME("threading", "_bootstrap_inner"), FRAME("threading", "_bootstrap") };
	struct pyspyd_frame program[] = { FRAME("__main__", "main"), FRAME("__main__", "<module>"),
		FRAME("runpy", "_run_code"), FRAME("runpy", "_run_module_as_main") };

	cr_expect_eq(handle_start(worker, ARRAY_SIZE(worker)), 1);
	cr_expect_eq(handle_start(timer, ARRAY_SIZE(timer)), 1);
	cr_expect_eq(handle_start(early, ARRAY_SIZE(early)), 0);
	cr_expect_eq(handle_start(program, ARRAY_SIZE(program)), 1);
	cr_expect_eq(handle_start(NULL, 0), 0);
	timer[1].qualname = S("Timer.run");
	cr_expect_eq(handle_start(timer, ARRAY_SIZE(timer)), 1);
	timer[1].qualname = S("Thread.run");
	cr_expect_eq(handle_start(timer, ARRAY_SIZE(timer)), 0);
}

/* groups */

static void add(handle_item_vec *items, bool before, int id, enum handle_merge merge, const char *target) {
	cr_assert_eq(handle_add(items,
			     &(struct handle_item){ .kind = merge == MERGE_PORT ? HANDLE_SOCKET : HANDLE_FILE,
				     .merge = merge,
				     .before = before,
				     .id = id,
				     .target = strdup(target) }),
		0);
}

static const struct pyspyd_handle_group *find(const struct pyspyd_handle_group *groups, size_t n, const char *target) {
	for (size_t i = 0; i < n; i++)
		if (!strcmp(groups[i].target, target))
			return &groups[i];
	cr_assert_fail("no group %s", target);
	return NULL;
}

Test(handle_groups, targets_with_numbers_and_folders) {
	struct pyspyd_handle_group *groups;
	handle_item_vec items = { 0 };
	char name[64];
	size_t n;

	add(&items, false, 1, MERGE_PATH, "/var/log/one-1.log");
	add(&items, false, 2, MERGE_PATH, "/tmp/a1/req-1");
	add(&items, false, 3, MERGE_PATH, "/tmp/a1/req-2");
	add(&items, false, 4, MERGE_PATH, "/tmp/a1/req-2");
	for (int i = 0; i < 9; i++) {
		snprintf(name, sizeof(name), "/spool/name%c.tmp", 'a' + i);
		add(&items, false, 10 + i, MERGE_PATH, name);
		snprintf(name, sizeof(name), "tcp SYN_SENT to 10.0.0.7:%d", 5000 + i);
		add(&items, false, 30 + i, MERGE_PORT, name);
	}
	cr_assert_eq(handle_groups(&items, &groups, &n), 0);
	cr_expect_eq(n, 4);
	cr_expect_eq(find(groups, n, "/var/log/one-1.log")->count, 1);
	cr_expect_eq(find(groups, n, "/tmp/a1/req-*")->count, 3);
	cr_expect_eq(find(groups, n, "/tmp/a1/req-*")->ids_n, 3);
	cr_expect_eq(find(groups, n, "/tmp/a1/req-*")->ids[2], 4);
	cr_expect_eq(find(groups, n, "/spool/*.tmp")->count, 9);
	cr_expect_eq(find(groups, n, "tcp SYN_SENT to 10.0.0.7:*")->count, 9);
	cr_expect_str_eq(groups[0].kind, "file");
	cr_expect_eq(groups[0].count, 9);
	cr_expect_str_eq(groups[3].kind, "socket");
	for (size_t i = 0; i < n; i++)
		cr_expect_eq(groups[i].grew, 0);
	handle_groups_free(groups, n);
	handle_items_free(&items);
}

Test(handle_groups, two_looks) {
	struct pyspyd_handle_group *groups;
	handle_item_vec items = { 0 };
	size_t n;

	add(&items, true, 1, MERGE_PATH, "/tmp/req-1");
	add(&items, true, 2, MERGE_PATH, "/stays");
	add(&items, true, 3, MERGE_PATH, "/goes");
	add(&items, false, 2, MERGE_PATH, "/stays");
	add(&items, false, 4, MERGE_PATH, "/tmp/req-2");
	add(&items, false, 5, MERGE_PATH, "/tmp/req-3");
	cr_assert_eq(handle_groups(&items, &groups, &n), 0);
	cr_expect_eq(n, 3);
	cr_expect_str_eq(groups[0].target, "/tmp/req-*");
	cr_expect_eq(groups[0].count, 2);
	cr_expect_eq(groups[0].grew, 1);
	cr_expect_eq(groups[0].ids_n, 2);
	cr_expect_eq(groups[0].ids[0], 4);
	cr_expect_eq(find(groups, n, "/stays")->grew, 0);
	cr_expect_eq(find(groups, n, "/goes")->count, 0);
	cr_expect_eq(find(groups, n, "/goes")->grew, -1);
	handle_groups_free(groups, n);
	handle_items_free(&items);
}

Test(handle_groups, nothing_and_no_memory) {
	struct pyspyd_handle_group *groups;
	handle_item_vec items = { 0 };
	size_t n = 7;

	cr_assert_eq(handle_groups(&items, &groups, &n), 0);
	cr_expect_eq(n, 0);
	handle_groups_free(groups, n);
	cr_expect_eq(handle_add(&items, &(struct handle_item){ .target = NULL }), -ENOMEM);
	cr_expect_eq(items.n, 0);
}

/* limits */

Test(handle_limits, of_descriptors) {
	static const char text[] = "Limit                     Soft Limit           Hard Limit           Units     \n"
				   "Max processes             unlimited            unlimited            processes \n"
				   "Max open files            1024                 unlimited            files     \n";
	static const char cut[] = "Max open files            1024";
	uint64_t soft = 1, hard = 2;

	cr_assert_eq(proc_nofile_parse(text, sizeof(text) - 1, &soft, &hard), 0);
	cr_expect_eq(soft, 1024);
	cr_expect_eq(hard, PROC_UNKNOWN);
	cr_expect_eq(proc_nofile_parse(cut, sizeof(cut) - 1, &soft, &hard), -EINVAL);
	cr_expect_eq(proc_nofile_parse("", 0, &soft, &hard), -EINVAL);
	cr_expect_eq(soft, 1024);
}

static char root[] = "/tmp/test-handles-XXXXXX";

static void tree_make(void) {
	cr_assert_not_null(mkdtemp(root));
}

static void tree_remove(void) {
	char command[64];

	snprintf(command, sizeof(command), "rm -rf %s", root);
	cr_assert_eq(system(command), 0);
}

static void write_file(const char *name, const char *text) {
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	for (char *slash = strchr(path + sizeof(root), '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(path, 0755);
		*slash = '/';
	}
	file = fopen(path, "w");
	cr_assert_not_null(file, "%s", path);
	fputs(text, file);
	fclose(file);
}

static struct cgroup_usage usage_of(const char *text) {
	struct cgroup_usage usage;

	cr_assert_eq(cgroup_usage_read(root, text, strlen(text), &usage), 0);
	return usage;
}

TestSuite(handle_cgroup, .init = tree_make, .fini = tree_remove);

Test(handle_cgroup, version_2_takes_the_lowest_limit) {
	struct cgroup_usage usage;

	write_file("a/memory.max", "4096\n");
	write_file("a/memory.current", "1000\n");
	write_file("a/pids.max", "max\n");
	write_file("a/cpu.stat", "usage_usec 5\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n");
	write_file("a/b/memory.max", "max\n");
	write_file("a/b/memory.current", "10\n");
	write_file("a/b/pids.max", "100\n");
	write_file("a/b/pids.current", "7\n");
	write_file("a/b/cpu.stat", "nr_periods 30\nnr_throttled 12\nthrottled_usec 5\n");
	write_file("a/b/memory.pressure", "some avg10=1.25 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.50 x\n");
	usage = usage_of("0::/a/b\n");
	cr_expect_eq(usage.memory_bytes, 1000);
	cr_expect_eq(usage.memory_limit_bytes, 4096);
	cr_expect_eq(usage.tasks, 7);
	cr_expect_eq(usage.tasks_limit, 100);
	cr_expect_eq(usage.periods, 30);
	cr_expect_eq(usage.throttled_periods, 12);
	cr_expect_eq(usage.throttled_ns, 5000);
	cr_expect_float_eq(usage.memory_some_pct, 1.25, 1e-9);
	cr_expect_float_eq(usage.memory_full_pct, 0.5, 1e-9);
}

Test(handle_cgroup, version_1) {
	struct cgroup_usage usage;

	write_file("memory/x/memory.limit_in_bytes", "9223372036854771712\n");
	write_file("memory/x/memory.usage_in_bytes", "77\n");
	write_file("cpu/y/cpu.stat", "nr_periods 3\nnr_throttled 1\nthrottled_time 42\n");
	write_file("pids/x/pids.max", "9\n");
	write_file("pids/x/pids.current", "2\n");
	usage = usage_of("9:name=systemd:/z\n4:memory:/x\n2:cpu,cpuacct:/y\n3:pids:/x\n0::/\n");
	cr_expect_eq(usage.memory_bytes, 77);
	cr_expect_eq(usage.memory_limit_bytes, PROC_UNKNOWN);
	cr_expect_eq(usage.throttled_periods, 1);
	cr_expect_eq(usage.throttled_ns, 42);
	cr_expect_eq(usage.tasks_limit, 9);
	cr_expect(usage.memory_some_pct < 0);
}

Test(handle_cgroup, hostile_and_absent) {
	struct cgroup_usage usage;

	write_file("secret/memory.max", "1\n");
	write_file("a/memory.max", "nonsense\n");
	write_file("a/memory.pressure", "some avg10=999.00\nfull\n");
	write_file("a/cpu.stat", "nr_periods\nnr_throttled x\n");
	usage = usage_of("0::/b/../secret\n");
	cr_expect_eq(usage.memory_limit_bytes, PROC_UNKNOWN);
	usage = usage_of("0::/..\n0::\n0:\n\n::::\n4:memory\n0::secret\n");
	cr_expect_eq(usage.memory_limit_bytes, PROC_UNKNOWN);
	usage = usage_of("0::/a\n0::/gone/b");
	cr_expect_eq(usage.memory_bytes, PROC_UNKNOWN);
	cr_expect_eq(usage.periods, PROC_UNKNOWN);
	cr_expect(usage.memory_some_pct < 0);
}

/* writers */

static struct pyspyd_frame stack[] = { FRAME("app", "fetch"), FRAME("app", "serve") };
static struct pyspyd_frame made[] = { FRAME("app", "open_it"), FRAME("app", "serve") };
static struct pyspyd_handle_group groups[] = {
	{ .what = PYSPYD_HANDLE_DESCRIPTOR,
		.kind = "file",
		.target = S("/tmp/req-*.log"),
		.count = 30,
		.grew = 28,
		.ids = { 3, 4, 5, 6, 7 },
		.ids_n = 5,
		.created = made,
		.created_n = ARRAY_SIZE(made) },
	{ .what = PYSPYD_HANDLE_DESCRIPTOR, .kind = "file", .target = S("/x\x1b[31m\n"), .count = 1, .ids_n = 1 },
	{ .what = PYSPYD_HANDLE_DESCRIPTOR, .kind = "epoll", .target = S(""), .count = 0, .grew = -1 },
	{ .what = PYSPYD_HANDLE_THREAD,
		.kind = "python",
		.target = S("serve (app.py)"),
		.count = 2,
		.ids = { 4712, 4713 },
		.ids_n = 2 },
	{ .what = PYSPYD_HANDLE_CHILD, .kind = "zombie", .target = S("sh"), .count = 1, .ids = { 4714 }, .ids_n = 1 },
	{ .what = PYSPYD_HANDLE_MAPPING, .kind = "heap", .target = S(""), .count = 1, .bytes = 8 * K },
	{ .what = PYSPYD_HANDLE_MAPPING,
		.kind = "file",
		.target = S("/usr/lib/libc.so.6"),
		.count = 5,
		.bytes = 3 * K * K,
		.grew_bytes = 4096 },
};
static struct pyspyd_handle_thread threads[] = {
	{ .thread = { .tid = 4712, .name = S("w-1"), .state = 'S', .frames = stack, .frames_n = 2 },
		.python = true,
		.age_ns = 12000000000,
		.start = 1 },
	{ .thread = { .tid = 4713, .name = S("w\n2"), .state = 'R' }, .python = true, .age_ns = UINT64_MAX },
};
static struct pyspyd_handle_child children[] = {
	{ .pid = 4714, .name = S("sh"), .state = 'Z', .age_ns = 7200000000000 },
};
static char *cmdline[] = { S("python3"), S("app.py"), NULL };
static struct pyspyd_handles handles = {
	.process = { .pid = 4711, .name = S("python3"), .cmdline = cmdline, .python = S("3.13.1"), .cgroup = S("/c") },
	.between_ns = 10000000000,
	.descriptors = 31,
	.descriptors_limit = 1024,
	.descriptors_limit_hard = UINT64_MAX,
	.mappings = 6,
	.mapped_bytes = 3 * K * K + 8 * K,
	.groups = groups,
	.groups_n = ARRAY_SIZE(groups),
	.threads = threads,
	.threads_n = ARRAY_SIZE(threads),
	.children = children,
	.children_n = ARRAY_SIZE(children),
	.cgroup = { .memory_bytes = 256 * K * K,
		.memory_limit_bytes = 512 * K * K,
		.tasks = 7,
		.tasks_limit = UINT64_MAX,
		.periods = 30,
		.throttled_periods = 12,
		.throttled_ns = 5,
		.memory_some_pct = 1.25,
		.memory_full_pct = 0.5 },
};

Test(handles_text, reads_well) {
	_free_ char *text = pyspyd_handles_text(&handles, false);

	cr_assert_str_eq(text,
		"Process 4711: python3 app.py (Python 3.13.1)\n"
		"\n"
		"Grew in 10.0 s:\n"
		"  +28 descriptor, file: /tmp/req-*.log (30 now)\n"
		"  +4.0K mapping, file: /usr/lib/libc.so.6 (5 now)\n"
		"\n"
		"Descriptors: 31 of 1024 (3 %)\n"
		"  file          31 (+28)\n"
		"    30 (+28)  /tmp/req-*.log  [3, 4, 5, 6, …]\n"
		"    1  /x\\x1b[31m\\x0a  [0]\n"
		"  epoll         0 (-1)\n"
		"    0 (-1)\n"
		"\n"
		"Threads: 2\n"
		"  python        2\n"
		"    2  serve (app.py)\n"
		"      4712 (w-1) S, 12.0 s: in fetch (app.py:7)\n"
		"      4713 (w\\x0a2) R, age unknown\n"
		"\n"
		"Children: 1, 1 of them a zombie\n"
		"  zombie        1\n"
		"    1  sh\n"
		"      4714 (sh) Z, 2.0 h\n"
		"\n"
		"Mappings: 6, 3.0M\n"
		"  heap          1, 8.0K\n"
		"  file          5, 3.0M (+4.0K)\n"
		"    5, 3.0M (+4.0K)  /usr/lib/libc.so.6\n"
		"\n"
		"Control group: /c\n"
		"  memory        256.0M of 512.0M (50 %)\n"
		"  tasks         7\n"
		"  throttled     12 of 30 (40 %) periods\n"
		"  pressure      some 1.25 %, full 0.50 % of 10 s\n");
}

Test(handles_text, one_look_says_nothing_of_growth) {
	struct pyspyd_handles one = handles;
	_free_ char *text = NULL;

	one.between_ns = 0;
	one.incomplete = true;
	text = pyspyd_handles_text(&one, false);
	cr_assert_null(strstr(text, "Grew"));
	cr_assert_null(strstr(text, "Nothing"));
	cr_assert_not_null(strstr(text, "incomplete"));
}

Test(handles_text, colour_is_only_where_wanted) {
	_free_ char *coloured = pyspyd_handles_text(&handles, true);

	cr_assert_not_null(strstr(coloured, "\x1b[0m"));
}

static void expect_keys(json_t *object, const char *keys) {
	char have[512] = "";
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value) {
		strcat(have, *have ? " " : "");
		strcat(have, key);
	}
	cr_assert_str_eq(have, keys);
}

Test(handles_text, json_has_the_schema_s_keys) {
	_free_ char *line = pyspyd_handles_json(&handles);
	json_t *object = json_loads(line, 0, NULL), *group;

	cr_assert_not_null(object);
	cr_assert_null(strchr(line, '\n'));
	expect_keys(object,
		"schema process between_s incomplete descriptors descriptors_limit descriptors_limit_hard mappings "
		"mapped_bytes kinds groups groups_omitted threads children cgroup origins");
	cr_assert_str_eq(json_string_value(json_object_get(object, "schema")), "pyspyd.handles/1");
	cr_assert(json_is_null(json_object_get(object, "descriptors_limit_hard")));
	cr_assert_eq(json_array_size(json_object_get(object, "kinds")), 6);
	expect_keys(json_array_get(json_object_get(object, "kinds"), 0), "what kind count bytes grew grew_bytes");
	group = json_array_get(json_object_get(object, "groups"), 0);
	expect_keys(group, "what kind target count bytes grew grew_bytes ids created");
	cr_assert_eq(json_array_size(json_object_get(group, "created")), 2);
	cr_assert_eq(json_integer_value(json_object_get(group, "grew")), 28);
	cr_assert(json_is_null(json_object_get(json_array_get(json_object_get(object, "groups"), 1), "created")));
	expect_keys(
		json_array_get(json_object_get(object, "threads"), 0), "tid name kind state age_s runs start created");
	cr_assert(json_is_null(json_object_get(json_array_get(json_object_get(object, "threads"), 1), "start")));
	expect_keys(json_array_get(json_object_get(object, "children"), 0), "pid name state age_s");
	expect_keys(json_object_get(object, "cgroup"),
		"memory_bytes memory_limit_bytes tasks tasks_limit periods throttled_periods throttled_s "
		"memory_some_percent memory_full_percent");
	json_decref(object);
}

Test(handles_text, of_an_empty_one) {
	struct pyspyd_handles empty = { 0 };
	_free_ char *line = pyspyd_handles_json(&empty), *text = pyspyd_handles_text(&empty, false);

	cr_assert_not_null(line);
	cr_assert_not_null(strstr(text, "Descriptors: 0\n"));
}
