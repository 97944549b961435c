/* SPDX-License-Identifier: MIT */
/* Descriptors, sockets, file locks, children and shared memory: of a tree made by hand, and of the test's own process.
 */
#include "engine/proc/fds.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>

#define STAT_TAIL " 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 100 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0\n"

static char root[] = "/tmp/test-fds-XXXXXX";

static void make_path(const char *name, char *path, size_t size) {
	snprintf(path, size, "%s/%s", root, name);
	for (char *slash = strchr(path + sizeof(root), '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(path, 0755);
		*slash = '/';
	}
}

static void write_file(const char *name, const char *text) {
	char path[256];
	FILE *file;

	make_path(name, path, sizeof(path));
	file = fopen(path, "w");
	cr_assert_not_null(file, "%s", path);
	fputs(text, file);
	fclose(file);
}

static void write_link(const char *name, const char *target) {
	char path[256];

	make_path(name, path, sizeof(path));
	cr_assert_eq(symlink(target, path), 0);
}

static void write_process(pid_t pid, pid_t parent) {
	char name[64], text[512];

	snprintf(name, sizeof(name), "%d/stat", pid);
	snprintf(text, sizeof(text), "%d (x) S %d%s", pid, parent, STAT_TAIL);
	write_file(name, text);
	snprintf(name, sizeof(name), "%d/task/%d/stat", pid, pid);
	write_file(name, text);
	snprintf(name, sizeof(name), "%d/fd/none", pid);
	write_file(name, "");
}

static void tree_make(void) {
	cr_assert_not_null(mkdtemp(root));
}

static void tree_remove(void) {
	char command[64];

	snprintf(command, sizeof(command), "rm -rf %s", root);
	cr_assert_eq(system(command), 0);
}

static struct proc open_process(const char *where, pid_t pid) {
	struct proc proc;

	cr_assert_eq(proc_open(where, pid, &proc), 0);
	return proc;
}

static struct proc self(void) {
	return open_process("/proc", getpid());
}

/* A tree */

TestSuite(fd_tree, .init = tree_make, .fini = tree_remove);

Test(fd_tree, one_descriptor) {
	struct proc proc;
	struct proc_fd fd;

	write_process(7, 1);
	write_link("7/fd/3", "pipe:[123]");
	write_file("7/fdinfo/3", "pos:\t0\nflags:\t02000001\nmnt_id:\t15\n");
	write_link("7/fd/4", "anon_inode:[pidfd]");
	write_file("7/fdinfo/4", "flags:\t02000002\nPid:\t4711\nNSpid:\t4711\n");
	write_link("7/fd/5", "pipe:[123]x");
	write_file("7/fdinfo/5", "flags:\t010000000\n");
	proc = open_process(root, 7);
	cr_assert_eq(proc_fd_read(&proc, 3, &fd), 0);
	cr_assert_eq(fd.kind, FD_PIPE);
	cr_assert_eq(fd.inode, 123);
	cr_assert_str_eq(fd.target, "pipe:[123]");
	cr_assert(fd.write && !fd.read);
	proc_fd_deinit(&fd);
	cr_assert_eq(proc_fd_read(&proc, 4, &fd), 0);
	cr_assert_eq(fd.kind, FD_PIDFD);
	cr_assert_eq(fd.pid, 4711);
	cr_assert(fd.write && fd.read);
	proc_fd_deinit(&fd);
	cr_assert_eq(proc_fd_read(&proc, 5, &fd), 0);
	cr_assert_eq(fd.kind, FD_OTHER);
	cr_assert(!fd.write && !fd.read);
	proc_fd_deinit(&fd);
	cr_assert_eq(proc_fd_read(&proc, 6, &fd), -ENOENT);
	cr_assert_eq(proc_fd_read(&proc, -1, &fd), -ENOENT);
	proc_close(&proc);
}

Test(fd_tree, owners_of_all_processes) {
	struct fd_table table;
	struct proc proc;
	proc_fd_vec fds;

	write_process(7, 1);
	write_process(8, 1);
	write_link("7/fd/3", "pipe:[123]");
	write_file("7/fdinfo/3", "flags:\t01\n");
	write_link("7/fd/4", "/nowhere/at/all");
	write_file("7/fdinfo/4", "flags:\t00\n");
	write_link("8/fd/9", "pipe:[123]");
	write_file("8/fdinfo/9", "flags:\t00\n");
	write_link("8/fd/10", "pipe:[18446744073709551615]");
	write_file("8/fdinfo/10", "flags:\t00\n");
	cr_assert_eq(fd_table_read(root, &table), 0);
	cr_assert_eq(table.owners.n, 2);
	cr_assert_eq(table.owners.items[0].pid, 7);
	cr_assert(table.owners.items[0].write && !table.owners.items[0].read);
	cr_assert_eq(table.owners.items[1].fd, 9);
	cr_assert(table.owners.items[1].read && !table.owners.items[1].write);
	cr_assert_not(table.incomplete);
	fd_table_deinit(&table);
	proc = open_process(root, 7);
	cr_assert_eq(proc_fds_read(&proc, 100, &fds), 0);
	cr_assert_eq(fds.n, 2);
	proc_fds_free(&fds);
	cr_assert_eq(proc_fds_read(&proc, 1, &fds), 0);
	cr_assert_eq(fds.n, 1);
	proc_fds_free(&fds);
	proc_close(&proc);
}

Test(fd_tree, epoll_and_timers) {
	struct proc proc;
	bool armed;
	int_vec fds;

	write_process(7, 1);
	write_file("7/fdinfo/4",
		"pos:\t0\nflags:\t02000002\ntfd:        5 events:       19 data:                5  pos:0 ino:1fa3 "
		"sdev:e\n"
		"tfd:       66 events:       19 data: 7\ntfd: x\ntfd: 99999999999 e\ntfd:  7");
	write_file("7/fdinfo/5", "clockid: 0\nticks: 0\nit_value: (0, 49406829)\nit_interval: (1, 0)\n");
	write_file("7/fdinfo/6", "clockid: 0\nticks: 0\nit_value: (0, 0)\nit_interval: (1, 0)\n");
	write_file("7/fdinfo/7", "clockid: 0\nticks: 2\nit_value: (0, 0)\n");
	proc = open_process(root, 7);
	cr_assert_eq(proc_epoll_read(&proc, 4, 100, &fds), 0);
	cr_assert_eq(fds.n, 2);
	cr_assert_eq(fds.items[0], 5);
	cr_assert_eq(fds.items[1], 66);
	vec_free(&fds);
	cr_assert_eq(proc_epoll_read(&proc, 4, 1, &fds), 0);
	cr_assert_eq(fds.n, 1);
	vec_free(&fds);
	cr_assert_eq(proc_epoll_read(&proc, 3, 1, &fds), -ENOENT);
	cr_assert_eq(proc_timerfd_armed(&proc, 5, &armed), 0);
	cr_assert(armed);
	cr_assert_eq(proc_timerfd_armed(&proc, 6, &armed), 0);
	cr_assert_not(armed);
	cr_assert_eq(proc_timerfd_armed(&proc, 7, &armed), 0);
	cr_assert(armed);
	cr_assert_eq(proc_timerfd_armed(&proc, 4, &armed), -ENOENT);
	proc_close(&proc);
}

#define INET_HEAD "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
#define INET_TAIL " 00:00000000 00000000  1000        0 "

Test(fd_tree, sockets) {
	struct proc_socket socket;
	struct proc proc;

	if (htonl(1) == 1)
		cr_skip_test("the texts are those of a little-endian machine");
	write_process(7, 1);
	write_file("7/net/tcp",
		INET_HEAD "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000003" INET_TAIL "50 1 0 100 0 0 10 0\n"
			  "   1: 0100007F:C5E2 0100007F:1F90 01 0000000A:00000000" INET_TAIL "51 1 0 20 4 30 10 -1\n"
			  "   2: 0200000A:C5E3 0302010A:1538 02 00000001:00000000" INET_TAIL "52 1\n"
			  "   3: broken\n");
	write_file("7/net/tcp6",
		INET_HEAD "   0: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:C5E2 08 "
			  "00000000:00000005" INET_TAIL "53 1\n"
			  "   1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A "
			  "00000000:00000000" INET_TAIL "54 1\n");
	write_file("7/net/unix",
		"Num       RefCount Protocol Flags    Type St Inode Path\n"
		"0000000000000000: 00000002 00000000 00010000 0001 01    60 /run/x y.sock\n"
		"0000000000000000: 00000003 00000000 00000000 0001 03 61\n"
		"0000000000000000: 00000003 00000000 00000000 0001 03 62 @abstract\n");
	proc = open_process(root, 7);
	cr_assert_eq(proc_socket_read(&proc, 50, &socket), 0);
	cr_assert(socket.family == SOCKET_TCP && socket.listening);
	cr_assert_str_eq(socket.local, "127.0.0.1:8080");
	cr_assert_str_eq(socket.remote, "");
	cr_assert_str_eq(socket.state, "LISTEN");
	cr_assert_eq(proc_socket_read(&proc, 51, &socket), 0);
	cr_assert_str_eq(socket.remote, "127.0.0.1:8080");
	cr_assert_eq(socket.peer_inode, 53);
	cr_assert(socket.loopback && !socket.listening);
	cr_assert_eq(socket.send_queue, 10);
	cr_assert_eq(proc_socket_read(&proc, 53, &socket), 0);
	cr_assert_eq(socket.peer_inode, 51);
	cr_assert_eq(socket.receive_queue, 5);
	cr_assert_str_eq(socket.state, "CLOSE_WAIT");
	cr_assert_eq(proc_socket_read(&proc, 52, &socket), 0);
	cr_assert_str_eq(socket.remote, "10.1.2.3:5432");
	cr_assert_str_eq(socket.state, "SYN_SENT");
	cr_assert(!socket.loopback && !socket.peer_inode);
	cr_assert_eq(proc_socket_read(&proc, 54, &socket), 0);
	cr_assert_str_eq(socket.local, "[::1]:80");
	cr_assert_eq(proc_socket_read(&proc, 60, &socket), 0);
	cr_assert(socket.family == SOCKET_UNIX && socket.listening && socket.loopback);
	cr_assert_str_eq(socket.local, "/run/x y.sock");
	cr_assert_eq(proc_socket_read(&proc, 61, &socket), 0);
	cr_assert_str_eq(socket.local, "");
	cr_assert_str_eq(socket.state, "ESTABLISHED");
	cr_assert_eq(proc_socket_read(&proc, 62, &socket), 0);
	cr_assert_str_eq(socket.local, "@abstract");
	cr_assert_eq(proc_socket_read(&proc, 63, &socket), -ENOENT);
	cr_assert_eq(proc_socket_read(&proc, 0, &socket), -ENOENT);
	proc_close(&proc);
}

Test(fd_tree, children_by_parent_and_by_file) {
	pid_vec pids;

	write_process(7, 1);
	write_process(9, 7);
	write_process(8, 7);
	write_process(10, 8);
	cr_assert_eq(proc_children(root, 7, &pids), 0);
	cr_assert_eq(pids.n, 2);
	cr_assert(pids.items[0] == 8 && pids.items[1] == 9);
	vec_free(&pids);
	write_file("7/task/7/children", "30 12 ");
	write_file("7/task/70/children", "20");
	cr_assert_eq(proc_children(root, 7, &pids), 0);
	cr_assert_eq(pids.n, 3);
	cr_assert(pids.items[0] == 12 && pids.items[1] == 20 && pids.items[2] == 30);
	vec_free(&pids);
	cr_assert_eq(proc_children(root, 11, &pids), PROC_E_GONE);
}

Test(fd_tree, signals_and_shared_memory) {
	struct shared_word word;
	struct proc proc;
	uint64_t mask;

	write_process(7, 1);
	write_file("7/status", "Name:\tx\nSigIgn:\tffff\nSigCgt:\t8000000000004002\n");
	write_file("7/maps",
		"1000-2000 rw-s 00003000 00:1a 88                  /dev/shm/sem.a b (deleted)\n"
		"2000-3000 rw-p 00000000 00:1a 89                  /dev/shm/private\n"
		"3000-4000 rw-s fffffffffffff000 00:1a 90          /dev/shm/far\n");
	proc = open_process(root, 7);
	cr_assert_eq(proc_caught_signals(&proc, &mask), 0);
	cr_assert_eq(mask, 0x8000000000004002);
	cr_assert_eq(proc_shared_word(&proc, 0x1010, &word), 0);
	cr_assert_eq(word.offset, 0x3010);
	cr_assert_eq(word.inode, 88);
	cr_assert_eq(word.dev, makedev(0, 0x1a));
	cr_assert_str_eq(word.path, "/dev/shm/sem.a b");
	cr_assert_eq(proc_shared_word(&proc, 0x2010, &word), -ENOENT);
	cr_assert_eq(proc_shared_word(&proc, 0xfff, &word), -ENOENT);
	cr_assert_eq(proc_shared_word(&proc, 0x4000, &word), -ENOENT);
	cr_assert_eq(proc_shared_word(&proc, 0x3fff, &word), 0);
	proc_close(&proc);
}

/* /proc/locks */

static int parse_locks(const char *text, file_lock_vec *ret) {
	return file_locks_parse(text, strlen(text), ret);
}

Test(file_locks, holders_and_waiters) {
	file_lock_vec locks;

	cr_assert_eq(parse_locks("1: POSIX  ADVISORY  WRITE 1234 00:2a:567 0 EOF\n"
				 "1: -> POSIX  ADVISORY  READ 1235 00:2a:567 5 9\n"
				 "1:     -> POSIX  ADVISORY  READ 1236 00:2a:567 5 9\n"
				 "2: OFDLCK ADVISORY  READ -1 fd:01:12 128 255\n"
				 "3: ACCESS ADVISORY  READ 1 fd:01:12 128 255\n"
				 "4: POSIX  *NOINODE* WRITE 5 <none>:0 0 EOF\n"
				 "5: LEASE  BREAKING  READ 77 08:01:9 0 EOF\n"
				 "6: FLOCK  ADVISORY  WRITE 78 08:01:9 0 EOF",
			     &locks),
		0);
	cr_assert_eq(locks.n, 6);
	cr_assert(!locks.items[0].waits && locks.items[0].write && locks.items[0].kind == FILE_LOCK_POSIX);
	cr_assert_eq(locks.items[0].pid, 1234);
	cr_assert_eq(locks.items[0].dev, makedev(0, 0x2a));
	cr_assert_eq(locks.items[0].inode, 567);
	cr_assert_eq(locks.items[0].end, UINT64_MAX);
	cr_assert(locks.items[1].waits && !locks.items[1].write && locks.items[1].id == 1);
	cr_assert(locks.items[1].start == 5 && locks.items[1].end == 9);
	cr_assert(locks.items[2].waits && locks.items[2].pid == 1236);
	cr_assert(locks.items[3].pid == -1 && locks.items[3].kind == FILE_LOCK_OFD);
	cr_assert_eq(locks.items[3].dev, makedev(0xfd, 1));
	cr_assert_eq(locks.items[4].kind, FILE_LOCK_LEASE);
	cr_assert_eq(locks.items[5].kind, FILE_LOCK_FLOCK);
	vec_free(&locks);
}

Test(file_locks, broken_texts) {
	static const char *const texts[] = { "x", "1", "1 POSIX", "1: POSIX  ADVISORY  WRITE",
		"1: POSIX ADVISORY WRITE 1", "1: POSIX  ADVISORY  WRITE 1234 00:2a 0 EOF",
		"1: POSIX  ADVISORY  WRITE 1234 00:2a:567 9 5", "1: POSIX  ADVISORY  WRITE 1234 00:2a:567 0 EOFx",
		"1: POSIX  ADVISORY  WRITE 99999999999 00:2a:567 0 EOF" };
	file_lock_vec locks = { .cap = 42 };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		cr_assert_eq(parse_locks(texts[i], &locks), -EINVAL, "%s", texts[i]);
	cr_assert_eq(locks.cap, 42);
	cr_assert_eq(parse_locks("", &locks), 0);
	cr_assert_eq(locks.n, 0);
}

static bool has_lock(uint64_t inode, int kind) {
	file_lock_vec locks;
	bool found = false;

	cr_assert_eq(file_locks_read("/proc", &locks), 0);
	vec_foreach (lock, &locks)
		found = found ||
			(lock->inode == inode && (int)lock->kind == kind && lock->pid == getpid() && lock->write);
	vec_free(&locks);
	return found;
}

Test(file_locks, our_own) {
	char path[] = "/tmp/test-locks-XXXXXX";
	int fd = mkstemp(path);
	struct stat st;

	cr_assert_geq(fd, 0);
	unlink(path);
	fstat(fd, &st);
	cr_assert_not(has_lock(st.st_ino, FILE_LOCK_FLOCK));
	cr_assert_eq(flock(fd, LOCK_EX), 0);
	cr_assert(has_lock(st.st_ino, FILE_LOCK_FLOCK));
	cr_assert_eq(lockf(fd, F_LOCK, 0), 0);
	cr_assert(has_lock(st.st_ino, FILE_LOCK_POSIX));
	close(fd);
}

/* Our own process */

static struct proc_fd read_own(int number) {
	struct proc proc = self();
	struct proc_fd fd;

	cr_assert_eq(proc_fd_read(&proc, number, &fd), 0, "%d", number);
	proc_close(&proc);
	free(take_ptr(fd.target));
	return fd;
}

Test(own_fds, kinds) {
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	sigset_t none;

	sigemptyset(&none);
	cr_assert_eq(read_own(eventfd(0, 0)).kind, FD_EVENTFD);
	cr_assert_eq(read_own(timerfd_create(CLOCK_MONOTONIC, 0)).kind, FD_TIMERFD);
	cr_assert_eq(read_own(signalfd(-1, &none, 0)).kind, FD_SIGNALFD);
	cr_assert_eq(read_own(epoll_create1(0)).kind, FD_EPOLL);
	cr_assert_eq(read_own(inotify_init1(0)).kind, FD_INOTIFY);
	cr_assert_eq(read_own(open("/tmp", O_RDONLY)).kind, FD_DIRECTORY);
	cr_assert_eq(read_own(open("/dev/null", O_RDONLY)).kind, FD_DEVICE);
	cr_assert_eq(read_own(open("/proc/self/exe", O_RDONLY)).kind, FD_FILE);
	cr_assert_eq(read_own(open("/proc/self/ns/net", O_RDONLY)).kind, FD_OTHER);
	if (pidfd < 0)
		cr_skip_test("no pidfds here");
	cr_assert_eq(read_own(pidfd).kind, FD_PIDFD);
	cr_assert_eq(read_own(pidfd).pid, getpid());
}

Test(own_fds, terminals) {
	int master = posix_openpt(O_RDWR | O_NOCTTY), slave;

	if (master < 0 || unlockpt(master))
		cr_skip_test("no pseudo-terminals here");
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	if (slave < 0)
		cr_skip_test("the terminal's name leads elsewhere");
	cr_assert_eq(read_own(slave).kind, FD_TTY);
	cr_assert_eq(read_own(master).kind, FD_DEVICE);
}

struct owners {
	int fds[4];
	size_t n;
	bool write[4];
	uint64_t dev;
};

static int take_owner(void *userdata, const struct fd_owner *owner) {
	struct owners *owners = userdata;

	if (owner->pid == getpid() && owners->n < ARRAY_SIZE(owners->fds)) {
		owners->write[owners->n] = owner->write;
		owners->dev = owner->dev;
		owners->fds[owners->n++] = owner->fd;
	}
	return 0;
}

static int stop_at_first(void *userdata, const struct fd_owner *owner) {
	*(int *)userdata = owner->fd;
	return 77;
}

Test(own_fds, both_ends_of_a_pipe) {
	struct owners owners = { .n = 0 };
	struct fd_table table;
	struct proc_fd ends[2];
	int fds[2], first;

	cr_assert_eq(pipe(fds), 0);
	ends[0] = read_own(fds[0]);
	ends[1] = read_own(fds[1]);
	cr_assert_eq(ends[0].kind, FD_PIPE);
	cr_assert_eq(ends[0].inode, ends[1].inode);
	cr_assert_eq(ends[0].dev, 0);
	cr_assert(ends[0].read && !ends[0].write && ends[1].write && !ends[1].read);
	cr_assert_eq(fd_table_read("/proc", &table), 0);
	cr_assert_eq(fd_table_each(&table, ends[0].inode, take_owner, &owners), 0);
	cr_assert_eq(owners.n, 2);
	cr_assert(owners.fds[0] == fds[0] && owners.fds[1] == fds[1]);
	cr_assert(!owners.write[0] && owners.write[1]);
	cr_assert_eq(fd_table_each(&table, ends[0].inode, stop_at_first, &first), 77);
	cr_assert_eq(first, fds[0]);
	fd_table_deinit(&table);
}

Test(own_fds, a_named_fifo) {
	struct owners owners = { .n = 0 };
	char folder[] = "/tmp/test-fifo-XXXXXX", path[64];
	struct fd_table table;
	struct proc_fd fd;
	struct stat st;
	int number;

	cr_assert_not_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/fifo", folder);
	cr_assert_eq(mkfifo(path, 0600), 0);
	number = open(path, O_RDWR);
	unlink(path);
	rmdir(folder);
	fstat(number, &st);
	fd = read_own(number);
	cr_assert_eq(fd.kind, FD_PIPE);
	cr_assert_eq(fd.inode, st.st_ino);
	cr_assert_eq(fd.dev, st.st_dev);
	cr_assert_eq(fd_table_read("/proc", &table), 0);
	cr_assert_eq(fd_table_each(&table, st.st_ino, take_owner, &owners), 0);
	cr_assert_eq(owners.n, 1);
	cr_assert_eq(owners.fds[0], number);
	cr_assert_eq(owners.dev, st.st_dev);
	fd_table_deinit(&table);
}

Test(own_fds, epoll_and_timer) {
	const struct itimerspec later = { .it_value = { .tv_sec = 1000 } };
	struct epoll_event event = { .events = EPOLLIN };
	int timer = timerfd_create(CLOCK_MONOTONIC, 0), poller = epoll_create1(0);
	struct proc proc = self();
	int_vec fds;
	bool armed;

	cr_assert_eq(proc_epoll_read(&proc, poller, 10, &fds), 0);
	cr_assert_eq(fds.n, 0);
	cr_assert_eq(epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event), 0);
	cr_assert_eq(proc_epoll_read(&proc, poller, 10, &fds), 0);
	cr_assert_eq(fds.n, 1);
	cr_assert_eq(fds.items[0], timer);
	vec_free(&fds);
	cr_assert_eq(proc_timerfd_armed(&proc, timer, &armed), 0);
	cr_assert_not(armed);
	timerfd_settime(timer, 0, &later, NULL);
	cr_assert_eq(proc_timerfd_armed(&proc, timer, &armed), 0);
	cr_assert(armed);
	proc_close(&proc);
}

Test(own_fds, tcp_over_loopback) {
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), accepted;
	struct proc proc = self();
	struct proc_socket socket;

	if (bind(server, (struct sockaddr *)&address, len) || listen(server, 5) ||
		getsockname(server, (struct sockaddr *)&address, &len) ||
		connect(client, (struct sockaddr *)&address, len))
		cr_skip_test("no loopback network here");
	accepted = accept(server, NULL, NULL);
	cr_assert_geq(accepted, 0);
	cr_assert_eq(proc_socket_read(&proc, read_own(client).inode, &socket), 0);
	cr_assert_eq(socket.family, SOCKET_TCP);
	cr_assert_str_eq(socket.state, "ESTABLISHED");
	cr_assert(socket.loopback);
	cr_assert_eq(socket.peer_inode, read_own(accepted).inode);
	cr_assert_eq(proc_socket_read(&proc, read_own(server).inode, &socket), 0);
	cr_assert(socket.listening);
	proc_close(&proc);
}

Test(own_fds, unix_pair) {
	struct proc proc = self();
	struct proc_socket socket;
	uint64_t other;
	int fds[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	cr_assert_eq(write(fds[0], "abc", 3), 3);
	other = read_own(fds[1]).inode;
	cr_assert_eq(proc_socket_read(&proc, read_own(fds[0]).inode, &socket), 0);
	cr_assert_eq(socket.family, SOCKET_UNIX);
	cr_assert(socket.loopback);
	cr_assert_str_eq(socket.state, "ESTABLISHED");
	if (!socket.peer_inode)
		cr_skip_test("this kernel has no unix_diag");
	cr_assert_eq(socket.peer_inode, other);
	cr_assert_eq(proc_socket_read(&proc, other, &socket), 0);
	cr_assert_eq(socket.receive_queue, 3);
	proc_close(&proc);
}

Test(own_fds, a_named_unix_server) {
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
	struct proc proc = self();
	struct proc_socket socket;
	char name[64];

	snprintf(name, sizeof(name), "@test-fds-%d", (int)getpid());
	memcpy(address.sun_path + 1, name + 1, strlen(name) - 1);
	cr_assert_eq(bind(server, (struct sockaddr *)&address, (socklen_t)(sizeof(sa_family_t) + strlen(name))), 0);
	cr_assert_eq(listen(server, 5), 0);
	cr_assert_eq(proc_socket_read(&proc, read_own(server).inode, &socket), 0);
	cr_assert(socket.listening);
	cr_assert_str_eq(socket.local, name);
	cr_assert_str_eq(socket.state, "LISTEN");
	cr_assert_eq(connect(client, (struct sockaddr *)&address, (socklen_t)(sizeof(sa_family_t) + strlen(name))), 0);
	cr_assert_eq(proc_socket_read(&proc, read_own(client).inode, &socket), 0);
	if (socket.peer_inode)
		cr_assert_str_eq(socket.remote, name);
	proc_close(&proc);
}

Test(own_fds, shared_and_private_memory) {
	char path[] = "/tmp/test-word-XXXXXX";
	int fd = mkstemp(path);
	struct proc proc = self();
	struct shared_word word;
	struct stat st;
	char *memory, *other;

	cr_assert_eq(ftruncate(fd, 3 * 65536), 0);
	memory = mmap(NULL, 65536, PROT_READ, MAP_SHARED, fd, 65536);
	other = mmap(NULL, 65536, PROT_READ, MAP_PRIVATE, fd, 0);
	unlink(path);
	fstat(fd, &st);
	cr_assert_eq(proc_shared_word(&proc, (uintptr_t)memory + 40, &word), 0);
	cr_assert_eq(word.inode, st.st_ino);
	cr_assert_eq(word.offset, 65536 + 40);
	cr_assert_str_eq(word.path, path);
	cr_assert_eq(proc_shared_word(&proc, (uintptr_t)other + 40, &word), -ENOENT);
	memory = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_eq(proc_shared_word(&proc, (uintptr_t)memory, &word), 0);
	cr_assert_neq(word.inode, 0);
	proc_close(&proc);
}

static void on_signal(int number) {
	(void)number;
}

static bool has_pid(const pid_vec *pids, pid_t pid) {
	vec_foreach (item, pids)
		if (*item == pid)
			return true;
	return false;
}

Test(own_fds, signals_children_and_the_end) {
	struct proc proc = self(), ended;
	siginfo_t info;
	proc_fd_vec fds;
	struct proc_fd fd;
	uint64_t mask;
	pid_vec pids;
	pid_t child;

	signal(SIGUSR1, on_signal);
	cr_assert_eq(proc_caught_signals(&proc, &mask), 0);
	cr_assert(mask & 1ULL << (SIGUSR1 - 1));
	cr_assert_not(mask & 1ULL << (SIGUSR2 - 1));
	child = fork();
	if (!child)
		for (;;)
			pause();
	ended = open_process("/proc", child);
	kill(child, SIGKILL);
	cr_assert_eq(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	cr_assert_eq(proc_children("/proc", getpid(), &pids), 0);
	cr_assert(has_pid(&pids, child));
	vec_free(&pids);
	cr_assert_eq(proc_fd_read(&ended, 0, &fd), PROC_E_GONE);
	cr_assert_eq(proc_fds_read(&ended, 10, &fds), PROC_E_GONE);
	waitpid(child, NULL, 0);
	cr_assert_eq(proc_fd_read(&ended, 0, &fd), PROC_E_GONE);
	cr_assert_eq(proc_caught_signals(&ended, &mask), PROC_E_GONE);
	cr_assert_eq(proc_children("/proc", child, &pids), PROC_E_GONE);
	proc_close(&ended);
	proc_close(&proc);
}
