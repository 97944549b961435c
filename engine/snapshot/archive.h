/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SNAPSHOT_ARCHIVE_H
#define PYSPYD_SNAPSHOT_ARCHIVE_H

#include "engine/base/util.h"
#include "engine/base/vec.h"
#include "pyspyd/err.h"
#include <stddef.h>
#include <stdint.h>

/* The file of a snapshot: named sections, each compressed by itself, and a table of them at the end (docs/snapshot.md
 * has the bytes). Written front to back, so that it may go through a pipe; read from a regular file, whoever made it.
 */

#define ARCHIVE_MAGIC "\x89PYSNAP\n"
#define ARCHIVE_MAGIC_END "PYSNAP\x1a\n"
#define ARCHIVE_MAGIC_LEN 8
#define ARCHIVE_VERSION 1
#define ARCHIVE_NAME_BYTES 24 /* with a NUL */
#define ARCHIVE_SECTIONS_MAX 64
#define ARCHIVE_BYTES_MAX ((size_t)128U << 20) /* of one section, as it is and compressed */

enum archive_kind {
	ARCHIVE_DOCUMENT,
	ARCHIVE_REASON, /* why there is no document */
};

struct archive_section {
	char name[ARCHIVE_NAME_BYTES];
	enum archive_kind kind;
	uint64_t offset, stored; /* of the compressed bytes in the file */
	uint64_t bytes;          /* as they are */
	uint32_t checksum;       /* CRC-32 of the compressed bytes */
};

typedef VEC(struct archive_section) archive_sections;

struct archive_writer {
	int fd;      /* the caller's */
	uint64_t at; /* bytes written */
	archive_sections sections;
};

/* Each return: 0; -E2BIG (too large, or too many sections); -ENOMEM; negative errno of writing. */
int archive_begin(int fd, struct archive_writer *ret_writer);
int archive_add(struct archive_writer *writer, const char *name, enum archive_kind kind, const void *data, size_t len);
int archive_end(struct archive_writer *writer);
void archive_writer_deinit(struct archive_writer *writer);

struct archive {
	int fd;
	uint64_t size;
	unsigned version;
	archive_sections sections;
};

/* Takes over fd, also on failure. Return: 0; with a text: -EBADMSG: no snapshot, or damaged, or cut off; -EPROTO: of a
 * newer version; -ENOMEM; negative errno. */
int archive_open(int fd, struct archive *ret_archive, struct err *err);
void archive_close(struct archive *archive);

/* Return: NULL where there is none of that name. */
const struct archive_section *archive_find(const struct archive *archive, const char *name);

/* Reads one, and checks it. Return: 0 with *ret_data, NUL-terminated, the caller's; -EBADMSG with a text; -ENOMEM;
 * negative errno. */
int archive_read(
	const struct archive *archive, const struct archive_section *section, char **ret_data, struct err *err);

#endif
