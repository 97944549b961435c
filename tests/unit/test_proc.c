/* SPDX-License-Identifier: MIT */
/* The parsers of /proc on what a target can put there, a tree made by hand, and the test's own process. */
#include "engine/proc/cgroup.h"
#include "engine/proc/proc.h"
#include "engine/proc/sched.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#define STAT_TAIL \
	" R 7184 7184 5661 0 -1 4194304 2858 6610 9 0 4 1 3 1 20 0 3 0 136519 16961536 3335 18446744073709551615 1 1 " \
	"0 0 " \
	"0 0 0 16781312 2 0 0 0 17 5 0 0 0 0 0 1 2 3 4 5 6 7 0\n"
#define HEX16 "0123456789abcdef"
#define ID64 HEX16 HEX16 HEX16 HEX16

static int parse_stat(const char *text, struct proc_stat *ret) {
	return proc_stat_parse(text, strlen(text), ret);
}

Test(stat, reads_every_field) {
	struct proc_stat stat;

	cr_assert_eq(parse_stat("7187 (python3)" STAT_TAIL, &stat), 0);
	cr_assert_str_eq(stat.comm, "python3");
	cr_assert_eq(stat.state, 'R');
	cr_assert_eq(stat.ppid, 7184);
	cr_assert_eq(stat.minor_faults, 2858);
	cr_assert_eq(stat.major_faults, 9);
	cr_assert_eq(stat.user_ticks, 4);
	cr_assert_eq(stat.system_ticks, 1);
	cr_assert_eq(stat.threads, 3);
	cr_assert_eq(stat.start_ticks, 136519);
	cr_assert_eq(stat.vsize_bytes, 16961536);
	cr_assert_eq(stat.rss_pages, 3335);
	cr_assert_eq(stat.processor, 5);
}

Test(stat, a_name_may_look_like_the_fields) {
	static const char *const names[] = { "", ")", "((", ") R 1 (", "a\nb", ") Z 1 1 1 (x) (", " ", "a b c" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct proc_stat stat;
		char line[512], state;
		int cpu;

		snprintf(line, sizeof(line), "1 (%s)%s", names[i], STAT_TAIL);
		cr_assert_eq(parse_stat(line, &stat), 0, "name %zu", i);
		cr_assert_str_eq(stat.comm, names[i]);
		cr_assert_eq(stat.ppid, 7184);
		cr_assert_eq(proc_stat_state(line, strlen(line), &state, &cpu), 0);
		cr_assert_eq(state, 'R');
		cr_assert_eq(cpu, 5);
	}
}

Test(stat, a_long_name_is_cut) {
	struct proc_stat stat;
	char line[1024];

	snprintf(line, sizeof(line), "1 (%0200d)%s", 7, STAT_TAIL);
	cr_assert_eq(parse_stat(line, &stat), 0);
	cr_assert_eq(strlen(stat.comm), sizeof(stat.comm) - 1);
}

Test(stat, every_cut_before_the_last_field_used_is_refused) {
	const char line[] = "7187 (python3)" STAT_TAIL;
	size_t needed = (size_t)(strstr(line, " 17 5") - line) + strlen(" 17 5");
	struct proc_stat stat;
	char state;
	int cpu;

	for (size_t len = 0; len < needed; len++) {
		cr_assert_eq(proc_stat_parse(line, len, &stat), -EINVAL, "length %zu", len);
		cr_assert_eq(proc_stat_state(line, len, &state, &cpu), -EINVAL, "length %zu", len);
	}
	cr_assert_eq(proc_stat_parse(line, needed, &stat), 0);
	cr_assert_eq(proc_stat_state(line, needed, &state, &cpu), 0);
}

Test(stat, refuses_what_does_not_fit) {
	struct proc_stat stat = { .ppid = 42 };

	cr_assert_eq(parse_stat("", &stat), -EINVAL);
	cr_assert_eq(parse_stat("1 )x( R 1", &stat), -EINVAL);
	cr_assert_eq(parse_stat("1 (x) R 1 2 3 4 5 99999999999999999999999", &stat), -EINVAL);
	cr_assert_eq(parse_stat("1 (x) R one", &stat), -EINVAL);
	cr_assert_eq(stat.ppid, 42);
}

Test(schedstat, parses_and_refuses) {
	struct proc_schedstat stat = { .run_ns = 9 };

	cr_assert_eq(proc_schedstat_parse("1 2 ", 4, &stat), -EINVAL);
	cr_assert_eq(proc_schedstat_parse("1 2 99999999999999999999", 24, &stat), -EINVAL);
	cr_assert_eq(stat.run_ns, 9);
	cr_assert_eq(proc_schedstat_parse("18446744073709551615 2 3\n", 25, &stat), 0);
	cr_assert_eq(stat.run_ns, UINT64_MAX);
	cr_assert_eq(stat.slices, 3);
}

Test(sched, is_not_misled_by_a_name) {
	static const char hostile[] = "\nse.exec_start: (7, #threads: 1)\n----\nse.exec_start   :   84048319.155139\n"
				      "se.vruntime :  1.000000\n";
	uint64_t ns = 9;

	cr_assert_eq(proc_sched_parse("x (7, #threads: 1)\n---\nse.vruntime : 1.000000\n", 46, &ns), -EINVAL);
	cr_assert_eq(proc_sched_parse("se.exec_start : 18446744073709551615.000000", 43, &ns), -EINVAL);
	cr_assert_eq(proc_sched_parse("se.exec_start : 1.1000000", 25, &ns), -EINVAL);
	cr_assert_eq(proc_sched_parse("se.exec_st", 10, &ns), -EINVAL);
	cr_assert_eq(ns, 9);
	cr_assert_eq(proc_sched_parse(hostile, sizeof(hostile) - 1, &ns), 0);
	cr_assert_eq(ns, 84048319155139);
}

static int parse_status(const char *text, struct proc_status *ret) {
	return proc_status_parse(text, strlen(text), ret);
}

Test(status, reads_what_we_use) {
	struct proc_status status;

	cr_assert_eq(
		parse_status("Name:\tx\\nUid:\t0\nPid:\t9\nTracerPid:\t7\nUid:\t1000\t1001\t1\t1\nGid:\t5\t6\t7\t8\n"
			     "NSpid:\t9\t4\t1\nCapEff:\t000001ffffffffff\nSeccomp:\t2\nSeccomp_filters:\t3\n"
			     "voluntary_ctxt_switches:\t91\nnonvoluntary_ctxt_switches:\t6\n",
			&status),
		0);
	cr_assert_eq(status.uid, 1000);
	cr_assert_eq(status.euid, 1001);
	cr_assert_eq(status.gid, 5);
	cr_assert_eq(status.tracer, 7);
	cr_assert_eq(status.seccomp, 2);
	cr_assert_eq(status.cap_eff, 0x1ffffffffff);
	cr_assert_eq(status.ns_pid, 1);
	cr_assert_eq(status.ns_depth, 3);
	cr_assert_eq(status.voluntary_switches, 91);
	cr_assert_eq(status.involuntary_switches, 6);
}

Test(status, old_kernels_and_broken_texts) {
	struct proc_status status;

	cr_assert_eq(parse_status("Pid:\t9\nUid:\t4294967295 0\nGid:\t1 1", &status), 0);
	cr_assert_eq(status.uid, UINT32_MAX);
	cr_assert_eq(status.ns_pid, 9);
	cr_assert_eq(status.ns_depth, 1);
	cr_assert_eq(parse_status("", &status), -EINVAL);
	cr_assert_eq(parse_status("Uid:\t1 1\n", &status), -EINVAL);
	cr_assert_eq(parse_status("Uid:\t4294967296 1\nGid:\t1 1\n", &status), -EINVAL);
	cr_assert_eq(parse_status("Uid:\t1 1\nGid:\t1 1\nNSpid:\t\n", &status), -EINVAL);
	cr_assert_eq(parse_status("Uid:\t1 1\nGid:\t1 1\nTracerPid:\t99999999999\n", &status), -EINVAL);
}

Test(maps, reads_lines_and_paths) {
	static const char text[] =
		"555aa8044000-555aa8046000 r-xp 00002000 fe:10 247134        /usr/bin/a b (deleted)\n"
		"7f0000000000-7f0000001000 rw-s 00000000 00:00 0 \n"
		"7f0000001000-7f0000002000 rw-p 00000000 00:00 0\n"
		"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]";
	proc_map_vec maps;

	cr_assert_eq(proc_maps_parse(text, strlen(text), &maps), 0);
	cr_assert_eq(maps.n, 4);
	cr_assert_eq(maps.items[0].start, 0x555aa8044000);
	cr_assert_eq(maps.items[0].end, 0x555aa8046000);
	cr_assert_eq(maps.items[0].offset, 0x2000);
	cr_assert_eq(maps.items[0].dev, makedev(0xfe, 0x10));
	cr_assert_eq(maps.items[0].inode, 247134);
	cr_assert(maps.items[0].read && !maps.items[0].write && maps.items[0].exec && !maps.items[0].shared);
	cr_assert_str_eq(maps.items[0].path, "/usr/bin/a b (deleted)");
	cr_assert(maps.items[1].shared && maps.items[1].write);
	cr_assert_str_eq(maps.items[1].path, "");
	cr_assert_str_eq(maps.items[2].path, "");
	cr_assert_str_eq(maps.items[3].path, "[vsyscall]");
	proc_maps_free(&maps);
	cr_assert_eq(proc_maps_parse("", 0, &maps), 0);
	cr_assert_eq(maps.n, 0);
}

Test(maps, refuses_broken_lines) {
	static const char *const lines[] = { "\n", "1-", "2-1 r-xp 0 0:0 0", "1-2 r-x", "1-2 r-xp 0 0 0",
		"1-2 r-xp 0 0:0", "10000000000000000-2 r-xp 0 0:0 0", "1-2 r-xp 0 100000000:0 0" };
	proc_map_vec maps = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		char text[256];

		snprintf(text, sizeof(text), "1-2 r-xp 0 0:0 0 /x\n%s", lines[i]);
		cr_assert_eq(proc_maps_parse(text, strlen(text), &maps), -EINVAL, "line %zu", i);
	}
	cr_assert_null(maps.items);
}

static void check_cgroup(const char *text, const char *path, const char *container, const char *unit) {
	struct cgroup_names names;

	cr_assert_eq(cgroup_parse(text, strlen(text), &names), 0);
	cr_assert_str_eq(names.path, path);
	cr_assert_str_eq(names.container, container, "%s: %s", text, names.container);
	cr_assert_str_eq(names.unit, unit, "%s: %s", text, names.unit);
	free(names.path);
	free(names.container);
	free(names.unit);
}

Test(cgroup, containers_and_units) {
	check_cgroup("", "", "", "");
	check_cgroup("0::/\n", "/", "", "");
	check_cgroup("no line\n:\n::\n", "", "", "");
	check_cgroup("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n",
		"/user.slice/user-1000.slice/user@1000.service/app.slice/x.service", "", "x.service");
	check_cgroup("0::/system.slice/docker-" ID64 ".scope\n", "/system.slice/docker-" ID64 ".scope", ID64,
		"docker-" ID64 ".scope");
	check_cgroup("0::/\n3:cpu:/docker/" ID64 "\n9:name=systemd:/docker/" ID64 "\n", "/docker/" ID64, ID64, "");
	check_cgroup("3:memory:/docker/" ID64 "\n0::/\n", "/", ID64, "");
	check_cgroup("0::/a/kubepods-pod1.slice:cri-containerd:" ID64, "/a/kubepods-pod1.slice:cri-containerd:" ID64,
		ID64, "");
	check_cgroup("0::/kubepods/burstable/pod1/" ID64, "/kubepods/burstable/pod1/" ID64, ID64, "");
	check_cgroup("0::/machine.slice/libpod-" ID64 ".scope/container",
		"/machine.slice/libpod-" ID64 ".scope/container", ID64, "libpod-" ID64 ".scope");
	check_cgroup(
		"0::/k/crio-conmon-" ID64 ".scope", "/k/crio-conmon-" ID64 ".scope", "", "crio-conmon-" ID64 ".scope");
	check_cgroup("0::/x/" ID64 "0", "/x/" ID64 "0", "", "");
	check_cgroup("0::/lxc.payload.web/system.slice/a.service", "/lxc.payload.web/system.slice/a.service", "web",
		"a.service");
	check_cgroup("0::/lxc/web", "/lxc/web", "web", "");
	check_cgroup("0::/machine.slice/systemd-nspawn@deb.service/payload",
		"/machine.slice/systemd-nspawn@deb.service/payload", "deb", "systemd-nspawn@deb.service");
	check_cgroup("0::/machine.slice/machine-a\\x2db.scope", "/machine.slice/machine-a\\x2db.scope", "a-b",
		"machine-a\\x2db.scope");
}

/* A tree made by hand */

static char root[] = "/tmp/test-proc-XXXXXX";

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

static void write_process(pid_t pid, pid_t parent) {
	char name[64], text[512];

	snprintf(name, sizeof(name), "%d/stat", pid);
	snprintf(text, sizeof(text), "%d (x) S %d%s", pid, parent, strstr(STAT_TAIL, " 7184 5661"));
	write_file(name, text);
}

static void tree_make(void) {
	cr_assert_not_null(mkdtemp(root));
}

static void tree_remove(void) {
	char command[64];

	snprintf(command, sizeof(command), "rm -rf %s", root);
	cr_assert_eq(system(command), 0);
}

TestSuite(tree, .init = tree_make, .fini = tree_remove);

Test(tree, opens_and_reads) {
	struct proc_counters counters;
	struct proc_identity id;
	struct proc proc;
	pid_vec pids;
	char *data;
	size_t len;

	write_process(70, 1);
	write_file("70/status", "Pid:\t70\nUid:\t7 7\nGid:\t1 1\n");
	write_file("70/cmdline", "");
	write_file("70/task/70/status", "Uid:\t7 7\nGid:\t1 1\nvoluntary_ctxt_switches:\t3\n");
	write_file("70/task/71/stat", "71 (x)" STAT_TAIL);
	write_file("70/task/71/status", "Uid:\t7 7\nGid:\t1 1\nvoluntary_ctxt_switches:\t4\n");
	write_file("70/fd/0", "");
	write_file("70/fd/12", "");
	cr_assert_eq(proc_open(root, 70, &proc), 0);
	cr_assert_eq(proc.pidfd, -1);
	cr_assert_eq(proc.start_ticks, 136519);
	cr_assert(proc_alive(&proc));
	cr_assert_eq(proc_threads(&proc, &pids), 0);
	cr_assert(pids.n == 2 && pids.items[0] == 70 && pids.items[1] == 71);
	vec_free(&pids);
	cr_assert_eq(proc_read_file(&proc, "status", 5, &data, &len), 0);
	cr_assert_eq(len, 5);
	cr_assert_str_eq(data, "Pid:\t");
	free(data);
	cr_assert_eq(proc_read_file(&proc, "nothing", 5, &data, &len), -ENOENT);
	cr_assert_eq(proc_read_file(&proc, "task/71/nothing", 5, &data, &len), -ENOENT);
	cr_assert_eq(proc_read_file(&proc, "task/99/comm", 5, &data, &len), PROC_E_GONE);
	cr_assert_eq(proc_counters_read(&proc, true, &counters), 0);
	cr_assert_eq(counters.fds, 2);
	cr_assert_eq(counters.pss_bytes, PROC_UNKNOWN);
	cr_assert_eq(proc_identity_read(&proc, &id), 0);
	cr_assert_str_eq(id.name, "x");
	cr_assert_str_eq(id.cmdline[0], "x");
	cr_assert_null(id.cmdline[1]);
	cr_assert_str_eq(id.exe, "");
	cr_assert_str_eq(id.container, "");
	cr_assert_eq(id.uid, 7);
	proc_identity_free(&id);
	proc_close(&proc);
	cr_assert_eq(proc_open(root, 99, &proc), PROC_E_GONE);
	cr_assert_eq(proc_open(root, 0, &proc), -EINVAL);
}

Test(tree, a_fifo_in_the_tree_does_not_block) {
	char path[64], *data;
	struct proc proc;
	size_t len;

	write_process(70, 1);
	snprintf(path, sizeof(path), "%s/70/comm", root);
	cr_assert_eq(mkfifo(path, 0600), 0);
	cr_assert_eq(proc_open(root, 70, &proc), 0);
	cr_assert_eq(proc_read_file(&proc, "comm", 5, &data, &len), 0);
	cr_assert_eq(len, 0);
	free(data);
	proc_close(&proc);
}

Test(tree, descendants_come_after_their_parents) {
	pid_vec pids;

	write_process(9, 1);
	write_process(5, 9);
	write_process(7, 5);
	write_process(6, 9);
	write_process(3, 7);
	write_process(20, 21); /* a circle, as pids that are given away in the middle can draw it */
	write_process(21, 20);
	write_file("30/stat", "broken");
	write_file("uptime", "");
	cr_assert_eq(proc_descendants(root, 9, &pids), 0);
	cr_assert_eq(pids.n, 4);
	cr_assert(pids.items[0] == 5 && pids.items[1] == 6 && pids.items[2] == 7 && pids.items[3] == 3);
	vec_free(&pids);
	cr_assert_eq(proc_descendants(root, 20, &pids), 0);
	cr_assert(pids.n == 1 && pids.items[0] == 21);
	vec_free(&pids);
	cr_assert_eq(proc_list(root, &pids), 0);
	cr_assert(pids.n == 8 && pids.items[0] == 3 && pids.items[7] == 30);
	vec_free(&pids);
}

Test(tree, a_mapping_is_opened_inside_of_the_root) {
	char path[128], text[16];
	struct proc_map map = { .path = path };
	struct proc proc;
	struct stat st;
	int fd;

	write_process(70, 1);
	write_file("70/root/lib/real.so", "inside");
	snprintf(path, sizeof(path), "%s/70/root/lib/link.so", root);
	cr_assert_eq(symlink("/lib/real.so", path), 0);
	snprintf(path, sizeof(path), "%s/70/root/lib/real.so", root);
	cr_assert_eq(stat(path, &st), 0);
	map.inode = st.st_ino;
	cr_assert_eq(proc_open(root, 70, &proc), 0);
	strcpy(path, "/lib/link.so");
	if (proc_map_open(&proc, &map, &fd) == -ENOENT)
		cr_skip_test("openat2 is not to be had");
	cr_assert_eq(read(fd, text, sizeof(text)), 6);
	close(fd);
	strcpy(path, "/../../lib/real.so (deleted)");
	cr_assert_eq(proc_map_open(&proc, &map, &fd), 0);
	close(fd);
	map.inode++;
	cr_assert_eq(proc_map_open(&proc, &map, &fd), -ENOENT);
	proc_close(&proc);
}

Test(tree, neither_fifo_nor_device_is_opened) {
	char path[128];
	struct proc_map map = { .path = path };
	struct proc proc;
	struct stat st;
	int fd;

	write_process(70, 1);
	write_file("70/root/x", "");
	snprintf(path, sizeof(path), "%s/70/root/fifo", root);
	cr_assert_eq(mkfifo(path, 0600), 0);
	cr_assert_eq(stat(path, &st), 0);
	map.inode = st.st_ino;
	strcpy(path, "/fifo");
	cr_assert_eq(proc_open(root, 70, &proc), 0);
	cr_assert_eq(proc_map_open(&proc, &map, &fd), -ENOENT);
	proc_close(&proc);
}

/* The test's own process, and children of it */

Test(live, own_process) {
	struct proc_identity id;
	struct proc_stat stat;
	struct proc_task task;
	struct proc proc;
	char state;
	int cpu;

	prctl(PR_SET_NAME, ") R 1 (\n");
	cr_assert_eq(proc_open("/proc", getpid(), &proc), 0);
	cr_assert(proc_alive(&proc));
	cr_assert_eq(proc_stat_read(&proc, &stat), 0);
	cr_assert_str_eq(stat.comm, ") R 1 (\n");
	cr_assert_eq(stat.ppid, getppid());
	cr_assert_eq(proc_thread_stat(&proc, getpid(), &stat), 0);
	cr_assert_eq(proc_thread_stat(&proc, 1 << 30, &stat), PROC_E_GONE);
	cr_assert_eq(proc_task_open(&proc, getpid(), &task), 0);
	cr_assert_eq(proc_task_state(&task, &state, &cpu), 0);
	cr_assert_eq(state, 'R');
	proc_task_close(&task);
	cr_assert_eq(proc_identity_read(&proc, &id), 0);
	cr_assert_eq(id.uid, getuid());
	cr_assert(strstr(id.cmdline[0], "unit") || id.cmdline[0][0]);
	cr_assert_eq(id.exe[0], '/');
	proc_identity_free(&id);
	proc_close(&proc);
}

Test(live, counters) {
	struct proc_counters counters, more;
	struct proc proc;
	int fd;

	cr_assert_eq(proc_open("/proc", getpid(), &proc), 0);
	cr_assert_eq(proc_counters_read(&proc, true, &counters), 0);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	cr_assert_eq(proc_counters_read(&proc, false, &more), 0);
	cr_assert_eq(more.fds, counters.fds + 1);
	cr_assert_neq(counters.rss_bytes, 0);
	cr_assert_eq(more.pss_bytes, PROC_UNKNOWN);
	if (counters.pss_bytes != PROC_UNKNOWN)
		cr_assert_leq(counters.uss_bytes, counters.pss_bytes);
	close(fd);
	proc_close(&proc);
}

Test(live, every_mapped_file_opens_and_is_the_one) {
	proc_map_vec maps;
	struct proc proc;
	size_t opened = 0;

	cr_assert_eq(proc_open("/proc", getpid(), &proc), 0);
	cr_assert_eq(proc_maps_read(&proc, &maps), 0);
	vec_foreach (map, &maps) {
		struct stat st;
		int fd;

		if (map->path[0] != '/' || proc_map_open(&proc, map, &fd))
			continue;
		cr_assert_eq(fstat(fd, &st), 0);
		cr_assert(S_ISREG(st.st_mode));
		opened++;
		close(fd);
	}
	cr_assert_gt(opened, 0);
	proc_maps_free(&maps);
	proc_close(&proc);
}

Test(live, a_zombie_opens_but_does_not_live_and_then_is_gone) {
	pid_t pid = fork();
	struct proc proc, again;
	struct proc_stat stat;
	proc_map_vec maps;
	siginfo_t info;

	if (!pid)
		_exit(0);
	cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	cr_assert_eq(proc_open("/proc", pid, &proc), 0);
	cr_assert_not(proc_alive(&proc));
	cr_assert_eq(proc_stat_read(&proc, &stat), 0);
	cr_assert_eq(stat.state, 'Z');
	if (!proc_maps_read(&proc, &maps)) {
		cr_assert_eq(maps.n, 0);
		proc_maps_free(&maps);
	}
	close_fd(&proc.pidfd);
	cr_assert_not(proc_alive(&proc), "without a pidfd too");
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	cr_assert_eq(proc_stat_read(&proc, &stat), PROC_E_GONE);
	cr_assert_eq(proc_maps_read(&proc, &maps), PROC_E_GONE);
	cr_assert_eq(proc_open("/proc", pid, &again), PROC_E_GONE);
	proc_close(&proc);
}

/* A thread that says its id and ends with the pipe's end. */
struct waiter {
	pthread_t thread;
	pid_t tid;
	int tid_fd[2], hold_fd[2];
};

static void *wait_for_end(void *arg) {
	struct waiter *waiter = arg;
	pid_t tid = gettid();
	char byte;

	if (write(waiter->tid_fd[1], &tid, sizeof(tid)) != sizeof(tid) || read(waiter->hold_fd[0], &byte, 1))
		return arg;
	return NULL;
}

static void waiter_start(struct waiter *waiter) {
	cr_assert(!pipe2(waiter->tid_fd, O_CLOEXEC) && !pipe2(waiter->hold_fd, O_CLOEXEC));
	cr_assert_eq(pthread_create(&waiter->thread, NULL, wait_for_end, waiter), 0);
	cr_assert_eq(read(waiter->tid_fd[0], &waiter->tid, sizeof(waiter->tid)), sizeof(waiter->tid));
}

static void waiter_end(struct waiter *waiter) {
	close(waiter->hold_fd[1]);
	pthread_join(waiter->thread, NULL);
}

static bool has_thread(const struct proc *proc, pid_t tid) {
	bool found = false;
	pid_vec tids;

	cr_assert_eq(proc_threads(proc, &tids), 0);
	vec_foreach (item, &tids)
		found |= *item == tid;
	vec_free(&tids);
	return found;
}

Test(live, a_thread_that_ends_is_gone) {
	struct waiter waiter;
	struct proc_stat stat;
	struct proc_task task;
	struct proc proc;
	char state;
	int cpu;

	waiter_start(&waiter);
	cr_assert_eq(proc_open("/proc", getpid(), &proc), 0);
	cr_assert(has_thread(&proc, waiter.tid));
	cr_assert_eq(proc_task_open(&proc, waiter.tid, &task), 0);
	waiter_end(&waiter);
	/* join returns when the kernel has cleared the id, a moment before the thread has left /proc */
	while (!proc_thread_stat(&proc, waiter.tid, &stat))
		;
	cr_assert_eq(proc_task_state(&task, &state, &cpu), PROC_E_GONE);
	cr_assert_not(has_thread(&proc, waiter.tid));
	proc_task_close(&task);
	proc_close(&proc);
}

Test(live, a_thread_is_not_a_process) {
	struct waiter waiter;
	struct proc proc;

	waiter_start(&waiter);
	cr_assert_eq(proc_open("/proc", waiter.tid, &proc), PROC_E_GONE);
	waiter_end(&waiter);
}

Test(sched, time_of_the_last_run) {
	static const char text[] =
		"python3 (7, #threads: 1)\n----\nse.exec_start                                :      "
		"17013151.649328\nse.vruntime                                  :        1.2\n";
	static const char *const bad[] = { "", "se.exec_start", "se.exec_start :", "se.exec_start : x",
		"se.exec_start : 1.5", "se.exec_start : 12345678901234567890123.000000\n",
		"se.exec_start : 1..000000" };
	uint64_t ns = 7;

	cr_assert_eq(proc_sched_parse(text, sizeof(text) - 1, &ns), 0);
	cr_assert_eq(ns, 17013151649328);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		cr_assert_eq(proc_sched_parse(bad[i], strlen(bad[i]), &ns), -EINVAL, "%s", bad[i]);
}
