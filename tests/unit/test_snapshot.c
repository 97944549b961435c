/* SPDX-License-Identifier: MIT */
/* The file of a snapshot: its bytes, damage at every tenth of it, versions; and each document into what it was made of
 * and back, with every member set. */
#include "engine/snapshot/archive.h"
#include "engine/waits/graph.h"
#include "engine/waits/knots.h"
#include "pyspyd/core.h"
#include "pyspyd/snapshot.h"
#include "pyspyd/triage.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define S(s) ((char *)(uintptr_t)(s)) /* nobody writes to them */

/* The file */

static int new_file(void) {
	int fd = memfd_create("snapshot", MFD_CLOEXEC);

	cr_assert_geq(fd, 0);
	return fd;
}

static void fill_random(char *data, size_t len) {
	uint64_t state = 88172645463325252ULL;

	for (size_t i = 0; i < len; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		data[i] = (char)state;
	}
}

#define BIG 100000

static int write_file(void) {
	static char big[BIG];
	struct archive_writer writer;
	int fd = new_file();

	fill_random(big, sizeof(big));
	cr_assert_eq(archive_begin(fd, &writer), 0);
	cr_assert_eq(archive_add(&writer, "first", ARCHIVE_DOCUMENT, "{\"a\":1}", 7), 0);
	cr_assert_eq(archive_add(&writer, "empty", ARCHIVE_DOCUMENT, "", 0), 0);
	cr_assert_eq(archive_add(&writer, "gone", ARCHIVE_REASON, "why", 3), 0);
	cr_assert_eq(archive_add(&writer, "big", ARCHIVE_DOCUMENT, big, sizeof(big)), 0);
	cr_assert_eq(archive_end(&writer), 0);
	archive_writer_deinit(&writer);
	return fd;
}

static off_t size_of(int fd) {
	struct stat st;

	cr_assert_eq(fstat(fd, &st), 0);
	return st.st_size;
}

static void put_at(int fd, off_t at, const void *data, size_t len) {
	cr_assert_eq(pwrite(fd, data, len, at), (ssize_t)len);
}

static int opened(int fd, struct archive *archive, struct err *err) {
	*err = (struct err){ 0 };
	return archive_open(dup(fd), archive, err);
}

Test(snapshot, sections_come_back) {
	struct archive archive;
	struct err err;
	int fd = write_file();
	char *data;

	cr_assert_eq(opened(fd, &archive, &err), 0, "%s", err.text);
	cr_assert_eq(archive.version, ARCHIVE_VERSION);
	cr_assert_eq(archive.sections.n, 4);
	cr_assert_eq(archive_read(&archive, archive_find(&archive, "first"), &data, &err), 0);
	cr_assert_str_eq(data, "{\"a\":1}");
	free(data);
	cr_assert_eq(archive_read(&archive, archive_find(&archive, "empty"), &data, &err), 0);
	cr_assert_str_eq(data, "");
	free(data);
	cr_assert_eq(archive_find(&archive, "gone")->kind, ARCHIVE_REASON);
	cr_assert_eq(archive_find(&archive, "big")->bytes, BIG);
	cr_assert_eq(archive_read(&archive, archive_find(&archive, "big"), &data, &err), 0);
	free(data);
	cr_assert_null(archive_find(&archive, "other"));
	archive_close(&archive);
	close(fd);
}

Test(snapshot, cut_off_at_every_tenth) {
	struct archive archive;
	struct err err;
	int fd = write_file();
	off_t size = size_of(fd);

	for (int tenth = 9; tenth >= 0; tenth--) {
		cr_assert_eq(ftruncate(fd, size * tenth / 10), 0);
		cr_assert_eq(opened(fd, &archive, &err), -EBADMSG);
		cr_assert(strstr(err.text, "cut off"), "%s", err.text);
	}
	close(fd);
}

/* Whatever byte is another one, it is noticed: in the table when the file is opened, in a section when that is read. */
Test(snapshot, damaged_anywhere) {
	int fd = write_file();
	off_t size = size_of(fd);

	for (off_t at = 0; at < size; at += at < 64 || at > size - 300 ? 1 : 97) {
		bool bad = at >= 12 && at < 16; /* nobody reads those */
		struct archive archive;
		struct err err;
		char byte, other;

		cr_assert_eq(pread(fd, &byte, 1, at), 1);
		other = (char)(byte ^ 0x10);
		put_at(fd, at, &other, 1);
		if (opened(fd, &archive, &err)) {
			bad = true;
			cr_assert(err.text[0]);
		} else {
			for (size_t i = 0; i < archive.sections.n; i++) {
				char *data = NULL;

				bad |= archive_read(&archive, &archive.sections.items[i], &data, &err) != 0;
				free(data);
			}
			archive_close(&archive);
		}
		cr_assert(bad, "byte %lld", (long long)at);
		put_at(fd, at, &byte, 1);
	}
	close(fd);
}

Test(snapshot, of_a_newer_version) {
	struct archive archive;
	struct err err;
	int fd = write_file();

	put_at(fd, ARCHIVE_MAGIC_LEN, (const uint32_t[]){ ARCHIVE_VERSION + 1 }, 4);
	cr_assert_eq(opened(fd, &archive, &err), -EPROTO);
	cr_assert(strstr(err.text, "newer"), "%s", err.text);
	put_at(fd, ARCHIVE_MAGIC_LEN, (const uint32_t[]){ 0 }, 4);
	cr_assert_eq(opened(fd, &archive, &err), -EBADMSG);
	put_at(fd, 0, "\x7f", 1);
	cr_assert_eq(opened(fd, &archive, &err), -EBADMSG);
	cr_assert(strstr(err.text, "no snapshot"), "%s", err.text);
	close(fd);
}

Test(snapshot, more_than_announced) {
	struct archive archive;
	struct archive_section section;
	struct err err;
	int fd = write_file();
	char *data = NULL;

	cr_assert_eq(opened(fd, &archive, &err), 0);
	section = *archive_find(&archive, "big");
	section.bytes = BIG - 1;
	cr_assert_eq(archive_read(&archive, &section, &data, &err), -EBADMSG);
	section.bytes = BIG + 1;
	cr_assert_eq(archive_read(&archive, &section, &data, &err), -EBADMSG);
	cr_assert_null(data);
	archive_close(&archive);
	close(fd);
}

Test(snapshot, too_much_is_not_written) {
	struct archive_writer writer;
	int fd = new_file();

	cr_assert_eq(archive_begin(fd, &writer), 0);
	cr_assert_eq(archive_add(&writer, "huge", ARCHIVE_DOCUMENT, "", ARCHIVE_BYTES_MAX + 1), -E2BIG);
	archive_writer_deinit(&writer);
	close(fd);
}

Test(snapshot, not_a_regular_file) {
	struct pyspyd_snapshot *snapshot = NULL;
	struct err err = { 0 };

	cr_assert_eq(pyspyd_snapshot_open("/dev/null", &snapshot, &err), -EINVAL);
	cr_assert_eq(pyspyd_snapshot_open("/no/such/file", &snapshot, &err), -ENOENT);
	cr_assert(strstr(err.text, "/no/such/file"));
	cr_assert_null(snapshot);
}

/* Documents */

static struct pyspyd_local some_locals[] = {
	{ .name = S("x"), .type = S("int"), .value = S("1") },
	{ .name = S("pass\nword"), .type = S("str"), .value = S("***"), .masked = true },
};

static struct pyspyd_frame frames[] = {
	{ .lang = PYSPYD_KERNEL, .function = S("futex_wait"), .qualname = S("futex_wait"), .module = S("") },
	{ .lang = PYSPYD_NATIVE,
		.function = S("take\x1b[2J"),
		.qualname = S("take\x1b[2J"),
		.file = S("take.c"),
		.module = S("/usr/lib/libx.so"),
		.line = 7,
		.inlined = true,
		.doubt = PYSPYD_DOUBT_FRAME_POINTER },
	{ .lang = PYSPYD_PYTHON,
		.function = S("run"),
		.qualname = S("Worker.run"),
		.file = S("/srv/\xe2\x80\xae.py"),
		.module = S("app"),
		.line = 12,
		.locals = some_locals,
		.locals_n = 2 },
	{ .lang = PYSPYD_PYTHON,
		.function = S("<module>"),
		.qualname = S("<module>"),
		.file = S("app.py"),
		.module = S("__main__"),
		.locals = some_locals },
};

static struct pyspyd_exception linked = {
	.type = S("KeyError"), .message = NULL, .repeated = true, .incomplete = true
};

static struct pyspyd_exception members[] = {
	{ .type = S("A"), .message = S(""), .own_str = true, .context = &linked },
	{ .type = S("B"), .message = S("b") },
};

static struct pyspyd_exception exceptions[] = {
	{ .state = PYSPYD_EXCEPTION_RAISED,
		.type = S("app.Error"),
		.message = S("no\nport\x1b"),
		.notes = (char *[]){ S("one"), S("") },
		.notes_n = 2,
		.traceback = frames,
		.traceback_n = 4,
		.traceback_gap = 1,
		.traceback_omitted = 99,
		.cause = &linked },
	{ .state = PYSPYD_EXCEPTION_HANDLED,
		.type = S("ExceptionGroup"),
		.message = S("several"),
		.members = members,
		.members_n = 2,
		.members_total = 20 },
};

static struct pyspyd_thread threads[] = {
	{ .tid = 4711,
		.ident = UINT64_MAX - 5,
		.name = S("MainThread"),
		.state = 'S',
		.gil = PYSPYD_GIL_HELD,
		.in_gc = true,
		.frames = frames,
		.frames_n = 4,
		.exceptions_known = true,
		.exceptions = exceptions,
		.exceptions_n = 2,
		.truncated = true,
		.incomplete = true,
		.native = true,
		.native_end = "no unwind information",
		.disagree = true,
		.stopped_ns = 123456 },
	{ .ident = 7,
		.name = S(""),
		.state = '?',
		.gil = PYSPYD_GIL_WAITING,
		.exceptions_known = true,
		.interpreter = 3 },
	{ .tid = 5, .name = S("pool"), .gil = PYSPYD_GIL_UNKNOWN, .interpreter = -1, .native = true },
};

static struct pyspyd_register registers[] = { { "rip", 0 }, { "rsp", UINT64_MAX } };

static struct pyspyd_triage triage = { .cause = "null-pointer",
	.statements = { { S("It read at 0."), NULL }, { S("A caf\xc3\xa9."), "no guess" } },
	.statements_n = 2 };

static struct pyspyd_core core = { .path = S("/var/core\n"),
	.tid = 4711,
	.signal = 11,
	.signal_name = S("SIGSEGV"),
	.code = -6,
	.reason = "address not mapped",
	.has_address = true,
	.has_sender = true,
	.sender = 7,
	.sender_uid = 1000,
	.registers = registers,
	.registers_n = 2,
	.bytes = 5,
	.expected_bytes = 6,
	.missing = (char *[]){ S("/a"), S("/b") },
	.missing_n = 2,
	.different = (char *[]){ S("/c\x1b") },
	.different_n = 1,
	.unverified_n = 3,
	.triage = &triage };

static struct pyspyd_process some_process(void) {
	static char *cmdline[] = { S("python3"), S("app.py"), S("--x"), NULL };

	return (struct pyspyd_process){ .pid = 4711,
		.start_real_ns = 1763744092040000001,
		.name = S("python3"),
		.cmdline = cmdline,
		.exe = S("/usr/bin/python3"),
		.python = S("3.13.1t"),
		.uid = 1000,
		.cgroup = S("/a"),
		.container = S(""),
		.unit = NULL };
}

/* Reads a document and writes it again. */
#define CHECK_ROUND_TRIP(kind, json) \
	({ \
		struct pyspyd_##kind *_read = NULL; \
		struct err _err = { 0 }; \
		char *_again; \
		cr_assert_not_null(json); \
		cr_assert_eq(pyspyd_##kind##_of_json(json, strlen(json), &_read, &_err), 0, "%s", _err.text); \
		_again = pyspyd_##kind##_json(_read); \
		cr_assert_str_eq(_again, json); \
		free(_again); \
		_read; \
	})

/* Each member left out, in turn, is named; and so is one of another kind. What is cut off is no JSON. */
#define CHECK_DAMAGE(kind, json) \
	do { \
		for (size_t _n = strlen(json), _i = 0; _i < 10; _i++) { \
			struct pyspyd_##kind *_read = NULL; \
			struct err _err = { 0 }; \
			cr_assert_eq(pyspyd_##kind##_of_json(json, _n *_i / 10, &_read, &_err), -EBADMSG); \
			cr_assert(_err.text[0]); \
		} \
		for (const char *_at = json; (_at = strstr(_at, "\":")); _at++) { \
			struct pyspyd_##kind *_read = NULL; \
			struct err _err = { 0 }; \
			char *_copy = strdup(json); \
			_copy[_at - json - 1] = '~'; \
			if (!pyspyd_##kind##_of_json(_copy, strlen(_copy), &_read, &_err)) { \
				char *_again = pyspyd_##kind##_json(_read); \
				free(_again); \
				pyspyd_##kind##_free(_read); \
			} else { \
				cr_assert(strstr(_err.text, "missing") || strstr(_err.text, "is "), "%s", _err.text); \
			} \
			free(_copy); \
		} \
	} while (0)

static struct pyspyd_loop loops[] = {
	{ .address = 0x7f01, .tid = 4711, .polling = true, .ready = 1, .scheduled = 2, .overdue = 1, .tasks = 2 },
	{ .address = 0x7f02, .tasks = 1 },
};

static struct pyspyd_task_holder holders[] = { { .task = 0, .why = S("its code") }, { .task = 2 } };

static struct pyspyd_task tasks[] = {
	{ .address = 0x10,
		.name = S("Task-1"),
		.state = PYSPYD_TASK_RUNNING,
		.frames = frames,
		.frames_n = 4,
		.site = 2 },
	{ .address = 0x20,
		.name = S(""),
		.loop = 1,
		.state = PYSPYD_TASK_WAITING,
		.waits_for = S("Lock"),
		.address_waited = 0x99,
		.expression = S("self.lock"),
		.timed = true,
		.holders = holders,
		.holders_n = 2,
		.awaiters = (uint32_t[]){ 2 },
		.awaiters_n = 1 },
	{ .address = 0x30,
		.name = S("Task-3"),
		.state = PYSPYD_TASK_WAITING,
		.waits_for = S("gather"),
		.targets = (uint32_t[]){ 1, 0 },
		.targets_n = 2 },
};

static struct pyspyd_dump some_dump(void) {
	return (struct pyspyd_dump){ .process = some_process(),
		.threads = threads,
		.threads_n = 3,
		.async = true,
		.loops = loops,
		.loops_n = 2,
		.tasks = tasks,
		.tasks_n = 3,
		.tasks_truncated = true };
}

Test(snapshot, dump_and_back) {
	struct pyspyd_dump dump = some_dump(), *read;
	char *json = pyspyd_dump_json(&dump), *text = pyspyd_dump_text(&dump, true), *again;

	read = CHECK_ROUND_TRIP(dump, json);
	again = pyspyd_dump_text(read, true);
	cr_assert_str_eq(again, text);
	free(again);
	free(text);
	pyspyd_dump_free(read);
	CHECK_DAMAGE(dump, json);
	free(json);
}

Test(snapshot, dump_without_tasks) {
	struct pyspyd_dump dump = { .process = some_process(), .threads = threads, .threads_n = 2 };
	char *json = pyspyd_dump_json(&dump);

	pyspyd_dump_free(CHECK_ROUND_TRIP(dump, json));
	free(json);
}

static void expect_error(const char *json, const char *words, int r) {
	struct pyspyd_dump *dump = NULL;
	struct err err = { 0 };

	cr_assert_eq(pyspyd_dump_of_json(json, strlen(json), &dump, &err), r);
	cr_assert(strstr(err.text, words), "%s", err.text);
}

Test(snapshot, dump_of_a_core) {
	struct pyspyd_dump dump = { .process = some_process(), .threads = threads, .threads_n = 3 }, *read;

	dump.process.core = &core;
	for (int i = 0; i < 2; i++) {
		char *json = pyspyd_dump_json(&dump), *text = pyspyd_dump_text(&dump, true), *again;

		read = CHECK_ROUND_TRIP(dump, json);
		again = pyspyd_dump_text(read, true);
		cr_assert_str_eq(again, text);
		pyspyd_dump_free(read);
		CHECK_DAMAGE(dump, json);
		free(again);
		free(text);
		free(json);
		core = (struct pyspyd_core){ .path = S("core") };
	}
}

Test(snapshot, words_steer_no_terminal) {
	struct pyspyd_dump dump = { .process = some_process(), .threads = threads, .threads_n = 1 };
	char *json = pyspyd_dump_json(&dump), *at = strstr(json, "no unwind information");

	cr_assert_not_null(at);
	memcpy(at, "\\u001b[2J", 9);
	expect_error(json, "\"why\" is no word", -EBADMSG);
	free(json);
}

Test(snapshot, what_is_wrong_is_named) {
	struct pyspyd_dump dump = some_dump();
	char *json = pyspyd_dump_json(&dump), *at;

	expect_error("{\"schema\":\"pyspyd.dump/2\"}", "newer", -EPROTO);
	expect_error("{\"schema\":\"pyspyd.heap/1\"}", "another document", -EBADMSG);
	expect_error("{\"schema\":\"pyspyd.dump/1\"}", "\"process\" is missing", -EBADMSG);
	expect_error("[]", "no JSON object", -EBADMSG);
	expect_error("{", "no JSON object", -EBADMSG);
	at = strstr(json, "\"inlined\"");
	at = strstr(at, "\"function\"");
	memcpy(at, "\"funktion\"", 10);
	expect_error(json, "threads[0].stack[2]: \"function\" is missing", -EBADMSG);
	memcpy(at, "\"function\"", 10);
	at = strstr(json, "\"targets\"") ? NULL : strstr(json, "\"tasks\":[{\"id\":1");
	cr_assert_not_null(at);
	at[15] = '9';
	expect_error(json, "none of the tasks", -EBADMSG);
	free(json);
}

Test(snapshot, members_of_later_versions_do_not_matter) {
	struct pyspyd_dump dump = { .process = some_process(), .threads = threads, .threads_n = 2 }, *read = NULL;
	char *json = pyspyd_dump_json(&dump), *longer = NULL, *again;
	struct err err = { 0 };

	cr_assert_gt(asprintf(&longer, "{\"later\":[{\"x\":null}],%s", json + 1), 0);
	cr_assert_eq(pyspyd_dump_of_json(longer, strlen(longer), &read, &err), 0, "%s", err.text);
	again = pyspyd_dump_json(read);
	cr_assert_str_eq(again, json);
	pyspyd_dump_free(read);
	free(again);
	free(longer);
	free(json);
}

static struct pyspyd_heap some_heap(uint64_t between_ns) {
	static struct pyspyd_heap_type types[] = {
		{ .type = S("app.Order"),
			.count = 3,
			.bytes = 288,
			.grew_count = -1,
			.grew_bytes = -96,
			.kept_by = S("app.ORDERS"),
			.kept_share = 0.984 },
		{ .type = S("str"), .count = 1, .bytes = 50 },
	};
	static struct pyspyd_heap_container containers[] = {
		{ .path = S("app.X"), .type = S("list"), .address = 0x7f, .length = 9, .bytes = 80, .grew = 4 },
		{ .type = S("dict"), .address = 0x80, .length = 64, .bytes = 99, .is_new = true },
	};
	static struct pyspyd_heap_line lines[] = {
		{ .file = S("a.py"), .line = 3, .count = 1, .bytes = 2, .grew_count = 1, .grew_bytes = -2 },
	};
	static struct pyspyd_heap_mapping mappings[] = {
		{ .name = S("[heap]"), .mappings = 1, .bytes = 4096, .grew_mappings = 1, .grew_bytes = -4096 },
	};
	int64_t sign = between_ns ? 1 : 0;

	return (struct pyspyd_heap){ .process = some_process(),
		.types = types,
		.types_n = 2,
		.types_all = 99,
		.containers = containers,
		.containers_n = 2,
		.lines = lines,
		.lines_n = 1,
		.mappings = mappings,
		.mappings_n = 1,
		.private_bytes = 8192,
		.grew_private = -sign,
		.objects = 4,
		.object_bytes = 338,
		.grew_objects = 7 * sign,
		.grew_bytes = -8 * sign,
		.large = 5,
		.pool_bytes = 6,
		.blocks = 7,
		.other_bytes = 8,
		.free_bytes = UINT64_MAX,
		.grew_other = 9 * sign,
		.grew_free = -10 * sign,
		.moved = 11,
		.cost_ns = 12345678,
		.paths_ns = 2345678,
		.between_ns = between_ns,
		.incomplete = true };
}

Test(snapshot, heap_and_back) {
	for (uint64_t between_ns = 0; between_ns < 3000000000; between_ns += 1500000000) {
		struct pyspyd_heap heap = some_heap(between_ns), *read;
		char *json = pyspyd_heap_json(&heap), *text = pyspyd_heap_text(&heap, false), *again;

		read = CHECK_ROUND_TRIP(heap, json);
		again = pyspyd_heap_text(read, false);
		cr_assert_str_eq(again, text);
		pyspyd_heap_free(read);
		CHECK_DAMAGE(heap, json);
		free(again);
		free(text);
		free(json);
	}
}

Test(snapshot, modules_and_back) {
	static struct pyspyd_module modules[] = {
		{ .interpreter = 0, .name = S("sys"), .file = S(""), .kind = PYSPYD_MODULE_BUILTIN },
		{ .interpreter = 2,
			.name = S("app"),
			.file = S("/srv/app.py"),
			.kind = PYSPYD_MODULE_FILE,
			.version = S("1.2"),
			.version_from = "distribution",
			.distribution = S("App"),
			.also = S("__main__"),
			.expected = S("1.3") },
		{ .name = S("ns"), .file = S(""), .kind = PYSPYD_MODULE_NONE },
	};
	static struct pyspyd_library libraries[] = {
		{ .path = S("/lib/a.so"),
			.soname = S("a.so"),
			.build_id = S("00ff"),
			.address = 0x1000,
			.deleted = true,
			.same_as = S("/lib/b.so"),
			.other_version = S("/lib/c.so") },
		{ .path = S("/lib/d.so"), .address = 0x2000 },
	};
	static struct pyspyd_expected expected[] = {
		{ .name = S("app"),
			.version = S("1.3"),
			.line = 4,
			.state = PYSPYD_EXPECTED_OTHER,
			.found = S("1.2"),
			.file = S("/srv/app.py") },
		{ .name = S("x"), .version = S("2"), .line = 5, .state = PYSPYD_EXPECTED_NOT_IMPORTED },
	};
	struct pyspyd_modules all = { .process = some_process(),
		.interpreters = 2,
		.modules = modules,
		.modules_n = 3,
		.libraries = libraries,
		.libraries_n = 2,
		.expects = true,
		.expected = expected,
		.expected_n = 2,
		.incomplete = true };

	for (int i = 0; i < 3; i++) {
		char *json = pyspyd_modules_json(&all), *text = pyspyd_modules_text(&all, true, true), *again;
		struct pyspyd_modules *read = CHECK_ROUND_TRIP(modules, json);

		again = pyspyd_modules_text(read, true, true);
		cr_assert_str_eq(again, text);
		pyspyd_modules_free(read);
		CHECK_DAMAGE(modules, json);
		free(again);
		free(text);
		free(json);
		all.expects = i == 0;
		all.expected_n = 0;
	}
}

static struct pyspyd_handle_group groups[] = {
	{ .what = PYSPYD_HANDLE_DESCRIPTOR,
		.kind = "socket",
		.target = S("tcp to 10.1.2.3:5432"),
		.count = 3,
		.grew = -1,
		.ids = { 3, 4, 5 },
		.ids_n = 3,
		.created = frames,
		.created_n = 4 },
	{ .what = PYSPYD_HANDLE_THREAD, .kind = "python", .target = S(""), .count = 1, .ids = { 4711 }, .ids_n = 1 },
	{ .what = PYSPYD_HANDLE_MAPPING,
		.kind = "heap",
		.target = S(""),
		.count = 1,
		.bytes = 4096,
		.grew = 1,
		.grew_bytes = 4096 },
};

static struct pyspyd_handle_thread handle_threads[] = {
	{ .thread = { .tid = 4711, .name = S("Main"), .state = 'S', .frames = frames, .frames_n = 4 },
		.python = true,
		.age_ns = 1500000000,
		.runs = 2,
		.start = 3,
		.created = frames,
		.created_n = 1 },
	{ .thread = { .tid = 5, .name = S("x"), .state = 'R', .frames = frames, .frames_n = 4 },
		.age_ns = UINT64_MAX,
		.runs = 99,
		.start = 0 },
	{ .thread = { .name = S("y") }, .runs = 0, .start = 0 },
};

static struct pyspyd_origin places[] = {
	{ .what = PYSPYD_HANDLE_MAPPING,
		.kind = "anonymous",
		.call = "mmap",
		.count = 2,
		.bytes = 8192,
		.share = 0.75,
		.youngest_ns = 1000000,
		.oldest_ns = 2000000,
		.ids = { 1 },
		.ids_n = 1,
		.frames = frames,
		.frames_n = 4,
		.own = 2 },
	{ .what = PYSPYD_HANDLE_CHILD, .kind = "process", .call = "fork", .count = 1, .share = 0.25 },
};

static struct pyspyd_made made[] = {
	{ .what = PYSPYD_HANDLE_MAPPING, .id = 0x7f00, .bytes = 4096, .age_ns = 1000000, .origin = 0 },
	{ .what = PYSPYD_HANDLE_CHILD, .id = 12, .age_ns = UINT64_MAX, .origin = 1 },
};

Test(snapshot, handles_and_back) {
	static struct pyspyd_handle_child children[] = {
		{ .pid = 7, .name = S("sh"), .state = 'Z', .age_ns = 2000000000 },
	};
	struct pyspyd_origins origins = { .watched_ns = 10000000000,
		.left_out = 3,
		.paused_ns = 2000000000,
		.places = places,
		.places_n = 2,
		.made = made,
		.made_n = 2,
		.unseen = { 1, 2, 3, 4 } };
	struct pyspyd_handles all = { .process = some_process(),
		.between_ns = 1500000000,
		.descriptors = 3,
		.descriptors_limit = 1024,
		.descriptors_limit_hard = UINT64_MAX,
		.mappings = 1,
		.mapped_bytes = 4096,
		.groups = groups,
		.groups_n = 3,
		.threads = handle_threads,
		.threads_n = 3,
		.children = children,
		.children_n = 1,
		.cgroup = { .memory_bytes = 1,
			.memory_limit_bytes = UINT64_MAX,
			.tasks = 3,
			.tasks_limit = 4,
			.periods = 5,
			.throttled_periods = 2,
			.throttled_ns = 7000000,
			.memory_some_pct = 1.25,
			.memory_full_pct = -1 },
		.origins = &origins,
		.incomplete = true };

	for (int i = 0; i < 3; i++) {
		char *json = pyspyd_handles_json(&all), *text = pyspyd_handles_text(&all, true), *again;
		struct pyspyd_handles *read = CHECK_ROUND_TRIP(handles, json);

		again = pyspyd_handles_text(read, true);
		cr_assert_str_eq(again, text);
		pyspyd_handles_free(read);
		CHECK_DAMAGE(handles, json);
		free(again);
		free(text);
		free(json);
		if (i == 0)
			origins = (struct pyspyd_origins){ .why = S("no eBPF here"), .watched_ns = 1000000 };
		else
			all.origins = NULL;
	}
}

/* Waits */

static uint32_t add_node(
	struct pyspyd_waits *waits, struct pyspyd_wait_node node, const char *type, const char *label) {
	uint32_t index;

	node.type = strdup(type);
	node.label = label ? strdup(label) : NULL;
	node.key = 0x1000 + waits->nodes_n;
	node.run_ns = UINT64_MAX;
	cr_assert_eq(waits_add_node(waits, &node, &index), 0);
	return index;
}

static struct pyspyd_frame *copied_frames(void) {
	struct pyspyd_frame *copy = calloc(4, sizeof(*copy));

	for (size_t i = 0; i < 4; i++) {
		copy[i] = frames[i];
		copy[i].function = strdup(frames[i].function);
		copy[i].qualname = strdup(frames[i].qualname);
		copy[i].file = frames[i].file ? strdup(frames[i].file) : NULL;
		copy[i].module = strdup(frames[i].module);
		copy[i].locals = NULL;
		copy[i].locals_n = 0;
	}
	return copy;
}

/* Two threads in each other's locks, one behind them, one that waits for a process without a name, an idle one. */
static struct pyspyd_waits *some_waits(void) {
	struct pyspyd_waits *waits = calloc(1, sizeof(*waits));
	struct pyspyd_wait_node thread = { .kind = PYSPYD_WAIT_THREAD,
		.rule = PYSPYD_WAIT_ANY,
		.pid = 4711,
		.tid = 1,
		.ident = UINT64_MAX - 1,
		.address = 0x77,
		.state = 'S',
		.python = true };
	struct pyspyd_wait_node lock = { .kind = PYSPYD_WAIT_RESOURCE, .rule = PYSPYD_WAIT_ANY, .address = 0x99 };
	uint32_t a, b, c, d, left, right, end;

	left = add_node(waits, lock, "Lock", "Lock 0x99");
	thread.main = true;
	thread.waited_ns = 12500000000;
	thread.native = thread.disagree = true;
	thread.native_end = "it moved";
	thread.frames = copied_frames();
	thread.frames_n = 4;
	thread.site = 2;
	a = add_node(waits, thread, "thread", "MainThread");
	thread.native = thread.disagree = thread.main = false;
	thread.frames = NULL;
	thread.frames_n = 0;
	thread.tid = 2;
	b = add_node(waits, thread, "thread", NULL);
	right = add_node(waits, lock, "RLock", NULL);
	thread.tid = 3;
	thread.timed = thread.retry = true;
	c = add_node(waits, thread, "thread", "T\x1b");
	thread.tid = 0;
	thread.kind = PYSPYD_WAIT_TASK;
	thread.timed = thread.retry = false;
	thread.gil_waiter = true;
	d = add_node(waits, thread, "task", "Task-1");
	end = add_node(waits, (struct pyspyd_wait_node){ .kind = PYSPYD_WAIT_PROCESS, .pid = 77 }, "process-end", NULL);
	thread.kind = PYSPYD_WAIT_THREAD;
	thread.rule = PYSPYD_WAIT_FREE;
	thread.idle = "queue worker";
	thread.pid = 99;
	add_node(waits, thread, "thread", "worker");
	lock.rule = PYSPYD_WAIT_NEVER;
	lock.fault = strdup("its holder, thread 9, has ended");
	cr_assert_eq(waits_add_edge(waits, right, a, NULL, true, "bytecode"), 0);
	cr_assert_eq(waits_add_edge(waits, a, left, "self.x", false, NULL), 0);
	cr_assert_eq(waits_add_edge(waits, left, b, NULL, false, NULL), 0);
	cr_assert_eq(waits_add_edge(waits, b, right, "y", false, NULL), 0);
	cr_assert_eq(waits_add_edge(waits, c, left, NULL, true, "no name"), 0);
	cr_assert_eq(waits_add_edge(waits, d, end, NULL, false, NULL), 0);
	cr_assert_eq(waits_add_edge(waits, c, add_node(waits, lock, "Lock", "Lock 0x12"), NULL, false, NULL), 0);
	cr_assert_eq(knots_find(waits), 0);
	return waits;
}

static void add_rest(struct pyspyd_waits *waits) {
	waits->loops = calloc(1, sizeof(*waits->loops));
	waits->gils = calloc(2, sizeof(*waits->gils));
	waits->loops[waits->loops_n++] = (struct pyspyd_wait_loop){
		.pid = 4711, .tid = 1, .address = 0x5, .polling = true, .ready = 1, .overdue = 2, .tasks = 3
	};
	waits->gils[waits->gils_n++] =
		(struct pyspyd_wait_gil){ .pid = 4711, .interpreter = 1, .holder = 2, .switches = 3, .waiters = 4 };
	waits->gils[waits->gils_n++] = (struct pyspyd_wait_gil){ .pid = 4711 };
	cr_assert_eq(waits_add_note(waits, "a note"), 0);
	waits->cost_ns = 1234000;
	waits->incomplete = true;
}

Test(snapshot, waits_and_back) {
	struct pyspyd_waits *waits = some_waits(), *read;
	char *json, *text, *dot, *again;

	waits->process = some_process();
	add_rest(waits);
	cr_assert_geq(waits->knots_n, 1);
	waits->knots[0].confirmed = true;
	json = pyspyd_waits_json(waits);
	text = pyspyd_waits_text(waits, true);
	dot = pyspyd_waits_dot(waits);
	read = CHECK_ROUND_TRIP(waits, json);
	again = pyspyd_waits_text(read, true);
	cr_assert_str_eq(again, text);
	free(again);
	again = pyspyd_waits_dot(read);
	cr_assert_str_eq(again, dot);
	free(again);
	pyspyd_waits_free(read);
	CHECK_DAMAGE(waits, json);
	free(json);
	free(text);
	free(dot);
	waits->process = (struct pyspyd_process){ 0 };
	pyspyd_waits_free(waits);
}
