/* SPDX-License-Identifier: MIT */
/* The store: what comes back, what is never given twice, and what it does about damage, full disks and limits. Kills
 * are tests/live/store_kill.sh's. */
#include "pyspyd/store.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "pyspyd/finding.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <signal.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define DAY (86400 * NS_PER_SEC)
#define NOW (20000 * DAY)
#define KIB 1024
#define MIB (1024 * 1024)

static char folder[32], path[64];

static void make_folder(void) {
	strcpy(folder, "/tmp/test-store-XXXXXX");
	cr_assert(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/a.db", folder);
}

static void remove_folder(void) {
	char pattern[64];
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%s/*", folder);
	if (!glob(pattern, 0, NULL, &found))
		for (size_t i = 0; i < found.gl_pathc; i++)
			unlink(found.gl_pathv[i]);
	globfree(&found);
	rmdir(folder);
}

TestSuite(store, .init = make_folder, .fini = remove_folder);

/* Without their logs. */
static size_t damaged_files(void) {
	static const char *const endings[] = { "Z", "Z-[0-9]" };
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		char pattern[96];
		glob_t found = { 0 };

		snprintf(pattern, sizeof(pattern), "%s.damaged-*%s", path, endings[i]);
		glob(pattern, 0, NULL, &found);
		n += found.gl_pathc;
		globfree(&found);
	}
	return n;
}

static struct pyspyd_store *open_with(const struct pyspyd_store_options *options, char **ret_note) {
	struct pyspyd_store_options o = options ? *options : (struct pyspyd_store_options){ 0 };
	struct pyspyd_store *store = NULL;
	struct err err = { 0 };
	char *note = NULL;
	int r;

	o.path = path;
	r = pyspyd_store_open(&o, &store, &note, &err);
	cr_assert_eq(r, 0, "%d %s", r, err.text);
	if (ret_note)
		*ret_note = note;
	else
		cr_assert_null(note, "%s", note);
	return store;
}

static struct pyspyd_store *open_store(void) {
	return open_with(NULL, NULL);
}

static struct pyspyd_event event_of(const char *id, int state, uint64_t time) {
	return (struct pyspyd_event){
		.time_real_ns = time,
		.id = id,
		.fingerprint = "f",
		.kind = "deadlock",
		.severity = PYSPYD_WARNING,
		.state = state,
		.pid = 7,
		.uid = 1000,
		.json = "{}",
	};
}

static uint64_t put(struct pyspyd_store *store, const char *id, int state, uint64_t time) {
	struct pyspyd_event event = event_of(id, state, time);
	uint64_t seq = 0;

	cr_assert_eq(pyspyd_store_put_event(store, &event, &seq), 0);
	return seq;
}

static int64_t put_process(struct pyspyd_store *store, pid_t pid, uint64_t seen) {
	struct pyspyd_store_process process = { .pid = pid, .start_real_ns = 5, .seen_real_ns = seen, .name = "x" };
	int64_t number = 0;

	cr_assert_eq(pyspyd_store_put_process(store, &process, &number), 0);
	return number;
}

static int put_counter(struct pyspyd_store *store, int64_t process, uint64_t time) {
	struct pyspyd_store_counters counters = { .process = process, .time_real_ns = time, .rss_bytes = time };

	return pyspyd_store_put_counters(store, &counters, 1);
}

static int put_profile(struct pyspyd_store *store, int64_t process, uint64_t time, size_t len) {
	_free_ void *data = calloc(1, len);
	struct pyspyd_store_profile profile = { process, time, time + 60 * NS_PER_SEC, data, len };

	return pyspyd_store_put_profiles(store, &profile, 1);
}

/* The numbers or ids that come, as a text. */
struct seen {
	char text[4096];
	size_t n, stop;
	uint64_t first, last;
};

static int see_event(void *userdata, const struct pyspyd_event *event) {
	struct seen *seen = userdata;

	if (seen->n++ < 100)
		snprintf(seen->text + strlen(seen->text), 32, "%s%" PRIu64, seen->n > 1 ? " " : "", event->seq);
	seen->first = seen->n == 1 ? event->seq : seen->first;
	seen->last = event->seq;
	return seen->n == seen->stop ? 42 : 0;
}

static const char *events(struct pyspyd_store *store, struct pyspyd_event_filter filter) {
	static struct seen seen;

	seen = (struct seen){ 0 };
	cr_assert_eq(pyspyd_store_events(store, &filter, see_event, &seen), 0);
	return seen.text;
}

static const struct pyspyd_event_filter all_events = { .uid = (uid_t)-1 };

static size_t count_events(struct pyspyd_store *store) {
	struct seen seen = { 0 };

	cr_assert_eq(pyspyd_store_events(store, &all_events, see_event, &seen), 0);
	return seen.n;
}

static int see_counters(void *userdata, const struct pyspyd_store_counters *counters) {
	struct seen *seen = userdata;

	seen->n++;
	seen->last = counters->time_real_ns;
	return 0;
}

static int see_profile(void *userdata, const struct pyspyd_store_profile *profile) {
	struct seen *seen = userdata;

	seen->first = seen->n++ ? seen->first : profile->start_real_ns;
	seen->last = profile->start_real_ns;
	return 0;
}

static size_t count_profiles(struct pyspyd_store *store, int64_t process, uint64_t since, uint64_t until) {
	struct seen seen = { 0 };

	cr_assert_eq(pyspyd_store_profiles(store, process, since, until, see_profile, &seen), 0);
	return seen.n;
}

static struct pyspyd_store_stats stats_of(struct pyspyd_store *store) {
	struct pyspyd_store_stats stats;

	cr_assert_eq(pyspyd_store_stats(store, &stats), 0);
	return stats;
}

/* Whether SQLite itself finds the closed file sound. */
static void check_sound(void) {
	sqlite3_stmt *statement;
	sqlite3 *db;

	cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
	cr_assert_eq(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &statement, NULL), SQLITE_OK);
	cr_assert_eq(sqlite3_step(statement), SQLITE_ROW);
	cr_assert_str_eq((const char *)sqlite3_column_text(statement, 0), "ok");
	sqlite3_finalize(statement);
	sqlite3_close(db);
}

static void change_file(off_t at, const void *bytes, size_t n) {
	_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

	cr_assert_eq(pwrite(fd, bytes, n, at), (ssize_t)n);
}

static void run_sql(const char *sql) {
	sqlite3 *db;

	cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
	cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK, "%s", sqlite3_errmsg(db));
	sqlite3_close(db);
}

/* SQLite's own calls come by here. */

static unsigned syncs;

int fdatasync(int fd) {
	syncs++;
	return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd) {
	syncs++;
	return (int)syscall(SYS_fsync, fd);
}

Test(store, an_event_is_on_the_disk_when_it_is_acknowledged) {
	struct pyspyd_store *store = open_store();
	int64_t process;

	put(store, "a", PYSPYD_OPEN, NOW);
	syncs = 0;
	put(store, "a", PYSPYD_OPEN, NOW);
	cr_assert_eq(syncs, 1);
	process = put_process(store, 1, NOW);
	cr_assert_eq(put_counter(store, process, NOW), 0);
	cr_assert_eq(put_profile(store, process, NOW, 10), 0);
	cr_assert_eq(pyspyd_store_sink_put(store, "journal", 1, 0), 0);
	cr_assert_eq(syncs, 1, "what is put every second waits for no disk");
	put(store, "a", PYSPYD_OPEN, NOW);
	cr_assert_eq(syncs, 2);
	pyspyd_store_close(store);
}

/* What comes back */

static int same_event(void *userdata, const struct pyspyd_event *e) {
	const struct pyspyd_event *put_in = userdata;

	cr_assert_eq(e->seq, 1);
	cr_assert_eq(e->time_real_ns, put_in->time_real_ns);
	cr_assert_str_eq(e->id, put_in->id);
	cr_assert_str_eq(e->fingerprint, put_in->fingerprint);
	cr_assert_str_eq(e->kind, put_in->kind);
	cr_assert_eq(e->severity, put_in->severity);
	cr_assert_eq(e->state, put_in->state);
	cr_assert_eq(e->pid, put_in->pid);
	cr_assert_eq(e->start_real_ns, put_in->start_real_ns);
	cr_assert_eq(e->uid, put_in->uid);
	cr_assert_str_eq(e->json, put_in->json);
	return 1;
}

Test(store, foreign_text_comes_back_as_it_was) {
	const struct pyspyd_event event = {
		.time_real_ns = NOW + 123456789,
		.id = "'); DROP TABLE events; --",
		.fingerprint = "\xff\xfe broken \xc3",
		.kind = "",
		.severity = PYSPYD_CRITICAL,
		.state = PYSPYD_UPDATE,
		.pid = 4194304,
		.start_real_ns = NOW - 1,
		.uid = 4294967294U,
		.json = "{\"a\": \"\x1b[31m \xed\xa0\x80 ?1 :x $y\"}\n",
	};
	struct pyspyd_store *store = open_store();

	cr_assert_eq(pyspyd_store_put_event(store, &event, NULL), 0);
	cr_assert_eq(pyspyd_store_events(store, &all_events, same_event, (void *)&event), 1);
	pyspyd_store_close(store);
	store = open_store();
	cr_assert_eq(pyspyd_store_events(store, &all_events, same_event, (void *)&event), 1);
	pyspyd_store_close(store);
	check_sound();
}

static int same_process(void *userdata, int64_t number, const struct pyspyd_store_process *p) {
	const struct pyspyd_store_process *put_in = userdata;

	cr_assert_eq(number, 1);
	cr_assert_eq(p->pid, put_in->pid);
	cr_assert_eq(p->start_real_ns, put_in->start_real_ns);
	cr_assert_eq(p->uid, put_in->uid);
	cr_assert_eq(p->seen_real_ns, put_in->seen_real_ns);
	cr_assert_str_eq(p->name, put_in->name);
	cr_assert_str_eq(p->cmdline, put_in->cmdline);
	cr_assert_str_eq(p->unit, put_in->unit ? put_in->unit : "");
	cr_assert_str_eq(p->container, put_in->container);
	return 1;
}

Test(store, a_process_has_one_number) {
	struct pyspyd_store_process process = {
		.pid = 7,
		.start_real_ns = 5,
		.uid = 1000,
		.name = "web",
		.cmdline = "python3 \xff.py",
		.container = "c0ffee",
		.seen_real_ns = NOW,
	};
	struct pyspyd_store *store = open_store();
	int64_t number;

	cr_assert_eq(pyspyd_store_put_process(store, &process, &number), 0);
	cr_assert_eq(number, 1);
	process.seen_real_ns++;
	process.name = "worker";
	cr_assert_eq(pyspyd_store_put_process(store, &process, &number), 0);
	cr_assert_eq(number, 1);
	cr_assert_eq(pyspyd_store_processes(store, 7, 1000, same_process, &process), 1);
	cr_assert_eq(pyspyd_store_processes(store, 0, (uid_t)-1, same_process, &process), 1);
	cr_assert_eq(pyspyd_store_processes(store, 8, (uid_t)-1, same_process, &process), 0);
	cr_assert_eq(pyspyd_store_processes(store, 0, 0, same_process, &process), 0);
	cr_assert_eq(put_process(store, 8, NOW), 2);
	pyspyd_store_close(store);
}

static int same_counters(void *userdata, const struct pyspyd_store_counters *c) {
	const struct pyspyd_store_counters *put_in = userdata;

	cr_assert_eq(c->process, put_in->process);
	cr_assert_eq(c->time_real_ns, put_in->time_real_ns);
	cr_assert_float_eq(c->cpu_percent, put_in->cpu_percent, 0);
	cr_assert_eq(c->rss_bytes, put_in->rss_bytes);
	cr_assert_eq(c->private_bytes, put_in->private_bytes);
	cr_assert_eq(c->fds, put_in->fds);
	cr_assert_eq(c->threads, put_in->threads);
	return 1;
}

Test(store, counters_and_profiles_come_back) {
	struct pyspyd_store *store = open_store();
	int64_t one = put_process(store, 1, NOW), two = put_process(store, 2, NOW);
	const struct pyspyd_store_counters counters[] = {
		{ one, NOW, -1, UINT64_MAX, UINT64_MAX, UINT64_MAX, 3 },
		{ two, NOW, 12.5, 1, 2, 3, 4 },
		{ 99, NOW, 1, 1, 1, 1, 1 },
	};
	const struct pyspyd_store_profile profile = { two, NOW, NOW + 60, "a\0b", 3 };
	struct seen seen = { 0 };

	cr_assert_eq(pyspyd_store_put_counters(store, counters, 2), 0);
	cr_assert_eq(pyspyd_store_put_counters(store, counters, 2), 0, "the same again");
	cr_assert_eq(pyspyd_store_put_counters(store, counters, 3), -ENOENT);
	cr_assert_eq(stats_of(store).counters, 2);
	cr_assert_eq(stats_of(store).lost, 1);
	cr_assert_eq(pyspyd_store_counters(store, one, 0, 0, same_counters, (void *)&counters[0]), 1);
	cr_assert_eq(pyspyd_store_counters(store, two, NOW, NOW + 1, same_counters, (void *)&counters[1]), 1);
	cr_assert_eq(pyspyd_store_counters(store, two, NOW + 1, 0, see_counters, &seen), 0);
	cr_assert_eq(pyspyd_store_counters(store, two, 0, NOW, see_counters, &seen), 0);
	cr_assert_eq(seen.n, 0);
	cr_assert_eq(pyspyd_store_put_profiles(store, &profile, 1), 0);
	cr_assert_eq(count_profiles(store, two, 0, 0), 1);
	cr_assert_eq(count_profiles(store, two, NOW + 59, NOW + 100), 1, "overlaps");
	cr_assert_eq(count_profiles(store, two, NOW + 60, 0), 0);
	cr_assert_eq(count_profiles(store, two, 0, NOW), 0);
	cr_assert_eq(count_profiles(store, one, 0, 0), 0);
	pyspyd_store_close(store);
}

Test(store, filters_choose_events) {
	struct pyspyd_store *store = open_store();
	struct pyspyd_event other = event_of("c", PYSPYD_OPEN, NOW + 5);

	put(store, "a", PYSPYD_OPEN, NOW + 1);
	put(store, "b", PYSPYD_OPEN, NOW + 2);
	put(store, "a", PYSPYD_UPDATE, NOW + 3);
	put(store, "b", PYSPYD_RESOLVED, NOW + 4);
	other.kind = "hang";
	other.pid = 8;
	other.uid = 0;
	cr_assert_eq(pyspyd_store_put_event(store, &other, NULL), 0);
	cr_expect_str_eq(events(store, all_events), "1 2 3 4 5");
	cr_expect_str_eq(events(store, (struct pyspyd_event_filter){ .uid = 0 }), "5");
	cr_expect_str_eq(events(store, (struct pyspyd_event_filter){ .uid = 1000 }), "1 2 3 4");
#define FILTER(...) events(store, (struct pyspyd_event_filter){ .uid = (uid_t)-1, __VA_ARGS__ })
	cr_expect_str_eq(FILTER(.after_seq = 3), "4 5");
	cr_expect_str_eq(FILTER(.after_seq = UINT64_MAX), "");
	cr_expect_str_eq(FILTER(.since_real_ns = NOW + 2, .until_real_ns = NOW + 4), "2 3");
	cr_expect_str_eq(FILTER(.since_real_ns = NOW + 4, .until_real_ns = UINT64_MAX), "4 5");
	cr_expect_str_eq(FILTER(.kind = "hang"), "5");
	cr_expect_str_eq(FILTER(.id = "a"), "1 3");
	cr_expect_str_eq(FILTER(.id = "a", .latest = true), "3");
	cr_expect_str_eq(FILTER(.pid = 8), "5");
	cr_expect_str_eq(FILTER(.latest = true), "3 4 5");
	cr_expect_str_eq(FILTER(.open = true), "3 5");
	cr_expect_str_eq(FILTER(.most = 2), "1 2");
	cr_expect_str_eq(FILTER(.most = 1, .after_seq = 2, .open = true), "3");
	pyspyd_store_close(store);
}

Test(store, a_search_by_time_takes_little_memory) {
	struct pyspyd_store *store = open_store();
	_free_ char *json = calloc(1, 8 * KIB);
	struct pyspyd_event event = event_of("a", PYSPYD_OPEN, NOW);
	struct pyspyd_event_filter filter = { .since_real_ns = NOW, .uid = (uid_t)-1 };
	struct seen seen = { 0 };

	memset(json, 'j', 8 * KIB - 1);
	event.json = json;
	for (int i = 0; i < 2000; i++)
		cr_assert_eq(pyspyd_store_put_event(store, &event, NULL), 0);
	sqlite3_memory_highwater(1);
	cr_assert_eq(pyspyd_store_events(store, &filter, see_event, &seen), 0);
	cr_assert_eq(seen.n, 2000);
	cr_assert_lt(sqlite3_memory_highwater(0), 6 * MIB);
	pyspyd_store_close(store);
}

static int see_and_put(void *userdata, const struct pyspyd_event *event) {
	struct pyspyd_store *store = userdata;
	uint64_t seq, dropped;

	cr_assert_eq(pyspyd_store_sink_put(store, "journal", event->seq, 0), 0);
	cr_assert_eq(pyspyd_store_sink_get(store, "journal", &seq, &dropped), 0);
	cr_assert_eq(seq, event->seq);
	return event->seq == 2 ? 5 : 0;
}

Test(store, sinks_have_places) {
	struct pyspyd_store *store = open_store();
	uint64_t seq = 1, dropped = 1;

	cr_assert_eq(pyspyd_store_first_seq(store), 0);
	cr_assert_eq(pyspyd_store_last_seq(store), 0);
	cr_assert_eq(pyspyd_store_sink_get(store, "file", &seq, &dropped), 0);
	cr_assert(seq == 0 && dropped == 0);
	for (int i = 0; i < 3; i++)
		put(store, "a", PYSPYD_OPEN, NOW);
	cr_assert_eq(pyspyd_store_events(store, &all_events, see_and_put, store), 5, "puts while it reads");
	cr_assert_eq(pyspyd_store_sink_put(store, "file", 3, 17), 0);
	pyspyd_store_close(store);
	store = open_store();
	cr_assert_eq(pyspyd_store_sink_get(store, "journal", &seq, &dropped), 0);
	cr_assert(seq == 2 && dropped == 0);
	cr_assert_eq(pyspyd_store_sink_get(store, "file", &seq, &dropped), 0);
	cr_assert(seq == 3 && dropped == 17);
	cr_assert_eq(pyspyd_store_first_seq(store), 1);
	cr_assert_eq(pyspyd_store_last_seq(store), 3);
	pyspyd_store_close(store);
}

/* What goes */

Test(store, numbers_are_not_given_again) {
	const struct pyspyd_store_options options = { .finding_age_ns = DAY, .profile_age_ns = DAY };
	struct pyspyd_store *store = open_with(&options, NULL);

	put(store, "a", PYSPYD_RESOLVED, NOW);
	put(store, "b", PYSPYD_RESOLVED, NOW);
	cr_assert_eq(put_process(store, 1, NOW), 1);
	cr_assert_eq(pyspyd_store_prune(store, NOW + 2 * DAY, NULL), 0);
	cr_assert_eq(count_events(store), 0);
	cr_assert_eq(stats_of(store).events, 0);
	cr_assert_eq(pyspyd_store_first_seq(store), 0);
	cr_assert_eq(pyspyd_store_last_seq(store), 2);
	pyspyd_store_close(store);
	store = open_with(&options, NULL);
	cr_assert_eq(pyspyd_store_last_seq(store), 2);
	cr_assert_eq(put(store, "c", PYSPYD_OPEN, NOW), 3);
	cr_assert_eq(put_process(store, 1, NOW), 2);
	pyspyd_store_close(store);
}

Test(store, what_is_too_old_goes) {
	static const char *const sinks[] = { "journal", "file", NULL };
	const struct pyspyd_store_options options = {
		.finding_age_ns = 3 * DAY,
		.counter_age_ns = 2 * DAY,
		.profile_age_ns = DAY,
	};
	struct pyspyd_store *store = open_with(&options, NULL);
	int64_t process = put_process(store, 1, NOW);

	for (uint64_t day = 0; day < 6; day++) {
		put(store, "a", day < 5 ? PYSPYD_UPDATE : PYSPYD_RESOLVED, NOW + day * DAY);
		put(store, day ? "b" : "open", PYSPYD_OPEN, NOW + day * DAY);
		cr_assert_eq(put_counter(store, process, NOW + day * DAY), 0);
		cr_assert_eq(put_profile(store, process, NOW + day * DAY, 10), 0);
	}
	cr_assert_eq(pyspyd_store_sink_put(store, "journal", 12, 0), 0);
	cr_assert_eq(pyspyd_store_prune(store, NOW + 5 * DAY, sinks), 0);
	cr_expect_str_eq(events(store, all_events), "1 2 3 4 5 6 7 8 9 10 11 12", "the file's sink has none yet");
	cr_assert_eq(pyspyd_store_sink_put(store, "file", 3, 0), 0);
	cr_assert_eq(pyspyd_store_prune(store, NOW + 5 * DAY, sinks), 0);
	cr_expect_str_eq(events(store, all_events), "2 4 5 6 7 8 9 10 11 12", "2 is the last of what is open");
	cr_assert_eq(pyspyd_store_prune(store, NOW + 5 * DAY, NULL), 0);
	cr_expect_str_eq(events(store, all_events), "2 5 6 7 8 9 10 11 12");
	cr_expect_eq(stats_of(store).events, 9);
	cr_expect_eq(stats_of(store).counters, 3);
	cr_expect_eq(stats_of(store).profiles, 2);
	cr_expect_eq(count_profiles(store, process, 0, 0), 2);
	cr_expect_eq(put_counter(store, process, NOW + 5 * DAY + 1), 0, "a process that is in use is kept");
	cr_assert_eq(pyspyd_store_prune(store, NOW + 30 * DAY, NULL), 0);
	cr_expect_eq(put_counter(store, process, NOW + 30 * DAY), -ENOENT);
	pyspyd_store_close(store);
	check_sound();
}

Test(store, without_ages_nothing_goes) {
	struct pyspyd_store *store = open_store();
	int64_t process = put_process(store, 1, NOW);

	put(store, "a", PYSPYD_RESOLVED, 1);
	cr_assert_eq(put_counter(store, process, 1), 0);
	cr_assert_eq(put_profile(store, process, 1, 10), 0);
	cr_assert_eq(pyspyd_store_prune(store, NOW, NULL), 0);
	cr_assert_eq(stats_of(store).events + stats_of(store).counters + stats_of(store).profiles, 3);
	pyspyd_store_close(store);
}

Test(store, the_file_keeps_its_limit) {
	const struct pyspyd_store_options options = { .max_bytes = 2 * MIB };
	struct pyspyd_store *store = open_with(&options, NULL);
	int64_t process = put_process(store, 1, NOW);
	struct seen seen = { 0 };

	for (uint64_t i = 0; i < 100; i++) {
		cr_assert_eq(put_profile(store, process, NOW + i * 60 * NS_PER_SEC, 100 * KIB), 0);
		cr_assert_leq(stats_of(store).bytes, 2 * MIB + 128 * KIB);
	}
	cr_assert_eq(pyspyd_store_profiles(store, process, 0, 0, see_profile, &seen), 0);
	cr_assert_geq(seen.n, 5);
	cr_assert_leq(seen.n, 20);
	cr_assert_eq(seen.last, NOW + 99 * 60 * NS_PER_SEC);
	cr_assert_eq(seen.first, seen.last - (seen.n - 1) * 60 * NS_PER_SEC, "the oldest went");
	cr_assert_eq(stats_of(store).profiles, seen.n);
	cr_assert_eq(put_profile(store, process, NOW, 4 * MIB), -ENOSPC);
	cr_assert_eq(stats_of(store).lost, 1);
	cr_assert_eq(stats_of(store).profiles, seen.n, "nothing went for what cannot be put");
	pyspyd_store_close(store);
	check_sound();
}

Test(store, events_push_out_profiles_and_never_the_other_way) {
	const struct pyspyd_store_options options = { .max_bytes = 2 * MIB };
	struct pyspyd_store *store = open_with(&options, NULL);
	int64_t process = put_process(store, 1, NOW);
	_free_ char *json = calloc(1, 4 * KIB);
	struct pyspyd_event event = event_of("a", PYSPYD_OPEN, NOW);

	memset(json, 'j', 4 * KIB - 1);
	event.json = json;
	cr_assert_eq(put_profile(store, process, NOW, 500 * KIB), 0);
	cr_assert_eq(put_profile(store, process, NOW, 500 * KIB), 0);
	for (int i = 0; i < 180; i++)
		cr_assert_eq(pyspyd_store_put_event(store, &event, NULL), 0);
	cr_assert_eq(count_events(store), 180);
	cr_assert_lt(stats_of(store).profiles, 2);
	cr_assert_eq(put_profile(store, process, NOW, 1500 * KIB), -ENOSPC);
	cr_assert_eq(count_events(store), 180);
	for (int i = 0; i < 800; i++)
		cr_assert_eq(pyspyd_store_put_event(store, &event, NULL), 0);
	cr_assert_lt(count_events(store), 600);
	cr_assert_eq(pyspyd_store_last_seq(store), 980);
	cr_assert_eq(pyspyd_store_first_seq(store), 980 - count_events(store) + 1);
	cr_assert_leq(stats_of(store).bytes, 2 * MIB + 128 * KIB);
	pyspyd_store_close(store);
	check_sound();
}

Test(store, pruning_keeps_below_the_limit) {
	const struct pyspyd_store_options options = { .max_bytes = 2 * MIB };
	struct pyspyd_store *store = open_with(&options, NULL);
	int64_t process = put_process(store, 1, NOW);
	uint64_t profiles;

	for (uint64_t i = 0; i < 200; i++)
		cr_assert_eq(put_profile(store, process, NOW + i, 10 * KIB), 0);
	profiles = stats_of(store).profiles;
	cr_assert_eq(pyspyd_store_prune(store, NOW, NULL), 0);
	cr_assert_lt(stats_of(store).profiles, profiles);
	profiles = stats_of(store).profiles;
	cr_assert_gt(profiles, 100);
	cr_assert_eq(pyspyd_store_prune(store, NOW, NULL), 0);
	cr_assert_eq(stats_of(store).profiles, profiles);
	pyspyd_store_close(store);
}

Test(store, what_is_free_is_given_back) {
	const struct pyspyd_store_options options = { .profile_age_ns = DAY };
	struct pyspyd_store *store = open_with(&options, NULL);
	int64_t process = put_process(store, 1, NOW);
	uint64_t bytes;

	for (int i = 0; i < 20; i++)
		cr_assert_eq(put_profile(store, process, NOW, MIB), 0);
	cr_assert_geq(stats_of(store).bytes, 20 * MIB);
	cr_assert_leq(stats_of(store).log_bytes, 4 * MIB, "the log stays small");
	for (int i = 0; i < 10; i++)
		cr_assert_eq(pyspyd_store_prune(store, NOW + 2 * DAY, NULL), 0);
	cr_assert_eq(stats_of(store).profiles, 0);
	bytes = stats_of(store).bytes;
	cr_assert_leq(bytes, 8 * MIB, "%" PRIu64, bytes);
	pyspyd_store_close(store);
	check_sound();
}

Test(store, a_lower_limit_is_reached_in_time) {
	const struct pyspyd_store_options options = { .max_bytes = 2 * MIB };
	struct pyspyd_store *store = open_store();
	int64_t process = put_process(store, 1, NOW);

	for (uint64_t i = 0; i < 80; i++)
		cr_assert_eq(put_profile(store, process, NOW + i, 100 * KIB), 0);
	pyspyd_store_close(store);
	store = open_with(&options, NULL);
	for (int i = 0; i < 10; i++)
		cr_assert_eq(pyspyd_store_prune(store, NOW, NULL), 0);
	for (uint64_t i = 100; i < 150; i++)
		cr_assert_eq(put_profile(store, process, NOW + i, 100 * KIB), 0);
	cr_assert_leq(stats_of(store).bytes, 2 * MIB + 128 * KIB);
	pyspyd_store_close(store);
}

Test(store, a_log_that_has_grown_is_cut) {
	struct pyspyd_store *store = open_store();
	int64_t process = put_process(store, 1, NOW);

	cr_assert_eq(put_profile(store, process, NOW, 12 * MIB), 0);
	cr_assert_gt(stats_of(store).log_bytes, 8 * MIB);
	cr_assert_eq(pyspyd_store_prune(store, NOW, NULL), 0);
	cr_assert_eq(stats_of(store).log_bytes, 0);
	pyspyd_store_close(store);
}

/* Whose file it is */

static int open_fails(const char *at, struct err *err) {
	const struct pyspyd_store_options options = { .path = at };
	struct pyspyd_store *store;
	char *note = NULL;
	int r = pyspyd_store_open(&options, &store, &note, err);

	cr_assert_null(note);
	return r;
}

Test(store, one_opener_at_a_time) {
	struct pyspyd_store *store = open_store();
	struct err err = { 0 };
	pid_t child;
	int status;

	cr_assert_eq(open_fails(path, &err), -EBUSY);
	cr_assert(strstr(err.text, "in use by another process"));
	child = fork();
	if (!child)
		_exit(open_fails(path, NULL) == -EBUSY ? 0 : 1);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0);
	put(store, "a", PYSPYD_OPEN, NOW);
	pyspyd_store_close(store);
	store = open_store();
	cr_assert_eq(count_events(store), 1);
	cr_assert_eq(damaged_files(), 0);
	pyspyd_store_close(store);
}

Test(store, a_file_that_another_program_holds_is_not_damaged) {
	struct err err = { 0 };
	sqlite3 *db;

	pyspyd_store_close(open_store());
	cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
	cr_assert_eq(sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	cr_assert_eq(open_fails(path, &err), -EBUSY);
	cr_assert(strstr(err.text, "in use by another process"), "%s", err.text);
	sqlite3_close(db);
	pyspyd_store_close(open_store());
}

Test(store, links_are_not_followed) {
	char link_path[64], folder_link[64], through[96];
	struct pyspyd_store *store = NULL;
	struct err err = { 0 };

	snprintf(link_path, sizeof(link_path), "%s/link", folder);
	cr_assert_eq(symlink(path, link_path), 0);
	cr_assert_eq(open_fails(link_path, &err), -ELOOP);
	cr_assert(strstr(err.text, "symbolic link"));
	cr_assert_eq(access(path, F_OK), -1);
	cr_assert_neq(open_fails(folder, NULL), 0, "a folder");
	snprintf(through, sizeof(through), "%s/no/a.db", folder);
	cr_assert_eq(open_fails(through, &err), -ENOENT);
	snprintf(folder_link, sizeof(folder_link), "%s/here", folder);
	cr_assert_eq(symlink(".", folder_link), 0);
	snprintf(through, sizeof(through), "%s/a.db", folder_link);
	cr_assert_eq(pyspyd_store_open(&(struct pyspyd_store_options){ .path = through }, &store, NULL, &err), 0, "%s",
		err.text);
	pyspyd_store_close(store);
	cr_assert_eq(access(path, F_OK), 0);
}

Test(store, nobody_else_reads_it) {
	struct pyspyd_store *store;
	char log[80];
	struct stat st;

	umask(0);
	store = open_store();
	put(store, "a", PYSPYD_OPEN, NOW);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0640);
	snprintf(log, sizeof(log), "%s-wal", path);
	cr_assert_eq(stat(log, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0640);
	pyspyd_store_close(store);
}

/* Damage */

static void cut(off_t size) {
	cr_assert_eq(truncate(path, size), 0);
}

static off_t size_now(void) {
	struct stat st;

	cr_assert_eq(stat(path, &st), 0);
	return st.st_size;
}

static void damage_nothing_left(void) {
	char log[80];
	_close_ int fd = -1;

	cut(0);
	snprintf(log, sizeof(log), "%s-wal", path);
	fd = open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	cr_assert_eq(write(fd, "log", 3), 3);
}

static void damage_two_bytes(void) {
	cut(2);
}

static void damage_half_a_header(void) {
	cut(50);
}

static void damage_half_gone(void) {
	cut(size_now() / 2);
}

static void damage_one_page_left(void) {
	cut(4096);
}

static void damage_header(void) {
	change_file(0, "garbage garbage garbage", 23);
}

static void damage_first_page(void) {
	static const char zeros[4096];

	change_file(0, zeros, sizeof(zeros));
}

static void damage_all_but_first_page(void) {
	static const char zeros[4096];

	for (off_t at = 4096; at < size_now(); at += 4096)
		change_file(at, zeros, sizeof(zeros));
}

static void damage_random(void) {
	char noise[4096];

	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (char)(i * 197 + i / 7);
	for (off_t at = 0; at < size_now(); at += 4096)
		change_file(at, noise, sizeof(noise));
}

static void damage_text(void) {
	cut(0);
	change_file(0, "# not a database, but a configuration file\n", 43);
}

static void damage_other_program(void) {
	cut(0);
	run_sql("CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1)");
}

static void damage_newer(void) {
	run_sql("PRAGMA user_version = 99");
}

static void damage_no_state(void) {
	run_sql("DELETE FROM state");
}

static void damage_no_table(void) {
	run_sql("DROP TABLE events");
}

static const struct damage {
	char name[24];
	void (*damage)(void);
} damages[] = {
	{ "nothing left", damage_nothing_left },
	{ "two bytes", damage_two_bytes },
	{ "half a header", damage_half_a_header },
	{ "half gone", damage_half_gone },
	{ "one page left", damage_one_page_left },
	{ "header", damage_header },
	{ "first page", damage_first_page },
	{ "all but first page", damage_all_but_first_page },
	{ "random", damage_random },
	{ "text", damage_text },
	{ "other program", damage_other_program },
	{ "newer", damage_newer },
	{ "no state", damage_no_state },
	{ "no table", damage_no_table },
};

static void fill(struct pyspyd_store *store) {
	int64_t process = put_process(store, 1, NOW);

	for (uint64_t i = 0; i < 300; i++) {
		put(store, "a", PYSPYD_UPDATE, NOW + i);
		cr_assert_eq(put_counter(store, process, NOW + i), 0);
	}
	cr_assert_eq(put_profile(store, process, NOW, 100 * KIB), 0);
}

static void try_damage(const struct damage *damage) {
	struct pyspyd_store *store = open_store();
	_free_ char *note = NULL;

	fill(store);
	pyspyd_store_close(store);
	damage->damage();
	store = open_with(NULL, &note);
	cr_assert(note, "%s", damage->name);
	cr_assert(strstr(note, path) && strstr(note, "set aside") && !strchr(note, '\n'), "%s", note);
	cr_assert_eq(stats_of(store).set_aside, 1);
	cr_assert_geq(damaged_files(), 1);
	cr_assert_eq(stats_of(store).counters, 0);
	put(store, "b", PYSPYD_OPEN, NOW);
	cr_assert_eq(count_events(store), stats_of(store).events);
	pyspyd_store_close(store);
	check_sound();
	pyspyd_store_close(open_store());
}

Test(store, a_damaged_file_is_set_aside) {
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		try_damage(damages + i);
		remove_folder();
		cr_assert_eq(mkdir(folder, 0700), 0);
	}
}

/* Return: how many leaves of a table were zeroed, the first `skip` left alone; the root never. */
static size_t damage_table(const char *table, int skip) {
	static const char sql[] = "SELECT pageno FROM dbstat WHERE name = ?1 AND pagetype = 'leaf' ORDER BY path"
				  " LIMIT -1 OFFSET ?2";
	static const char zeros[4096];
	off_t pages[256];
	sqlite3_stmt *statement;
	sqlite3 *db;
	size_t n = 0;

	cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL))
		cr_skip_test("SQLite was built without dbstat");
	sqlite3_bind_text(statement, 1, table, -1, SQLITE_STATIC);
	sqlite3_bind_int(statement, 2, skip);
	while (n < ARRAY_SIZE(pages) && sqlite3_step(statement) == SQLITE_ROW)
		pages[n++] = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	sqlite3_close(db);
	for (size_t i = 0; i < n; i++)
		change_file((pages[i] - 1) * 4096, zeros, sizeof(zeros));
	return n;
}

Test(store, damage_that_shows_later) {
	struct pyspyd_store *store = open_store();
	struct seen seen = { 0 };
	_free_ char *note = NULL;

	fill(store);
	pyspyd_store_close(store);
	cr_assert_gt(damage_table("counters", 0), 1);
	store = open_store();
	cr_assert_eq(pyspyd_store_counters(store, 1, 0, 0, see_counters, &seen), -EIO);
	cr_assert_eq(stats_of(store).set_aside, 1);
	note = pyspyd_store_take_note(store);
	cr_assert(note && strstr(note, "300 events"), "%s", note);
	cr_assert_null(pyspyd_store_take_note(store));
	cr_assert_eq(count_events(store), 300, "all were saved");
	cr_assert_eq(put(store, "b", PYSPYD_OPEN, NOW), 301);
	cr_assert_eq(put_counter(store, 1, NOW), 0, "the process is still known");
	cr_assert_eq(put_process(store, 1, NOW), 1);
	pyspyd_store_close(store);
	check_sound();
}

Test(store, what_is_put_into_a_damaged_file_goes_into_the_new_one) {
	struct pyspyd_store *store = open_store();
	uint64_t seq, dropped;

	fill(store);
	cr_assert_eq(pyspyd_store_sink_put(store, "journal", 250, 3), 0);
	pyspyd_store_close(store);
	cr_assert_gt(damage_table("counters", 0), 1);
	store = open_store();
	cr_assert_eq(put_counter(store, 1, NOW + 1000), 0);
	cr_assert_eq(stats_of(store).set_aside, 1);
	cr_assert_eq(stats_of(store).counters, 1);
	cr_assert_eq(stats_of(store).lost, 0);
	cr_assert_eq(pyspyd_store_sink_get(store, "journal", &seq, &dropped), 0);
	cr_assert(seq == 250 && dropped == 3);
	pyspyd_store_close(store);
}

Test(store, events_on_both_sides_of_a_damaged_page_are_saved) {
	struct pyspyd_store *store = open_store();
	struct seen seen = { 0 };
	_free_ char *note = NULL;

	fill(store);
	pyspyd_store_close(store);
	damage_table("events", 2);
	store = open_with(NULL, &note);
	cr_assert_eq(stats_of(store).set_aside, 1);
	cr_assert_eq(pyspyd_store_events(store, &all_events, see_event, &seen), 0);
	cr_assert_gt(seen.n, 10);
	cr_assert_lt(seen.n, 300);
	cr_assert_eq(seen.first, 1);
	cr_assert_eq(put(store, "b", PYSPYD_OPEN, NOW), 301, "the numbers go on");
	pyspyd_store_close(store);
}

Test(store, a_file_whose_making_was_cut_short_is_new) {
	run_sql("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL");
	pyspyd_store_close(open_store());
	cr_assert_eq(damaged_files(), 0);
}

static void rename_to(const char *ending) {
	char name[80];

	snprintf(name, sizeof(name), "%s%s", path, ending);
	cr_assert_eq(rename(path, name), 0);
}

Test(store, a_rescue_that_was_interrupted_goes_on) {
	struct pyspyd_store *store = open_store();
	_free_ char *note = NULL;

	fill(store);
	pyspyd_store_close(store);
	rename_to(".rescue");
	store = open_with(NULL, &note);
	cr_assert(note && strstr(note, "300 events"), "%s", note);
	cr_assert_eq(count_events(store), 300);
	cr_assert_eq(stats_of(store).events, 300);
	cr_assert_eq(damaged_files(), 1);
	cr_assert_eq(put(store, "b", PYSPYD_OPEN, NOW), 301);
	pyspyd_store_close(store);
	pyspyd_store_close(open_store());
	check_sound();
}

Test(store, a_few_damaged_files_are_kept) {
	for (int i = 0; i < 8; i++) {
		struct pyspyd_store *store;
		_free_ char *note = NULL;

		pyspyd_store_close(open_store());
		damage_first_page();
		store = open_with(NULL, &note);
		cr_assert(note);
		pyspyd_store_close(store);
	}
	cr_assert_eq(damaged_files(), 4);
}

Test(store, a_file_that_is_removed_is_made_again) {
	struct pyspyd_store *store = open_store();
	_free_ char *note = NULL;

	put(store, "a", PYSPYD_OPEN, NOW);
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(pyspyd_store_prune(store, NOW, NULL), 0);
	note = pyspyd_store_take_note(store);
	cr_assert(note && strstr(note, "removed"), "%s", note);
	cr_assert_eq(put(store, "b", PYSPYD_OPEN, NOW), 2, "the numbers go on");
	pyspyd_store_close(store);
	store = open_store();
	cr_assert_eq(count_events(store), 1);
	cr_assert_eq(damaged_files(), 0);
	pyspyd_store_close(store);
}

/* Any bytes may be anything: no crash, no endless loop, and what is put is there afterwards. */

static uint32_t dice;

static uint32_t roll(uint32_t sides) {
	dice = dice * 1664525 + 1013904223;
	return (dice >> 8) % sides;
}

static void damage_somewhere(off_t size) {
	static const unsigned char values[] = { 0x00, 0xff, 0x7f, 0x80, 0x0d, 0x05 };
	unsigned char bytes[64];

	for (uint32_t times = 1 + roll(20); times; times--) {
		off_t page = (off_t)roll((uint32_t)(size / 4096)) * 4096;
		size_t n = 1 + roll(sizeof(bytes));

		for (size_t i = 0; i < n; i++)
			bytes[i] = roll(2) ? values[roll(sizeof(values))] : (unsigned char)roll(256);
		/* Mostly where a page says what is in it. */
		change_file(page + roll(roll(2) ? 100 : 4000), bytes, roll(4) ? 1 + n % 4 : n);
	}
}

static void copy_file(const char *from, const char *to) {
	_close_ int in = open(from, O_RDONLY | O_CLOEXEC),
		    out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char bytes[4096];
	ssize_t n;

	while ((n = read(in, bytes, sizeof(bytes))) > 0)
		cr_assert_eq(write(out, bytes, (size_t)n), n);
	cr_assert_eq(n, 0);
}

static int see_nothing(void *userdata, int64_t number, const struct pyspyd_store_process *process) {
	(void)number;
	*(size_t *)userdata += strlen(process->name) + strlen(process->cmdline);
	return 0;
}

static void use_damaged(uint32_t seed) {
	static const char *const sinks[] = { "journal", NULL };
	const struct pyspyd_store_options options = { .counter_age_ns = DAY, .max_bytes = 2 * MIB };
	_free_ char *note = NULL, *later = NULL;
	struct pyspyd_store *store = open_with(&options, &note);
	struct seen seen = { 0 };
	size_t length = 0;
	uint64_t seq;
	int r;

	pyspyd_store_events(store, &all_events, see_event, &seen);
	pyspyd_store_events(store, &(struct pyspyd_event_filter){ .open = true, .uid = 1000, .since_real_ns = 1 },
		see_event, &seen);
	pyspyd_store_profiles(store, 1, 0, 0, see_profile, &seen);
	pyspyd_store_counters(store, 1, 0, 0, see_counters, &seen);
	pyspyd_store_processes(store, 0, (uid_t)-1, see_nothing, &length);
	pyspyd_store_prune(store, NOW + 2 * DAY, sinks);
	seq = put(store, "b", PYSPYD_OPEN, NOW);
	r = put_counter(store, put_process(store, 1, NOW), NOW + 3 * DAY);
	cr_assert_eq(r, 0, "seed %u: %d", seed, r);
	cr_assert_eq(pyspyd_store_last_seq(store), seq);
	seen = (struct seen){ 0 };
	cr_assert_eq(pyspyd_store_events(store, &(struct pyspyd_event_filter){ .after_seq = seq - 1, .uid = (uid_t)-1 },
			     see_event, &seen),
		0);
	/* A damaged key can make a search find more than there is. */
	cr_assert_geq(seen.n, 1, "seed %u", seed);
	later = pyspyd_store_take_note(store);
	cr_assert_eq(!!later + !!note, stats_of(store).set_aside, "seed %u: %s %s", seed, note, later);
	pyspyd_store_close(store);
}

Test(store, any_damage, .timeout = 100) {
	struct pyspyd_store *store = open_store();
	char whole[80];
	off_t size;

	fill(store);
	pyspyd_store_close(store);
	size = size_now();
	snprintf(whole, sizeof(whole), "%s/whole", folder);
	copy_file(path, whole);
	for (uint32_t seed = 1; seed <= 200; seed++) {
		copy_file(whole, path);
		dice = seed;
		damage_somewhere(size);
		use_damaged(seed);
	}
}

/* Full disks */

#define ACKNOWLEDGED_MAX 10000

static void check_all_there(struct pyspyd_store *store, size_t acknowledged) {
	cr_assert_eq(count_events(store), acknowledged);
	cr_assert_eq(pyspyd_store_last_seq(store), acknowledged);
	cr_assert_eq(stats_of(store).events, acknowledged);
}

Test(store, a_full_disk_loses_nothing_that_was_acknowledged) {
	const struct rlimit small = { 300 * KIB, RLIM_INFINITY };
	const struct rlimit free_again = { RLIM_INFINITY, RLIM_INFINITY };
	struct pyspyd_event event = event_of("a", PYSPYD_OPEN, NOW);
	struct pyspyd_store *store = open_store();
	_free_ char *json = calloc(1, 8 * KIB);
	size_t acknowledged = 0;
	int r;

	memset(json, 'j', 8 * KIB - 1);
	event.json = json;
	signal(SIGXFSZ, SIG_IGN);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
	while (!(r = pyspyd_store_put_event(store, &event, NULL)) && acknowledged < ACKNOWLEDGED_MAX)
		acknowledged++;
	cr_assert_eq(r, -ENOSPC, "%d after %zu", r, acknowledged);
	cr_assert_gt(acknowledged, 5);
	for (int i = 0; i < 20; i++)
		acknowledged += !pyspyd_store_put_event(store, &event, NULL);
	cr_assert_geq(stats_of(store).lost, 1);
	check_all_there(store, acknowledged);
	cr_assert_eq(pyspyd_store_prune(store, NOW, NULL), 0);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &free_again), 0);
	cr_assert_eq(pyspyd_store_put_event(store, &event, NULL), 0, "it goes on when there is room");
	acknowledged++;
	check_all_there(store, acknowledged);
	pyspyd_store_close(store);
	check_sound();
	store = open_store();
	check_all_there(store, acknowledged);
	pyspyd_store_close(store);
}

Test(store, profiles_go_on_when_the_disk_has_room_again) {
	const struct rlimit small = { 2 * MIB, RLIM_INFINITY };
	const struct rlimit free_again = { RLIM_INFINITY, RLIM_INFINITY };
	struct pyspyd_store *store = open_store();
	int64_t process = put_process(store, 1, NOW);
	uint64_t failed = 0;

	signal(SIGXFSZ, SIG_IGN);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (uint64_t i = 0; i < 200; i++) {
		int r = put_profile(store, process, NOW + i, 50 * KIB);

		cr_assert(!r || r == -ENOSPC, "%d", r);
		failed += r != 0;
	}
	cr_assert_gt(failed, 0);
	cr_assert_eq(stats_of(store).lost, failed);
	cr_assert_eq(count_profiles(store, process, 0, 0), 200 - failed, "nothing was deleted for it");
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &free_again), 0);
	cr_assert_eq(put_profile(store, process, NOW, 50 * KIB), 0);
	cr_assert_eq(stats_of(store).profiles, 201 - failed);
	pyspyd_store_close(store);
	check_sound();
}

/* Writes that fail one after the other, whichever it is. */

static int writes_left = -1, write_errno;

static ssize_t failing_pwrite(int fd, const void *bytes, size_t n, off_t at) {
	if (!writes_left) {
		errno = write_errno;
		return -1;
	}
	if (writes_left > 0)
		writes_left--;
	return pwrite(fd, bytes, n, at);
}

static void make_writes_fail(void) {
	static const char *const names[] = { "pwrite", "pwrite64" };
	sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		vfs->xSetSystemCall(vfs, names[i], (sqlite3_syscall_ptr)failing_pwrite);
}

static void try_failing_write(int at, int e, int expected) {
	struct pyspyd_store *store;
	struct pyspyd_event event = event_of("a", PYSPYD_OPEN, NOW);
	size_t acknowledged = 0;
	int r = 0;

	writes_left = -1;
	store = open_store();
	writes_left = at;
	write_errno = e;
	for (int i = 0; i < 40 && !r; i++) {
		r = pyspyd_store_put_event(store, &event, NULL);
		acknowledged += !r;
	}
	cr_assert(r == expected || writes_left > 0, "write %d: %d", at, r);
	check_all_there(store, acknowledged);
	writes_left = -1;
	cr_assert_eq(pyspyd_store_put_event(store, &event, NULL), 0);
	check_all_there(store, acknowledged + 1);
	pyspyd_store_close(store);
	check_sound();
	remove_folder();
	cr_assert_eq(mkdir(folder, 0700), 0);
}

Test(store, any_write_may_fail) {
	make_writes_fail();
	for (int at = 0; at < 60; at++) {
		try_failing_write(at, ENOSPC, -ENOSPC);
		try_failing_write(at, EIO, -EIO);
		try_failing_write(at, EDQUOT, -ENOSPC);
	}
}

Test(store, opening_on_a_full_disk_fails_and_damages_nothing) {
	const struct pyspyd_store_options options = { .path = path };
	struct pyspyd_store *store;
	int r = -ENOSPC;

	make_writes_fail();
	for (int at = 0; r; at++) {
		writes_left = at;
		write_errno = ENOSPC;
		r = pyspyd_store_open(&options, &store, NULL, NULL);
		cr_assert(!r || r == -ENOSPC, "write %d: %d", at, r);
	}
	pyspyd_store_close(store);
	writes_left = -1;
	cr_assert_eq(damaged_files(), 0);
	pyspyd_store_close(open_store());
	check_sound();
}

/* One store takes over what another one has */

static char other_path[96];

static struct pyspyd_store *open_other(uint64_t max_bytes) {
	struct pyspyd_store_options o = { .path = other_path, .max_bytes = max_bytes };
	struct pyspyd_store *store = NULL;
	struct err err = { 0 };
	char *note = NULL;

	snprintf(other_path, sizeof(other_path), "%s/other", folder);
	cr_assert_eq(pyspyd_store_open(&o, &store, &note, &err), 0, "%s", err.text);
	cr_assert_null(note);
	return store;
}

static int see_number(void *userdata, int64_t number, const struct pyspyd_store_process *process) {
	*(int64_t *)userdata = process->pid == 12 ? number : *(int64_t *)userdata;
	return 0;
}

Test(store, a_new_one_takes_over_all) {
	struct pyspyd_store *from = open_store(), *store = open_other(0);
	struct pyspyd_store_taken taken;
	uint64_t place, dropped;
	int64_t process;

	put_process(from, 11, 5 * NS_PER_SEC);
	process = put_process(from, 12, 5 * NS_PER_SEC);
	for (uint64_t i = 1; i <= 3; i++)
		put(from, "a", PYSPYD_UPDATE, i);
	cr_assert_eq(put_counter(from, process, 7), 0);
	cr_assert_eq(put_profile(from, process, 7, 100), 0);
	cr_assert_eq(pyspyd_store_sink_put(from, "file", 2, 1), 0);
	cr_assert_eq(pyspyd_store_take_over(store, from, &taken), 0);
	cr_assert_eq(taken.events, 3);
	cr_assert_eq(taken.shift, 0);
	cr_assert_not(taken.incomplete);
	pyspyd_store_close(from);
	pyspyd_store_close(store);
	store = open_other(0); /* what was taken is on disk */
	cr_assert_str_eq(events(store, all_events), "1 2 3");
	cr_assert_eq(put(store, "b", PYSPYD_OPEN, 4), 4);
	cr_assert_eq(pyspyd_store_sink_get(store, "file", &place, &dropped), 0);
	cr_assert_eq(place, 2);
	cr_assert_eq(dropped, 1);
	process = 0;
	cr_assert_eq(pyspyd_store_processes(store, 0, (uid_t)-1, see_number, &process), 0);
	cr_assert_eq(count_profiles(store, process, 0, 0), 1);
	cr_assert_eq(stats_of(store).events, 4);
	cr_assert_eq(stats_of(store).profiles, 1);
	cr_assert_eq(stats_of(store).counters, 1);
	pyspyd_store_close(store);
}

/* There and back: what the first one has already does not come twice. */
Test(store, an_earlier_copy_takes_over_what_is_new) {
	struct pyspyd_store *from = open_store(), *store = open_other(0);
	struct pyspyd_store_taken taken;

	put(from, "a", PYSPYD_OPEN, 1);
	put(from, "b", PYSPYD_OPEN, 2);
	cr_assert_eq(pyspyd_store_take_over(store, from, &taken), 0);
	put(store, "b", PYSPYD_RESOLVED, 3);
	cr_assert_eq(pyspyd_store_take_over(from, store, &taken), 0);
	cr_assert_eq(taken.events, 1);
	cr_assert_eq(taken.shift, 0);
	cr_assert_str_eq(events(from, all_events), "1 2 3");
	cr_assert_eq(stats_of(from).events, 3);
	pyspyd_store_close(from);
	pyspyd_store_close(store);
}

Test(store, one_with_a_history_of_its_own_takes_over_behind_it) {
	struct pyspyd_store *from = open_store(), *store = open_other(0);
	struct pyspyd_store_taken taken;
	uint64_t place, dropped;
	int64_t process, mine;

	mine = put_process(store, 33, 5);
	put(store, "x", PYSPYD_OPEN, 100);
	put(store, "x", PYSPYD_RESOLVED, 101);
	process = put_process(from, 12, 5);
	cr_assert_eq(process, mine, "the numbers clash");
	cr_assert_eq(put_profile(from, process, 7, 100), 0);
	put(from, "a", PYSPYD_OPEN, 1);
	put(from, "b", PYSPYD_OPEN, 2);
	cr_assert_eq(pyspyd_store_sink_put(from, "file", 1, 0), 0);
	cr_assert_eq(pyspyd_store_take_over(store, from, &taken), 0);
	cr_assert_eq(taken.shift, 2);
	cr_assert_str_eq(events(store, all_events), "1 2 3 4");
	cr_assert_str_eq(events(store, (struct pyspyd_event_filter){ .uid = (uid_t)-1, .open = true }), "3 4");
	cr_assert_eq(pyspyd_store_sink_get(store, "file", &place, &dropped), 0);
	cr_assert_eq(place, 3);
	process = 0;
	cr_assert_eq(pyspyd_store_processes(store, 0, (uid_t)-1, see_number, &process), 0);
	cr_assert_neq(process, mine);
	cr_assert_eq(count_profiles(store, process, 0, 0), 1);
	cr_assert_eq(count_profiles(store, mine, 0, 0), 0);
	cr_assert_eq(put(store, "c", PYSPYD_OPEN, 102), 5);
	pyspyd_store_close(from);
	pyspyd_store_close(store);
}

Test(store, a_small_one_takes_over_the_newest) {
	struct pyspyd_store *from = open_store(), *store = open_other(1U << 20);
	struct pyspyd_store_taken taken;
	char *json = malloc(10001);
	struct pyspyd_event event = event_of("a", PYSPYD_UPDATE, 1);
	struct seen seen = { 0 };

	memset(json, ' ', 10000);
	json[10000] = '\0';
	event.json = json;
	for (; event.time_real_ns <= 200; event.time_real_ns++)
		cr_assert_eq(pyspyd_store_put_event(from, &event, NULL), 0);
	cr_assert_eq(pyspyd_store_take_over(store, from, &taken), 0);
	cr_assert(taken.incomplete);
	cr_assert_eq(pyspyd_store_events(store, &all_events, see_event, &seen), 0);
	cr_assert_eq(seen.last, 200);
	cr_assert_gt(seen.n, 20);
	cr_assert_lt(seen.n, 100);
	cr_assert_eq(seen.first, 200 - seen.n + 1);
	free(json);
	pyspyd_store_close(from);
	pyspyd_store_close(store);
}

Test(store, its_bounds_can_be_changed) {
	struct pyspyd_store_options o = { .max_bytes = 1U << 20 };
	struct pyspyd_store *store = open_store();
	int64_t process = put_process(store, 12, 5);

	for (uint64_t i = 0; i < 40; i++)
		cr_assert_eq(put_profile(store, process, i * NS_PER_SEC, 100000), 0);
	cr_assert_eq(count_profiles(store, process, 0, 0), 40);
	cr_assert_eq(pyspyd_store_bound(store, &o), 0);
	for (unsigned i = 0; i < 20; i++)
		cr_assert_eq(pyspyd_store_prune(store, 100 * NS_PER_SEC, NULL), 0);
	cr_assert_lt(count_profiles(store, process, 0, 0), 11);
	cr_assert_leq(stats_of(store).bytes, 2U << 20);
	o = (struct pyspyd_store_options){ .profile_age_ns = NS_PER_SEC };
	cr_assert_eq(pyspyd_store_bound(store, &o), 0);
	for (uint64_t i = 0; i < 40; i++)
		cr_assert_eq(put_profile(store, process, (1000 + i) * NS_PER_SEC, 100000), 0);
	cr_assert_geq(count_profiles(store, process, 0, 0), 40, "there is no limit any more");
	cr_assert_eq(pyspyd_store_prune(store, 5000 * NS_PER_SEC, NULL), 0);
	cr_assert_eq(count_profiles(store, process, 0, 0), 0, "they are too old now");
	pyspyd_store_close(store);
}
