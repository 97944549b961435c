/* SPDX-License-Identifier: MIT */
/* Snapshots that somebody else wrote. Byte 0 chooses what the rest is: a whole file; the rows of its table, with all
 * checksums right; or a document, which is read, written in every way, and read again: what was written first must come
 * back. */
#include "engine/snapshot/archive.h"
#include "pyspyd/snapshot.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#define TAIL_BYTES 32
#define ROW_BYTES 56
#define HEAD_BYTES 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int new_file(void) {
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0)
		abort();
	return fd;
}

static void put(int fd, const void *data, size_t len) {
	if (len && write(fd, data, len) != (ssize_t)len)
		abort();
}

static void read_file(int fd) {
	struct archive archive;
	struct err err = { 0 };

	if (archive_open(fd, &archive, &err)) {
		if (!err.text[0])
			abort();
		return;
	}
	vec_foreach (section, &archive.sections) {
		char *bytes = NULL;

		if (!archive_read(&archive, section, &bytes, &err) && bytes[section->bytes])
			abort();
		free(bytes);
	}
	archive_close(&archive);
}

static void read_whole(const uint8_t *data, size_t size) {
	int fd = new_file();

	put(fd, data, size);
	read_file(fd);
}

/* The bytes are rows, behind something that they may point to. */
static void read_rows(const uint8_t *data, size_t size) {
	uint32_t rows = (uint32_t)(size / ROW_BYTES), checksum = (uint32_t)crc32(0, data, rows * ROW_BYTES);
	uint64_t table = HEAD_BYTES + 64, whole = table + rows * ROW_BYTES + TAIL_BYTES;
	int fd = new_file();

	put(fd, ARCHIVE_MAGIC "\x01\0\0\0\0\0\0", HEAD_BYTES);
	put(fd, (const char[64]){ 0x28, (char)0xb5, 0x2f, (char)0xfd, 0x20, 0x01, 0x09, 0, 0, 'x' }, 64);
	put(fd, data, rows * ROW_BYTES);
	put(fd, &table, sizeof(table));
	put(fd, &rows, sizeof(rows));
	put(fd, &checksum, sizeof(checksum));
	put(fd, &whole, sizeof(whole));
	put(fd, ARCHIVE_MAGIC_END, ARCHIVE_MAGIC_LEN);
	read_file(fd);
}

/* What was read and written is the same when that is read and written: of rounded numbers too. */
#define CHECK(kind, json, len, ...) \
	do { \
		struct pyspyd_##kind *_one = NULL, *_two = NULL; \
		struct err _err = { 0 }; \
		char *_first, *_second; \
		if (pyspyd_##kind##_of_json(json, len, &_one, &_err)) \
			break; \
		_first = pyspyd_##kind##_json(_one); \
		free(pyspyd_##kind##_text(_one, ##__VA_ARGS__, true)); \
		if (!_first) \
			abort(); \
		if (pyspyd_##kind##_of_json(_first, strlen(_first), &_two, &_err)) \
			abort(); \
		_second = pyspyd_##kind##_json(_two); \
		if (!_second || strcmp(_first, _second)) \
			abort(); \
		free(_first); \
		free(_second); \
		pyspyd_##kind##_free(_one); \
		pyspyd_##kind##_free(_two); \
	} while (0)

/* Objects are shown with a dump whose variables lead to them. */
static void read_objects(const char *json, size_t len) {
	struct pyspyd_local local = { .name = (char[]){ "x" }, .type = (char[]){ "X" }, .value = (char[]){ "1" } };
	struct pyspyd_frame frame = { .function = (char[]){ "f" },
		.qualname = (char[]){ "f" },
		.file = (char[]){ "f.py" },
		.module = (char[]){ "" },
		.locals = &local,
		.locals_n = 1 };
	struct pyspyd_thread thread = { .tid = 1, .name = (char[]){ "" }, .frames = &frame, .frames_n = 1 };
	struct pyspyd_dump dump = {
		.process = { .name = (char[]){ "p" }, .python = (char[]){ "" } }, .threads = &thread, .threads_n = 1
	};

	if (pyspyd_objects_of_json(json, len, &dump.objects, NULL))
		return;
	free(pyspyd_dump_text(&dump, true));
	pyspyd_objects_free(dump.objects);
}

static void read_document(const char *json, size_t len) {
	struct pyspyd_waits *waits = NULL;

	read_objects(json, len);
	CHECK(dump, json, len);
	CHECK(heap, json, len);
	CHECK(modules, json, len, true);
	CHECK(handles, json, len);
	if (!pyspyd_waits_of_json(json, len, &waits, NULL)) {
		free(pyspyd_waits_json(waits));
		free(pyspyd_waits_text(waits, true));
		free(pyspyd_waits_dot(waits));
		pyspyd_waits_free(waits);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	if (!size)
		return 0;
	switch (data[0]) {
	case 0: read_whole(data + 1, size - 1); break;
	case 1: read_rows(data + 1, size - 1); break;
	default: read_document((const char *)data, size); break;
	}
	return 0;
}
