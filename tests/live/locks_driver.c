/* SPDX-License-Identifier: MIT */
/* Starts an interpreter on locks_oracle.py and checks, from outside, what it says of its locks, containers and waiting
 * threads. usage: locks_driver ORACLE COMMAND… — the lines are described in locks_oracle.py.
 *
 * A thread tells a moment before it blocks: what differs is read again, until the limit. */
#include "engine/base/strbuf.h"
#include "engine/base/vec.h"
#include "engine/cpython/locks.h"
#include "engine/cpython/object_head.h"
#include "engine/proc/proc.h"
#include "engine/proc/sleep.h"
#include "tests/live/target.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>

#define TRIES 10000
#define TRY_US 10000
#define ITEMS_MAX 2000

struct test {
	struct proc proc;
	struct mem *mem;
	struct py_runtime rt;
	struct strbuf got; /* what was read, as the oracle would write it */
	uint64_t locks, containers, blocked, again, wrong;
};

static int begin(struct test *t, pid_t pid) {
	struct err err = { 0 };
	int r = proc_open("/proc", pid, &t->proc);

	if (!r)
		r = mem_live_new(pid, &t->mem);
	if (!r)
		r = py_runtime_attach(&t->proc, t->mem, &t->rt, &err);
	if (r)
		printf("not attached: %d\n", r);
	return r;
}

/* Each writes what it read; the return value is the reader's. */

static int do_lock(struct test *t, raddr object) {
	static const char *const kinds[] = {
		[PY_LOCK] = "lock",
		[PY_RLOCK] = "rlock",
		[PY_SEMLOCK] = "semlock",
		[PY_BUFFERED] = "buffered",
	};
	struct py_lock lock = { .kind = PY_LOCK };
	int r = py_lock_read(&t->rt.reader, object, &lock);

	strbuf_addf(&t->got, "%s %d %" PRIx64 " %" PRId64 " %d %" PRId64, kinds[lock.kind], lock.locked, lock.owner,
		lock.count, lock.recursive, lock.maxvalue);
	return r || !py_lock_is(&t->rt.reader, object) ? PY_E_TYPE : 0;
}

static int do_other(struct test *t, raddr object) {
	struct py_lock lock;
	raddr item;
	size_t n;
	const struct py_reader *py = &t->rt.reader;

	return py_lock_read(py, object, &lock) == PY_E_TYPE && !py_lock_is(py, object) &&
			py_deque_read(py, object, &item, 1, &n) == PY_E_TYPE &&
			py_simple_queue_read(py, object, &item, 1, &n) == PY_E_TYPE &&
			py_set_read(py, object, &item, 1, &n) == PY_E_TYPE
		? 0
		: -1;
}

typedef int (*container_reader)(const struct py_reader *py, raddr object, raddr *items, size_t max, size_t *ret_n);

/* Read twice: whole, and half of it, which must begin alike and say the same length. */
static int read_container(struct test *t, raddr object, container_reader reader, bool ordered) {
	raddr items[ITEMS_MAX], some[ITEMS_MAX];
	size_t n = 0, again = 0;
	int r = reader(&t->rt.reader, object, items, ITEMS_MAX, &n), cut;

	strbuf_addf(&t->got, "%zu", n);
	for (size_t i = 0; !r && i < n; i++)
		strbuf_addf(&t->got, " %" PRIx64, items[i]);
	if (r || !n)
		return r;
	cut = reader(&t->rt.reader, object, some, n / 2, &again);
	if (cut != PY_E_TRUNCATED || again != n)
		return -1;
	return ordered && memcmp(items, some, n / 2 * sizeof(*items)) != 0 ? -1 : 0;
}

static int do_deque(struct test *t, raddr object) {
	return read_container(t, object, py_deque_read, true);
}

static int do_queue(struct test *t, raddr object) {
	return read_container(t, object, py_simple_queue_read, true);
}

static int do_set(struct test *t, raddr object) {
	return read_container(t, object, py_set_read, true);
}

static int compare_words(const void *a, const void *b) {
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The words of a text in order of the alphabet: sets have none of their own. */
static char *sorted(const char *text) {
	struct strbuf out = { 0 };
	char *copy = strdup(text), *rest = copy;
	char **words = calloc(strlen(text) + 1, sizeof(char *));
	size_t n = 0;

	while (rest)
		words[n++] = strsep(&rest, " ");
	qsort(words, n, sizeof(char *), compare_words);
	for (size_t i = 0; i < n; i++)
		strbuf_addf(&out, "%s ", words[i]);
	free(words);
	free(copy);
	return strbuf_take(&out);
}

static const struct kind {
	const char *name;
	int (*run)(struct test *t, raddr object);
} kinds[] = {
	{ "lock", do_lock },
	{ "other", do_other },
	{ "deque", do_deque },
	{ "queue", do_queue },
	{ "set", do_set },
};

static void check_object(struct test *t, const char *name, raddr object, const char *expected) {
	_free_ char *wanted = sorted(expected), *got = NULL;
	int r = -1;

	strbuf_deinit(&t->got);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kinds[i].name, name))
			r = kinds[i].run(t, object);
	got = strcmp(name, "set") ? strdup(strbuf_str(&t->got)) : sorted(strbuf_str(&t->got));
	if (!r && !strcmp(got, strcmp(name, "set") ? expected : wanted))
		return;
	printf("%s %" PRIx64 ": result %d, %.200s instead of %.200s\n", name, object, r, got, expected);
	t->wrong++;
}

/* What the word that a thread sleeps at belongs to. */

static bool at_lock(struct test *t, raddr futex, const struct py_parking *parking, raddr object) {
	bool in_object = layout_has(t->rt.reader.layout.wait_entry_addr);
	struct py_lock lock;

	if (py_lock_read(&t->rt.reader, object, &lock))
		return false;
	if (parking->kind == PY_PARKED_NONE)
		return lock.word == futex;
	if (!in_object || parking->kind != PY_PARKED_MUTEX || lock.word != parking->address)
		return false;
	return lock.kind == PY_BUFFERED ? !parking->object : parking->object == object;
}

static bool at_queue(struct test *t, raddr futex, const struct py_parking *parking, raddr object) {
	const struct layout *l = &t->rt.reader.layout;
	uint64_t sem;

	if (layout_has(l->simplequeue_ring_items))
		return parking->kind == PY_PARKED_MUTEX && !parking->object && parking->address > object &&
			parking->address < object + OBJECT_HEAD_BYTES;
	return !mem_read_u64(t->mem, object + l->simplequeue_sem, &sem) && sem == futex;
}

static bool at_mutex(struct test *t, raddr futex, const struct py_parking *parking, const char *expected) {
	pid_t owner = 0;
	bool recursive = false;
	char got[32];

	if (native_mutex_owner(t->mem, futex, &owner, &recursive))
		return false;
	snprintf(got, sizeof(got), "%d %d", (int)owner, (int)recursive);
	return parking->kind == PY_PARKED_NONE && !strcmp(got, expected);
}

static bool is_at(struct test *t, pid_t tid, const char *what, const char *expected) {
	uint64_t number = strtoull(expected, NULL, 16);
	struct py_parking parking = { .kind = PY_PARKED_NONE };
	struct proc_sleep sleep;
	pid_t owner = 0;
	bool recursive;

	strbuf_deinit(&t->got);
	if (proc_sleep_read(&t->proc, tid, &sleep) || sleep.call != SLEEP_FUTEX ||
		py_parking_read(&t->rt.reader, sleep.address, &parking))
		return false;
	strbuf_addf(&t->got, "word %" PRIx64 ", parked %d at %" PRIx64 " object %" PRIx64 " ident %" PRIx64,
		sleep.address, parking.kind, parking.address, parking.object, parking.ident);
	if (!strcmp(what, "mutex"))
		return at_mutex(t, sleep.address, &parking, expected);
	if (native_mutex_owner(t->mem, sleep.address, &owner, &recursive) || owner)
		return false;
	if (!strcmp(what, "join"))
		return parking.kind == PY_PARKED_JOIN && parking.ident == number;
	return !strcmp(what, "lock") ? at_lock(t, sleep.address, &parking, number)
				     : at_queue(t, sleep.address, &parking, number);
}

static void check_blocked(struct test *t, const char *id, char *expected) {
	pid_t tid = (pid_t)atoi(id);
	const char *what = strsep(&expected, " ");
	int tries = 0;

	while (!is_at(t, tid, what, expected) && ++tries < TRIES)
		usleep(TRY_US);
	t->again += tries > 0;
	if (tries < TRIES)
		return;
	printf("thread %d: %s instead of %s %s\n", (int)tid, strbuf_str(&t->got), what, expected);
	t->wrong++;
}

static void check(struct test *t, char *line) {
	char *rest = line, *name = strsep(&rest, " "), *key = strsep(&rest, " ");

	if (!key)
		return;
	t->locks += !strcmp(name, "lock");
	t->blocked += !strcmp(name, "blocked");
	t->containers += !strcmp(name, "deque") || !strcmp(name, "queue") || !strcmp(name, "set");
	if (!strcmp(name, "blocked"))
		check_blocked(t, key, rest);
	else
		check_object(t, name, strtoull(key, NULL, 16), rest ? rest : "");
}

static void run(struct test *t, FILE *in) {
	target_lines lines = { 0 };
	bool ready = target_read(in, &lines);

	if (ready && !strncmp(lines.items[0], "start ", 6) && !begin(t, (pid_t)atoi(lines.items[0] + 6))) {
		for (size_t i = 1; i + 1 < lines.n; i++)
			check(t, lines.items[i]);
	} else {
		printf("the interpreter ended early, or was not attached to\n");
		t->wrong++;
	}
	target_forget(&lines);
}

int main(int argc, char **argv) {
	struct test t = { .wrong = 0 };
	struct target target;

	if (argc < 3 || target_start(argv[1], argv + 2, &target)) {
		fprintf(stderr, "usage: locks_driver ORACLE COMMAND…\n");
		return 2;
	}
	run(&t, target.out);
	close(target.held);
	fclose(target.out);
	waitpid(target.pid, NULL, 0);
	printf("%" PRIu64 " locks, %" PRIu64 " containers, %" PRIu64 " waiting threads, %" PRIu64
	       " read again, %" PRIu64 " wrong\n",
		t.locks, t.containers, t.blocked, t.again, t.wrong);
	mem_free(t.mem);
	strbuf_deinit(&t.got);
	return t.wrong || !t.locks || !t.containers || !t.blocked;
}
