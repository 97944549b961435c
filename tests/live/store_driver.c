/* SPDX-License-Identifier: MIT */
/* Works on a store until it is killed, and tells what was acknowledged: see store_kill.py.
 *
 *	store_driver work PATH RUN DIE_AT MAX_BYTES    "event SEQ ID" after each put that returned 0
 *	store_driver list PATH                         "event SEQ ID" for each that is there, "last SEQ", "counters N",
 *	                                               "note TEXT" where there is one
 *	store_driver speed PATH                        how much is put in a second
 *
 * DIE_AT: kills itself in the middle of so manieth change of a file, a write half done; 0: works on. */
#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "pyspyd/store.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sqlite3.h>
#include <string.h>

#define ROUNDS 60 /* of one that kills itself */
#define PROCESSES 3
#define PROFILE_BYTES 30000
#define KEPT_NS (50 * NS_PER_MS)

static long changes_left;

static void change(void) {
	if (changes_left && !--changes_left)
		kill(getpid(), SIGKILL);
}

static ssize_t dying_pwrite(int fd, const void *bytes, size_t n, off_t at) {
	ssize_t half = changes_left == 1 ? pwrite(fd, bytes, n / 2, at) : 0;

	if (half < 0)
		return half;
	change();
	return pwrite(fd, bytes, n, at);
}

static int dying_ftruncate(int fd, off_t size) {
	change();
	return ftruncate(fd, size);
}

static int dying_unlink(const char *path) {
	change();
	return unlink(path);
}

/* The store's own; it comes by here since the program's functions go before the library's. */
int rename(const char *old, const char *new) {
	change();
	return renameat(AT_FDCWD, old, AT_FDCWD, new);
}

static void make_mortal(long die_at) {
	sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);

	changes_left = die_at;
	vfs->xSetSystemCall(vfs, "pwrite", (sqlite3_syscall_ptr)dying_pwrite);
	vfs->xSetSystemCall(vfs, "pwrite64", (sqlite3_syscall_ptr)dying_pwrite);
	vfs->xSetSystemCall(vfs, "ftruncate", (sqlite3_syscall_ptr)dying_ftruncate);
	vfs->xSetSystemCall(vfs, "unlink", (sqlite3_syscall_ptr)dying_unlink);
}

static int failed(const char *what, int r) {
	fprintf(stderr, "%s: %s\n", what, strerror(-r));
	return 1;
}

static struct pyspyd_store *open_store(const char *path, uint64_t max_bytes) {
	const struct pyspyd_store_options options = {
		.path = path,
		.max_bytes = max_bytes,
		.counter_age_ns = KEPT_NS,
		.profile_age_ns = KEPT_NS,
	};
	struct pyspyd_store *store = NULL;
	_free_ char *note = NULL;
	struct err err = { 0 };

	if (pyspyd_store_open(&options, &store, &note, &err))
		fprintf(stderr, "open: %s\n", err.text);
	if (note)
		printf("note %s\n", note);
	return store;
}

static int put_event(struct pyspyd_store *store, const char *run, unsigned round) {
	char id[64], json[6000];
	struct pyspyd_event event = { .id = id, .kind = "deadlock", .fingerprint = run, .json = json };
	uint64_t seq;
	int r;

	snprintf(id, sizeof(id), "%s-%u", run, round);
	memset(json, 'j', sizeof(json));
	json[round * 997 % sizeof(json)] = '\0';
	event.time_real_ns = clock_real_ns();
	r = pyspyd_store_put_event(store, &event, &seq);
	if (!r)
		printf("event %" PRIu64 " %s\n", seq, id);
	return r;
}

static int put_rest(struct pyspyd_store *store, unsigned round) {
	static char data[PROFILE_BYTES];
	struct pyspyd_store_counters counters[PROCESSES];
	uint64_t now = clock_real_ns();
	int r = 0;

	for (int i = 0; !r && i < PROCESSES; i++) {
		struct pyspyd_store_process process = { .pid = i + 1, .seen_real_ns = now, .name = "p" };

		counters[i] = (struct pyspyd_store_counters){ .time_real_ns = now };
		r = pyspyd_store_put_process(store, &process, &counters[i].process);
	}
	if (!r)
		r = pyspyd_store_put_counters(store, counters, PROCESSES);
	if (!r && round % 3 == 0)
		r = pyspyd_store_put_profiles(store,
			&(struct pyspyd_store_profile){ counters[0].process, now, now + 1, data, sizeof(data) }, 1);
	if (!r && round % 5 == 0)
		r = pyspyd_store_sink_put(store, "journal", pyspyd_store_last_seq(store), 0);
	if (!r && round % 7 == 0)
		r = pyspyd_store_prune(store, clock_real_ns(), NULL);
	return r;
}

static int work(const char *path, const char *run, long die_at, uint64_t max_bytes) {
	struct pyspyd_store *store;
	int r = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	make_mortal(die_at);
	store = open_store(path, max_bytes);
	if (!store)
		return 1;
	for (unsigned round = 1; !r && (!die_at || round <= ROUNDS); round++) {
		r = put_event(store, run, round);
		if (!r)
			r = put_rest(store, round);
		/* At its limit the file holds events, which profiles and counters do not push out. */
		if (r == -ENOSPC && max_bytes)
			r = 0;
	}
	pyspyd_store_close(store);
	return r ? failed("put", r) : 0;
}

static int print_event(void *userdata, const struct pyspyd_event *event) {
	(void)userdata;
	printf("event %" PRIu64 " %s\n", event->seq, event->id);
	return 0;
}

static int list(const char *path) {
	const struct pyspyd_event_filter all = { .uid = (uid_t)-1 };
	struct pyspyd_store *store = open_store(path, 0);
	struct pyspyd_store_stats stats;
	int r;

	if (!store)
		return 1;
	r = pyspyd_store_events(store, &all, print_event, NULL);
	pyspyd_store_stats(store, &stats);
	printf("last %" PRIu64 "\nevents %" PRIu64 "\ncounters %" PRIu64 "\nprofiles %" PRIu64 "\n",
		pyspyd_store_last_seq(store), stats.events, stats.counters, stats.profiles);
	pyspyd_store_close(store);
	return r ? failed("list", r) : 0;
}

/* Speed: of what a second's work takes, not a test. */

static double seconds_since(uint64_t start_ns) {
	return (double)(clock_mono_ns() - start_ns) / (double)NS_PER_SEC;
}

static int speed_counters(struct pyspyd_store *store, int64_t process) {
	static struct pyspyd_store_counters counters[200];
	uint64_t start = clock_mono_ns(), cpu = clock_cpu_ns();
	int r = 0;

	for (uint64_t second = 0; !r && second < 1000; second++) {
		for (size_t i = 0; i < ARRAY_SIZE(counters); i++)
			counters[i] = (struct pyspyd_store_counters){ process, second * 1000 + i, 1, 1 << 30, 1 << 29,
				100, 10 };
		r = pyspyd_store_put_counters(store, counters, ARRAY_SIZE(counters));
	}
	printf("counters: %.0f rows/s; 200 rows take %.0f us of CPU\n", 200000 / seconds_since(start),
		(double)(clock_cpu_ns() - cpu) / 1e6);
	return r;
}

static int speed_profiles(struct pyspyd_store *store, int64_t process) {
	static char data[20000];
	struct pyspyd_store_profile profiles[200];
	uint64_t start = clock_mono_ns();
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(profiles); i++)
		profiles[i] = (struct pyspyd_store_profile){ process, i, i + 1, data, sizeof(data) };
	for (int i = 0; !r && i < 25; i++)
		r = pyspyd_store_put_profiles(store, profiles, ARRAY_SIZE(profiles));
	printf("profiles: %.0f MB/s in batches of 200 of 20 kB\n", 100 / seconds_since(start));
	return r;
}

static int speed_events(struct pyspyd_store *store) {
	char json[4096];
	const struct pyspyd_event event = { .id = "a", .kind = "hang", .fingerprint = "f", .json = json };
	uint64_t start = clock_mono_ns();
	int r = 0;

	memset(json, 'j', sizeof(json));
	json[sizeof(json) - 1] = '\0';
	for (int i = 0; !r && i < 1000; i++)
		r = pyspyd_store_put_event(store, &event, NULL);
	printf("events: %.0f/s of 4 KiB, each synced\n", 1000 / seconds_since(start));
	return r;
}

static int speed(const char *path) {
	const struct pyspyd_store_process process = { .pid = 1, .name = "p" };
	struct pyspyd_store *store = open_store(path, 0);
	int64_t number;
	int r;

	if (!store)
		return 1;
	r = pyspyd_store_put_process(store, &process, &number);
	if (!r)
		r = speed_counters(store, number);
	if (!r)
		r = speed_profiles(store, number);
	if (!r)
		r = speed_events(store);
	pyspyd_store_close(store);
	return r ? failed("put", r) : 0;
}

int main(int argc, char **argv) {
	if (argc == 6 && !strcmp(argv[1], "work"))
		return work(argv[2], argv[3], strtol(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
	if (argc == 3 && !strcmp(argv[1], "list"))
		return list(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "speed"))
		return speed(argv[2]);
	fprintf(stderr, "usage: store_driver work PATH RUN DIE_AT MAX_BYTES | list PATH | speed PATH\n");
	return 2;
}
