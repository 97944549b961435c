/* SPDX-License-Identifier: MIT */
/* Does what the service does, with no more than the service may: watches a process until findings came, looks at it in
 * every other way, keeps a database, runs an event loop, speaks to the journal, serves and fetches a page. Then it
 * tries what it must not.
 *
 *     privileges_driver PID WORK-FOLDER [strict] [inet] [idle]
 *
 * Prints "did WHAT" for what went well, "failed WHAT: why" for what did not, "refused CALL" for a call that failed with
 * EPERM, and "permitted CALL" for one that did not. With `strict` it tries one forbidden call last, of which it dies.
 */
#include "daemon/privileges.h"

#include "pyspyd/doctor.h"
#include "pyspyd/dump.h"
#include "pyspyd/handles.h"
#include "pyspyd/heap.h"
#include "pyspyd/store.h"
#include "pyspyd/waits.h"
#include "pyspyd/watch.h"
#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <microhttpd.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <systemd/sd-journal.h>
#include <time.h>
#include <unistd.h>

#define WATCH_S 60
#define LEFT_OPEN 77

static void told(const char *what, int r, const char *why) {
	if (r)
		printf("failed %s: %d %s\n", what, r, why);
	else
		printf("did %s\n", what);
	fflush(stdout);
}

/* What the kernel says of this process. */
static void print_status(void) {
	static const char *const wanted[] = { "Cap", "NoNewPrivs", "Seccomp:" };
	FILE *in = fopen("/proc/self/status", "re");
	char line[256];

	while (in && fgets(line, sizeof(line), in))
		for (size_t i = 0; i < 3; i++)
			if (!strncmp(line, wanted[i], strlen(wanted[i])))
				printf("status %s", line);
	if (in)
		fclose(in);
	printf("dumpable %d\n", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
}

/* The engine */

struct seen {
	bool spiking, deadlock, health;
	uint64_t samples;
	char priority[16];
};

static int on_finding(void *userdata, const struct pyspyd_finding *finding) {
	struct seen *seen = userdata;

	seen->spiking |= !strcmp(finding->kind, "spiking-thread");
	seen->deadlock |= !strcmp(finding->kind, "deadlock");
	return 0;
}

static int on_report(void *userdata, const struct pyspyd_watch_process *processes, size_t n) {
	struct seen *seen = userdata;

	for (size_t i = 0; i < n; i++)
		if (processes[i].accuracy.priority)
			snprintf(seen->priority, sizeof(seen->priority), "%s", processes[i].accuracy.priority);
	return seen->spiking && seen->deadlock && seen->health;
}

static int on_health(void *userdata, const struct pyspyd_watch_health *health) {
	struct seen *seen = userdata;

	seen->samples = health->accuracy.samples;
	seen->health |= health->accuracy.samples > 0;
	return 0;
}

static int on_profile(void *userdata, const struct pyspyd_process *process, const struct pyspyd_packed *packed) {
	(void)userdata;
	(void)process;
	(void)packed;
	return 0;
}

static void watch(pid_t pid, bool all) {
	static const char *const settings[] = { "spiking-thread.for=1s", "memory-leak.window=10s", NULL };
	struct seen seen = { 0 };
	const struct pyspyd_watch_options options = { .pid = all ? 0 : pid,
		.all = all,
		.rate_hz = 50,
		.interval_ns = 500000000,
		.duration_ns = WATCH_S * UINT64_C(1000000000),
		.settings = settings,
		.cpu_budget_percent = 50,
		.memory_budget_bytes = 64 << 20,
		.bucket_ns = 1000000000,
		.on_report = on_report,
		.on_health = on_health,
		.on_finding = on_finding,
		.on_profile = on_profile,
		.userdata = &seen };
	struct err err = { 0 };
	int r = pyspyd_watch(&options, &err);

	told(all ? "watch all" : "watch", r == 1 ? 0 : -EIO, err.text);
	printf("samplers %s\n", seen.priority);
}

static void look(pid_t pid) {
	struct pyspyd_dump_options dump_options = { .locals = true, .async = true };
	struct pyspyd_heap_options heap_options = { .top = 10 };
	struct pyspyd_dump *dump = NULL;
	struct pyspyd_heap *heap = NULL;
	struct err err = { 0 };
	int r = pyspyd_dump(pid, &dump_options, &dump, &err);

	told("dump", r, err.text);
	pyspyd_dump_free(dump);
	r = pyspyd_heap_count(pid, &heap_options, &heap, &err);
	told("heap", r, err.text);
	pyspyd_heap_free(heap);
}

/* The libraries of the service */

static void keep(const char *folder) {
	struct pyspyd_store_options options = { .max_bytes = 16 << 20 };
	struct pyspyd_store *store = NULL;
	struct err err = { 0 };
	char path[256], *note = NULL;
	int r;

	snprintf(path, sizeof(path), "%s/store.db", folder);
	options.path = path;
	r = pyspyd_store_open(&options, &store, &note, &err);
	if (!r)
		r = pyspyd_store_sink_put(store, "test", 0, 0);
	if (!r)
		r = pyspyd_store_prune(store, 1, NULL);
	told("store", r, err.text);
	free(note);
	pyspyd_store_close(store);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
	(void)usec;
	return sd_event_exit(sd_event_source_get_event(source), *(int *)userdata);
}

static void run_loop(void) {
	sd_event *loop = NULL;
	sigset_t signals;
	int code = 0, r = sd_event_new(&loop);

	sigemptyset(&signals);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	r = r < 0 ? r : sd_event_add_signal(loop, NULL, SIGHUP, NULL, NULL);
	r = r < 0 ? r : sd_event_add_time_relative(loop, NULL, CLOCK_MONOTONIC, 1000, 0, on_timer, &code);
	r = r < 0 ? r : sd_event_set_watchdog(loop, 1);
	r = r < 0 ? r : sd_event_loop(loop);
	told("event loop", r, r < 0 ? strerror(-r) : "");
	sd_event_unref(loop);
}

/* Whether anybody listens there is not of interest, nor is how he answers. */
static void send_words(void) {
	static char large[300000];

	memset(large, 'x', sizeof(large) - 1);
	sd_notify(0, "STATUS=testing");
	told("journal", sd_journal_send("MESSAGE=privileges_driver", "PYSPYD_TEST=%s", large, NULL) == -EPERM, "");
}

static void look_up(void) {
	errno = 0;
	told("names", !getpwuid(0) || (!getgrnam("root") && errno), strerror(errno));
}

static enum MHD_Result answer(void *userdata, struct MHD_Connection *connection, const char *url, const char *method,
	const char *version, const char *data, size_t *size, void **state) {
	static char page[100000];
	struct MHD_Response *response = MHD_create_response_from_buffer(sizeof(page), page, MHD_RESPMEM_PERSISTENT);
	enum MHD_Result r = MHD_queue_response(connection, MHD_HTTP_OK, response);

	(void)userdata, (void)url, (void)method, (void)version, (void)data, (void)size, (void)state;
	MHD_destroy_response(response);
	return r;
}

static size_t drop(char *data, size_t size, size_t n, void *userdata) {
	(void)data, (void)userdata;
	return size * n;
}

static void fetch(const char *url, const char *path) {
	CURL *curl = curl_easy_init();
	int r = CURLE_FAILED_INIT;

	if (curl) {
		curl_easy_setopt(curl, CURLOPT_URL, url);
		curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
		curl_easy_setopt(curl, CURLOPT_PROXY, "");
		curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, drop);
		if (path)
			curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, path);
		r = (int)curl_easy_perform(curl);
	}
	told(path ? "fetch from a socket" : "fetch from a host", r, curl_easy_strerror((CURLcode)r));
	curl_easy_cleanup(curl);
}

/* Return: a socket that listens: at a path, or, where it is NULL, at a port of this host. */
static int listen_at(const char *path, unsigned *ret_port) {
	struct sockaddr_un local = { .sun_family = AF_UNIX };
	struct sockaddr_in host = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(host);
	int fd = socket(path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (path)
		snprintf(local.sun_path, sizeof(local.sun_path), "%s", path);
	if (fd < 0 ||
		bind(fd, path ? (struct sockaddr *)&local : (struct sockaddr *)&host,
			path ? sizeof(local) : sizeof(host)) ||
		listen(fd, 5) || (!path && getsockname(fd, (struct sockaddr *)&host, &len)))
		return -1;
	*ret_port = ntohs(host.sin_port);
	return fd;
}

static void serve(const char *folder, bool inet) {
	struct MHD_Daemon *http;
	char path[100], url[100];
	unsigned port = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/socket", folder);
	unlink(path);
	fd = listen_at(inet ? NULL : path, &port);
	http = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL, 0, NULL, NULL, answer, NULL,
		MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_END);
	told("serve", !http, strerror(errno));
	snprintf(url, sizeof(url), "http://localhost:%u/", port);
	fetch(url, inet ? NULL : path);
	if (http)
		MHD_stop_daemon(http);
}

/* What must not be */

static void refused(const char *call, long r) {
	printf("%s %s\n", r == -1 && errno == EPERM ? "refused" : "permitted", call);
	fflush(stdout);
}

static void try_forbidden(pid_t pid, bool inet) {
	char program[] = "/bin/true", *const argv[] = { program, NULL };
	char byte = 0;
	struct iovec here = { &byte, 1 };
	pid_t child = fork();

	refused("fork", child);
	if (!child)
		_exit(0);
	refused("execve", execv(program, argv));
	refused("ptrace", syscall(SYS_ptrace, 0x4206 /* PTRACE_SEIZE */, pid, 0, 0));
	refused("process_vm_writev", process_vm_writev(pid, &here, 1, &here, 1, 0));
	refused("kill", kill(pid, SIGCONT));
	refused("tgkill", syscall(SYS_tgkill, pid, pid, 0));
	refused("mount", syscall(SYS_mount, "none", "/mnt", "tmpfs", 0, 0));
	refused("unshare", unshare(CLONE_FS));
	refused("setuid", syscall(SYS_setuid, 0));
	refused("io_uring_setup", syscall(SYS_io_uring_setup, 1, 0));
	refused("init_module", syscall(SYS_init_module, 0, 0, 0));
	refused("keyctl", syscall(SYS_keyctl, 0, 0, 0, 0, 0));
	refused("prctl(PR_SET_DUMPABLE)", prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
	refused("mmap(PROT_WRITE|PROT_EXEC)",
		(long)(intptr_t)mmap(NULL, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	refused("socket(AF_PACKET)", socket(AF_PACKET, SOCK_RAW, 0));
	if (!inet)
		refused("socket(AF_INET)", socket(AF_INET, SOCK_DGRAM, 0));
}

static void limit(const struct privileges_options *options) {
	struct err err = { 0 };
	struct pyspyd_privilege list[PYSPYD_PRIVILEGES_MAX];
	size_t n;
	int r;

	dup2(STDOUT_FILENO, LEFT_OPEN);
	r = privileges_drop(-1, &err);
	told("drop", r, err.text);
	printf("left open %d\n", fcntl(LEFT_OPEN, F_GETFD) >= 0);
	n = pyspyd_service_privileges(list, PYSPYD_PRIVILEGES_MAX);
	for (size_t i = 0; i < n; i++)
		printf("privilege %s %d\n", list[i].name, list[i].held);
	r = privileges_seal(options, &err);
	told("seal", r, err.text);
	print_status();
}

static void work(pid_t pid, const char *folder, bool inet) {
	watch(pid, false);
	watch(pid, true);
	look(pid);
	keep(folder);
	run_loop();
	send_words();
	look_up();
	serve(folder, inet);
}

int main(int argc, char **argv) {
	struct privileges_options options = { 0 };
	bool idle = false;
	pid_t pid;

	if (argc < 3)
		return 2;
	pid = atoi(argv[1]);
	for (int i = 3; i < argc; i++) {
		options.strict |= !strcmp(argv[i], "strict");
		options.inet |= !strcmp(argv[i], "inet");
		idle |= !strcmp(argv[i], "idle");
	}
	curl_global_init(CURL_GLOBAL_ALL);
	limit(&options);
	if (!idle)
		work(pid, argv[2], options.inet);
	if (options.strict) {
		puts("done");
		fflush(stdout);
		execl("/bin/true", "true", NULL);
	}
	try_forbidden(pid, options.inet);
	puts("done");
	fflush(stdout);
	_exit(0);
}
