/* SPDX-License-Identifier: MIT */
/* Cores that systemd-coredump has stored, from its entries in the journal.
 *
 *	read      entries of its message id, that the journal vouches for (coredump_entry.h), into a list
 *	wait      the engine may have seen the process end, the crash handler may have its core: theirs come first
 *	core      is read by another process (core_reader.h), one after the other
 *	tell      with what they have found, or, where the process is called as a Python is, alone
 *
 * The list is short; what does not fit stays in the journal until there is room. Nothing remembers across starts what
 * was told of: the store has it, and an entry about a core that a finding names already is passed over. */
#include "daemon/coredumps.h"

#include "daemon/coredump_entry.h"
#include "daemon/crash_handler.h"
#include "daemon/crashes.h"
#include "daemon/log.h"
#include "pyspyd/crash.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-journal.h>
#include <time.h>
#include <unistd.h>

#define S_NS 1000000000ULL
#define BEFORE_US (60 * 1000000ULL) /* how far back the first look goes */
#define WAIT_NS (10 * S_NS)         /* for others to tell of the same crash */
#define OLD_NS (600 * S_NS)         /* nothing is told of later than this */
#define READ_NS (120 * S_NS)        /* for its core to be read, and those before it */
#define AT_ONCE 64                  /* entries in one call */
#define PENDING_MAX 32
#define ADVICE_SIZE 512

struct pending {
	struct coredump_entry entry;
	uint64_t since_ns; /* it came */
	bool readable;
	enum { UNREAD, READING, READ } state;
	json_t *finding; /* what its core tells; NULL: nothing */
};

struct coredumps {
	sd_journal *journal;
	struct pending pending[PENDING_MAX];
	size_t pending_n;
	bool unreadable_said;
	struct core_reader *reader; /* borrowed; NULL: there is none, or not any more */
};

static uint64_t now_real_ns(void) {
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * S_NS + (uint64_t)ts.tv_nsec;
}

static void pending_deinit(struct pending *pending) {
	coredump_entry_deinit(&pending->entry);
	json_decref(pending->finding);
}

int coredumps_new(struct core_reader *reader, struct coredumps **ret_coredumps) {
	struct coredumps *coredumps = calloc(1, sizeof(*coredumps));
	int r = coredumps ? sd_journal_open(&coredumps->journal, SD_JOURNAL_LOCAL_ONLY) : -ENOMEM;

	if (r >= 0)
		r = sd_journal_get_fd(coredumps->journal); /* files that come and go are noticed from now on */
	if (r >= 0)
		r = sd_journal_set_data_threshold(coredumps->journal, COREDUMP_TEXT_MAX);
	if (r >= 0)
		r = sd_journal_add_match(coredumps->journal, "MESSAGE_ID=" COREDUMP_MESSAGE_ID, 0);
	if (r >= 0)
		r = sd_journal_seek_realtime_usec(coredumps->journal, now_real_ns() / 1000 - BEFORE_US);
	if (r < 0) {
		coredumps_free(coredumps);
		return r;
	}
	coredumps->reader = reader;
	*ret_coredumps = coredumps;
	return 0;
}

void coredumps_free(struct coredumps *coredumps) {
	if (!coredumps)
		return;
	for (size_t i = 0; i < coredumps->pending_n; i++)
		pending_deinit(&coredumps->pending[i]);
	sd_journal_close(coredumps->journal);
	free(coredumps);
}

/* Reading */

static int read_entry(sd_journal *journal, struct coredump_entry *entry) {
	const char *name;
	int r = 0;

	for (size_t i = 0; r != -ENOMEM && (name = coredump_entry_field(i)); i++) {
		const void *data;
		size_t n;

		if (sd_journal_get_data(journal, name, &data, &n) >= 0)
			r = coredump_entry_set(entry, data, n);
	}
	return r == -ENOMEM ? r : 0;
}

static bool is_recent(const struct coredump_entry *entry, uint64_t now_ns) {
	return entry->time_real_ns <= now_ns + S_NS && now_ns < entry->time_real_ns + OLD_NS;
}

/* Return: an open file; -EPERM: it is none of systemd-coredump's about this process; negative errno. */
static int open_file(const struct coredump_entry *entry, uint64_t most) {
	struct stat st;
	int fd, r = 0;

	if (!coredump_entry_owns(entry, entry->file))
		return -EPERM;
	fd = open(entry->file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st))
		r = -errno;
	else if (!S_ISREG(st.st_mode) || st.st_uid)
		r = -EPERM;
	else if ((uint64_t)st.st_size > most)
		r = -EFBIG;
	if (!r)
		return fd;
	close(fd);
	return r;
}

static void look_at_file(struct coredumps *coredumps, struct pending *pending, uint64_t most) {
	int fd = pending->entry.file ? open_file(&pending->entry, most) : -ENOENT;

	pending->readable = fd >= 0;
	if (fd >= 0)
		close(fd);
	if (fd == -EACCES && !coredumps->unreadable_said) {
		log_say(LOG_WARNING,
			"cores of systemd-coredump may not be read: findings name them, and have no stacks of theirs; "
			"the unit of this service gives it CAP_DAC_READ_SEARCH");
		coredumps->unreadable_said = true;
	}
}

static int read_journal(struct coredumps *coredumps, uint64_t most) {
	uint64_t now_ns = now_real_ns();
	int r = 0;

	(void)!sd_journal_process(coredumps->journal);
	for (int i = 0; r >= 0 && i < AT_ONCE && coredumps->pending_n < PENDING_MAX; i++) {
		struct pending pending = { .since_ns = now_ns };

		if (sd_journal_next(coredumps->journal) <= 0)
			break;
		r = read_entry(coredumps->journal, &pending.entry);
		if (!r && coredump_entry_is_trusted(&pending.entry) && is_recent(&pending.entry, now_ns)) {
			look_at_file(coredumps, &pending, most);
			coredumps->pending[coredumps->pending_n++] = pending;
		} else {
			coredump_entry_deinit(&pending.entry);
		}
	}
	return r;
}

/* Cores */

static void take_read(struct coredumps *coredumps) {
	struct err err = { 0 };
	char *json = NULL;
	int r = coredumps->reader ? core_reader_take(coredumps->reader, &json, &err) : 0;

	if (!r)
		return;
	for (size_t i = 0; i < coredumps->pending_n; i++) {
		struct pending *pending = &coredumps->pending[i];

		if (pending->state != READING)
			continue;
		pending->state = READ;
		pending->finding = json ? crash_finding_check(json, pending->entry.pid, pending->entry.uid) : NULL;
		if (!pending->finding)
			log_say(LOG_NOTICE, "the core of process %d is not read: %s", (int)pending->entry.pid,
				err.text[0] ? err.text : "what was read is no finding");
	}
	free(json);
	if (r < 0 && r != -ENODATA) {
		log_say(LOG_WARNING, "cores that systemd-coredump stores are read no more: their reader has ended");
		coredumps->reader = NULL;
	}
}

/* Return: whether to wait for it. */
static bool read_core(struct coredumps *coredumps, struct pending *pending, const struct config_crash *config) {
	const struct core_reader_bounds bounds = {
		.folder = config->folder, .max_core = config->max_core, .deadline_ns = config->deadline_ns
	};
	bool late = now_real_ns() - pending->since_ns >= READ_NS;
	int fd, r;

	if (!coredumps->reader || !pending->readable || pending->state == READ || late)
		return false;
	if (pending->state == READING)
		return true;
	fd = open_file(&pending->entry, config->max_core);
	r = fd < 0 ? fd : core_reader_begin(coredumps->reader, fd, &pending->entry, &bounds);
	if (fd >= 0)
		close(fd);
	if (!r)
		pending->state = READING;
	return !r || r == -EAGAIN;
}

/* Telling */

static void add_advice(json_t *finding, const struct coredump_entry *entry) {
	char text[ADVICE_SIZE], file[ADVICE_SIZE / 2];

	if (!entry->file || !coredump_quote(entry->file, file, sizeof(file)))
		snprintf(text, sizeof(text),
			"systemd-coredump has seen the core, and keeps none: coredump.conf(5), Storage=external.");
	else
		snprintf(text, sizeof(text), "`sudo pyspyd dump --core %s` shows the core that systemd-coredump keeps.",
			file);
	json_object_set_new(finding, "advice", json_string(text));
}

/* Return: false: it is there already, or there is no memory. */
static bool add_core(json_t *finding, const struct pending *pending) {
	json_t *evidence = json_object_get(finding, "evidence"), *core = json_object_get(evidence, "core");
	const char *file = json_string_value(json_object_get(core, "file"));

	if (file && pending->entry.file && !strcmp(file, pending->entry.file))
		return false;
	if (!json_is_object(core)) {
		core = json_object();
		if (json_object_set_new(evidence, "core", core))
			return false;
	}
	json_object_set_new(core, "file", pending->entry.file ? json_string(pending->entry.file) : json_null());
	json_object_set_new(core, "truncated",
		json_boolean(pending->entry.truncated || json_is_true(json_object_get(core, "truncated"))));
	json_object_set_new(core, "readable", json_boolean(pending->readable));
	add_advice(finding, &pending->entry);
	return true;
}

static char *or_empty(char *text) {
	return text ? text : (char *)(uintptr_t) "";
}

static int make_finding(const struct coredump_entry *entry, json_t **ret_finding) {
	char *cmdline[] = { or_empty(entry->cmdline), NULL };
	const struct pyspyd_process process = { .pid = entry->pid,
		.name = or_empty(entry->comm),
		.cmdline = cmdline,
		.exe = or_empty(entry->exe),
		.uid = entry->uid,
		.cgroup = or_empty(entry->cgroup),
		.unit = entry->unit };
	struct pyspyd_finding *made;
	char *json;
	int r = pyspyd_crash_unread(&process, entry->signal, &made, NULL);

	if (r)
		return r;
	json = pyspyd_finding_json(made);
	*ret_finding = json ? json_loads(json, 0, NULL) : NULL;
	free(json);
	pyspyd_finding_free(made);
	return *ret_finding ? 0 : -ENOMEM;
}

/* The finding of the core takes over who it is about, and, where there was one before it, which it is. */
static int go_on(json_t *finding, json_t *before, bool told_of) {
	static const char *const same[] = { "id", "since", "process", "fingerprint" };
	size_t n = sizeof(same) / sizeof(same[0]) - !told_of;
	json_t *python = json_object_get(json_object_get(finding, "process"), "python");

	if (json_is_string(python) && json_object_set(json_object_get(before, "process"), "python", python))
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (json_object_set(finding, same[i], json_object_get(before, same[i])))
			return -ENOMEM;
	return json_object_update_missing(json_object_get(finding, "evidence"), json_object_get(before, "evidence"))
		? -ENOMEM
		: 0;
}

static bool has_triage(const json_t *finding) {
	return json_object_get(json_object_get(json_object_get(finding, "evidence"), "core"), "triage") != NULL;
}

/* Return: 0 and *ret_finding, the caller's; NULL: there is nothing to be told of; negative errno. */
static int choose(const struct pending *pending, json_t *told_of, json_t **ret_finding) {
	json_t *before = json_incref(told_of);
	int r = 0;

	if (!told_of && (pending->finding || coredump_entry_names_python(&pending->entry)))
		r = make_finding(&pending->entry, &before);
	if (r || !pending->finding || has_triage(told_of)) {
		*ret_finding = before;
		return r;
	}
	*ret_finding = json_incref(pending->finding);
	r = go_on(*ret_finding, before, told_of != NULL);
	json_decref(before);
	return r;
}

static int put(const struct pending *pending, json_t *told_of, uint64_t start_ns, struct status *status,
	struct pyspyd_store *store) {
	json_t *finding = NULL;
	int r = choose(pending, told_of, &finding);

	if (!r && finding && add_core(finding, pending)) {
		r = crashes_put(status, store, finding, start_ns, told_of != NULL);
		r = r ? r : 1;
	}
	json_decref(finding);
	return r;
}

/* Return: 1: told of; 0: not yet, or not at all; negative errno. *ret_done: no more is to be done about it. */
static int tell(struct coredumps *coredumps, struct pending *pending, const struct config_crash *config,
	struct status *status, struct pyspyd_store *store, bool *ret_done) {
	const struct coredump_entry *entry = &pending->entry;
	bool late = now_real_ns() - pending->since_ns >= WAIT_NS;
	json_t *told_of = NULL;
	uint64_t start_ns = 0;
	int r = crashes_find(store, entry->pid, entry->time_real_ns, &told_of, &start_ns);
	bool python = r == 1 || coredump_entry_names_python(entry);

	if (r < 0)
		return r;
	if ((python && !has_triage(told_of) && read_core(coredumps, pending, config)) || (!told_of && !late)) {
		json_decref(told_of);
		return 0;
	}
	r = put(pending, told_of, start_ns, status, store);
	*ret_done = r >= 0;
	json_decref(told_of);
	return r;
}

int coredumps_take(struct coredumps *coredumps, const struct config_crash *config, struct status *status,
	struct pyspyd_store *store) {
	int r = read_journal(coredumps, config->max_core), told = 0;
	size_t left = 0;

	take_read(coredumps);
	for (size_t i = 0; i < coredumps->pending_n; i++) {
		bool done = false;

		if (r >= 0)
			r = tell(coredumps, &coredumps->pending[i], config, status, store, &done);
		told += r > 0;
		if (done)
			pending_deinit(&coredumps->pending[i]);
		else
			coredumps->pending[left++] = coredumps->pending[i];
	}
	coredumps->pending_n = left;
	return r < 0 ? r : told;
}
