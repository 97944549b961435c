/* SPDX-License-Identifier: MIT */
/* pyspyd_snapshot_take: every look there is at a process, one after the other, each written before the next one begins,
 * so that no more than one document is in memory. The process runs on between them: parts are of moments near each
 * other, not of one.
 *
 * What cannot be taken has its reason in the file. Where already the stacks are not to be had because of what the
 * process is, or who we are, there is no file. */
#include "engine/pipeline/snapshot.h"

#include "engine/base/clock.h"
#include "engine/finding/stack_json.h"
#include "engine/pipeline/describe.h"
#include "engine/pipeline/subject.h"
#include "engine/snapshot/archive.h"
#include "pyspyd/version.h"
#include <errno.h>
#include <string.h>
#include <sys/utsname.h>

#define BETWEEN_NS (200 * NS_PER_MS) /* the two looks of `waits`, as the command has them */

struct take {
	pid_t pid;
	const struct pyspyd_snapshot_options *options;
	struct subject subject; /* of a core: open for as long as it takes */
	struct proc proc;       /* of a core: the subject's */
	struct archive_writer writer;
	char *python;    /* version */
	json_t *process; /* NULL: not known yet */
	json_t *parts;   /* what meta says of them */
	size_t taken;
	int missing; /* what the first part gave that could not be taken */
	struct err missing_err;
	uint64_t began_ns;
};

static const struct condition {
	int r;
	const char *word;
} conditions[] = {
	{ PYSPYD_E_GONE, "gone" },
	{ PYSPYD_E_DENIED, "denied" },
	{ PYSPYD_E_UNSUPPORTED, "unsupported" },
	{ PYSPYD_E_STARTING, "starting" },
	{ -ECANCELED, "stopped" },
	{ -EIO, "failed" },
};

const char *snapshot_condition(int r) {
	for (size_t i = 0; i < ARRAY_SIZE(conditions); i++)
		if (conditions[i].r == r)
			return conditions[i].word;
	return "failed";
}

int snapshot_condition_of(const char *word) {
	for (size_t i = 0; i < ARRAY_SIZE(conditions); i++)
		if (!strcmp(conditions[i].word, word))
			return conditions[i].r;
	return -EIO;
}

/* Parts. Each return: 0 with *ret_json, NULL when out of memory; as the function that looks. */

static int keep_process(struct take *take, const struct pyspyd_process *process) {
	if (take->process)
		return 0;
	take->process = stack_json_process(process);
	take->python = strdup(process->python);
	return take->process && take->python ? 0 : -ENOMEM;
}

static int take_dump(struct take *take, char **ret_json, struct err *err) {
	struct pyspyd_dump_options options = { .locals = true,
		.unmask = take->options->unmask,
		.async = true,
		.native = true,
		.blocking = take->options->blocking,
		.core = take->options->core };
	struct pyspyd_dump *dump = NULL;
	int r = pyspyd_dump(take->pid, &options, &dump, err);

	if (r)
		return r;
	r = keep_process(take, &dump->process);
	*ret_json = r ? NULL : pyspyd_dump_json(dump);
	pyspyd_dump_free(dump);
	return r;
}

static int take_waits(struct take *take, char **ret_json, struct err *err) {
	const struct pyspyd_waits_options options = {
		.between_ns = BETWEEN_NS, .native = true, .core = take->options->core
	};
	struct pyspyd_waits *waits = NULL;
	int r = pyspyd_waits_look(take->pid, &options, &waits, err);

	if (r)
		return r;
	*ret_json = pyspyd_waits_json(waits);
	pyspyd_waits_free(waits);
	return 0;
}

static int take_handles(struct take *take, char **ret_json, struct err *err) {
	const struct pyspyd_handles_options options = { 0 };
	struct pyspyd_handles *handles = NULL;
	int r = pyspyd_handles_look(take->pid, &options, &handles, err);

	if (r)
		return r;
	*ret_json = pyspyd_handles_json(handles);
	pyspyd_handles_free(handles);
	return 0;
}

static int take_modules(struct take *take, char **ret_json, struct err *err) {
	const struct pyspyd_modules_options options = { .core = take->options->core };
	struct pyspyd_modules *modules = NULL;
	int r = pyspyd_modules_look(take->pid, &options, &modules, err);

	if (r)
		return r;
	*ret_json = pyspyd_modules_json(modules);
	pyspyd_modules_free(modules);
	return 0;
}

static bool is_stopped(const struct take *take, const char *part) {
	return take->options->progress && take->options->progress(take->options->userdata, part);
}

static bool on_heap(void *userdata, _unused_ uint64_t done_bytes, _unused_ uint64_t all_bytes) {
	return is_stopped(userdata, PYSPYD_SNAPSHOT_HEAP);
}

static int take_heap(struct take *take, char **ret_json, struct err *err) {
	const struct pyspyd_heap_options options = {
		.progress = on_heap, .userdata = take, .core = take->options->core
	};
	struct pyspyd_heap *heap = NULL;
	int r = pyspyd_heap_count(take->pid, &options, &heap, err);

	if (r)
		return r;
	*ret_json = pyspyd_heap_json(heap);
	pyspyd_heap_free(heap);
	return 0;
}

static int take_counters(struct take *take, char **ret_json, _unused_ struct err *err) {
	return snapshot_counters(&take->proc, take->python, ret_json);
}

static int take_maps(struct take *take, char **ret_json, _unused_ struct err *err) {
	return snapshot_maps(&take->proc, take->python, ret_json);
}

static int take_objects(struct take *take, char **ret_json, struct err *err) {
	return snapshot_objects(take->pid, &take->options->core, take->options->unmask, ret_json, err);
}

static const struct part {
	const char *name;
	int (*take)(struct take *take, char **ret_json, struct err *err);
	bool live; /* a core has nothing of it */
} parts[] = {
	{ PYSPYD_SNAPSHOT_DUMP, take_dump, false },
	{ PYSPYD_SNAPSHOT_OBJECTS, take_objects, false },
	{ PYSPYD_SNAPSHOT_WAITS, take_waits, false },
	{ PYSPYD_SNAPSHOT_COUNTERS, take_counters, true },
	{ PYSPYD_SNAPSHOT_HANDLES, take_handles, true },
	{ PYSPYD_SNAPSHOT_MAPS, take_maps, false },
	{ PYSPYD_SNAPSHOT_MODULES, take_modules, false },
	{ PYSPYD_SNAPSHOT_HEAP, take_heap, false },
};

/* The file */

/* What meta says of a part: { name, time, took_s, bytes, stored, condition, text }. */
static int note_part(struct take *take, const char *name, uint64_t began_ns, int r, const struct err *err) {
	const struct archive_section *section = &take->writer.sections.items[take->writer.sections.n - 1];
	json_t *object = json_object();
	bool ok = json_put(true, object, "name", json_text(name));

	ok = json_put(ok, object, "time", json_time(began_ns));
	ok = json_put(ok, object, "took_s", json_real_or_null((double)(clock_real_ns() - began_ns) / 1e9));
	ok = json_put(ok, object, "bytes", json_count(section->bytes));
	ok = json_put(ok, object, "stored", json_count(section->stored));
	ok = json_put(ok, object, "condition", json_text(r ? snapshot_condition(r) : NULL));
	ok = json_put(ok, object, "text", json_text(r ? err->text : NULL));
	return !ok || json_array_append_new(take->parts, object) ? -ENOMEM : 0;
}

static int add_reason(struct take *take, const char *name, int r, const struct err *err) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "schema", json_string(SNAPSHOT_REASON));
	_free_ char *json = NULL;

	ok = json_put(ok, object, "condition", json_string(snapshot_condition(r)));
	ok = json_put(ok, object, "text", json_text(err->text));
	json = json_line(json_done(ok, object));
	return json ? archive_add(&take->writer, name, ARCHIVE_REASON, json, strlen(json)) : -ENOMEM;
}

/* A process of another kind, or of somebody else: that will not be better with the next part. */
static bool is_final(const struct take *take, int r) {
	return !take->taken &&
		(r == PYSPYD_E_GONE || r == PYSPYD_E_DENIED || r == PYSPYD_E_UNSUPPORTED || r == PYSPYD_E_STARTING);
}

/* Return: 0 with *ret_json; what it gave, with a text. Its pid cannot have been given to another process while it is
 * alive. */
static int look(struct take *take, const struct part *part, char **ret_json, struct err *err) {
	_free_ char *json = NULL;
	int r = is_stopped(take, part->name) ? -ECANCELED : part->take(take, &json, err);

	if (!r && !json)
		r = -ENOMEM;
	if ((!r || r == PROC_E_GONE) && !proc_alive(&take->proc))
		return err_set(err, PYSPYD_E_GONE, "process %d ended while the snapshot was taken", (int)take->pid);
	if (!r && strlen(json) > ARCHIVE_BYTES_MAX)
		return err_set(err, -EFBIG, "it has more than %zu MiB", ARCHIVE_BYTES_MAX >> 20);
	if (r == -ECANCELED)
		err_set(err, r, "stopped");
	else if (r && !err->text[0])
		err_set(err, r, "%s", r < 0 ? strerror(-r) : "it could not be read");
	if (!r)
		*ret_json = take_ptr(json);
	return r;
}

/* Return: 0, also where the part is missing; what ends it all, with a text. */
static int add_part(struct take *take, const struct part *part, struct err *err) {
	uint64_t began_ns = clock_real_ns();
	_free_ char *json = NULL;
	struct err why = { 0 };
	int missing = look(take, part, &json, &why), r;

	if (missing && is_final(take, missing)) {
		if (err)
			*err = why;
		return missing;
	}
	r = missing || !json ? add_reason(take, part->name, missing, &why)
			     : archive_add(&take->writer, part->name, ARCHIVE_DOCUMENT, json, strlen(json));
	if (!r)
		r = note_part(take, part->name, began_ns, missing, &why);
	if (r)
		return err_set(err, r, "writing the snapshot: %s", strerror(-r));
	take->taken += !missing;
	if (missing && !take->missing) {
		take->missing = missing;
		take->missing_err = why;
	}
	if (missing && take->options->missing)
		take->options->missing(take->options->userdata, part->name, &why);
	return 0;
}

static json_t *system_json(const struct take *take) {
	struct utsname names = { 0 };
	json_t *object = json_object();
	bool ok = object != NULL;

	uname(&names);
	ok = json_put(ok, object, "schema", json_string("pyspyd.snapshot/1"));
	ok = json_put(ok, object, "time", json_time(take->began_ns));
	ok = json_put(ok, object, "took_s", json_real_or_null((double)(clock_real_ns() - take->began_ns) / 1e9));
	ok = json_put(ok, object, "host", json_text(names.nodename));
	ok = json_put(ok, object, "kernel", json_text(names.release));
	ok = json_put(ok, object, "machine", json_text(names.machine));
	ok = json_put(ok, object, "pyspyd", json_string(PYSPYD_VERSION));
	ok = json_put(ok, object, "masked", json_boolean(!take->options->unmask));
	return json_done(ok, object);
}

static int add_meta(struct take *take) {
	json_t *object = system_json(take);
	_free_ char *json = NULL;
	bool ok = json_put(true, object, "process", json_incref(take->process));

	ok = json_put(ok, object, "parts", json_incref(take->parts));
	json = json_line(json_done(ok, object));
	return json ? archive_add(&take->writer, PYSPYD_SNAPSHOT_META, ARCHIVE_DOCUMENT, json, strlen(json)) : -ENOMEM;
}

/* Where the stacks did not tell who it is. */
static int know_process(struct take *take) {
	struct pyspyd_process process = { 0 };
	int r = take->process ? 0 : describe_process(&take->proc, "", &process);

	if (!r && !take->process)
		r = keep_process(take, &process);
	pyspyd_process_deinit(&process);
	return r;
}

static int add_all(struct take *take, struct err *err) {
	int r = archive_begin(take->writer.fd, &take->writer);

	if (r)
		return err_set(err, r, "writing the snapshot: %s", strerror(-r));
	for (size_t i = 0; !r && i < ARRAY_SIZE(parts); i++) {
		if (parts[i].live && take->options->core.core)
			continue;
		r = add_part(take, &parts[i], err);
		if (!r && know_process(take))
			return err_set(err, PYSPYD_E_GONE, "process %d has ended", (int)take->pid);
	}
	if (r)
		return r;
	r = add_meta(take);
	if (!r)
		r = archive_end(&take->writer);
	return r ? err_set(err, r, "writing the snapshot: %s", strerror(-r)) : 0;
}

static int open_process(struct take *take, struct err *err) {
	int r;

	if (take->options->core.core) {
		r = subject_open(0, &take->options->core, 0, &take->subject, err);
		if (r)
			return r;
		take->proc = take->subject.target->proc;
		take->pid = take->proc.pid;
		return 0;
	}
	r = proc_open("/proc", take->pid, &take->proc);
	if (r)
		return r == PROC_E_GONE ? err_set(err, PYSPYD_E_GONE, "no process %d", (int)take->pid)
					: err_set(err, r, "process %d: %s", (int)take->pid, strerror(-r));
	return 0;
}

static void close_process(struct take *take) {
	if (take->options->core.core)
		subject_close(&take->subject);
	else
		proc_close(&take->proc);
}

int pyspyd_snapshot_take(
	pid_t pid, const struct pyspyd_snapshot_options *options, int fd, bool *ret_taken, struct err *err) {
	struct take take = { .pid = pid, .options = options, .writer.fd = fd, .began_ns = clock_real_ns() };
	int r = open_process(&take, err);

	*ret_taken = false;
	if (r)
		return r;
	take.parts = json_array();
	r = take.parts ? add_all(&take, err) : -ENOMEM;
	*ret_taken = !r && take.taken;
	if (!r && take.missing) {
		r = take.missing;
		if (err)
			*err = take.missing_err;
	}
	archive_writer_deinit(&take.writer);
	json_decref(take.process);
	json_decref(take.parts);
	free(take.python);
	close_process(&take);
	return r;
}
