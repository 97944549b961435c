/* SPDX-License-Identifier: MIT */
/* The bytes of a snapshot (docs/snapshot.md): head, sections, table, tail. All numbers are little-endian, as we are.
 *
 * What a file claims is checked against what it is before memory is taken for it: the table against the file's size,
 * each section against its checksum, what comes out of it against the length that was announced. A reader takes no more
 * memory than that length and the window of the compression, which is bounded too. */
#include "engine/snapshot/archive.h"

#include "engine/base/util.h"
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

#define LEVEL 6
#define WINDOW_LOG_MAX 23 /* 8 MiB */
#define CHUNK_BYTES (256U << 10)

struct head {
	char magic[ARCHIVE_MAGIC_LEN];
	uint32_t version;
	uint32_t unused;
};

struct row {
	char name[ARCHIVE_NAME_BYTES];
	uint64_t offset, stored, bytes;
	uint32_t checksum;
	uint32_t kind;
};

struct tail {
	uint64_t table; /* offset */
	uint32_t sections;
	uint32_t checksum; /* of the table */
	uint64_t size;     /* of the file */
	char magic[ARCHIVE_MAGIC_LEN];
};

static_assert(sizeof(struct head) == 16 && sizeof(struct row) == 56 && sizeof(struct tail) == 32, "docs/snapshot.md");

static uint32_t checksum_of(const void *data, size_t len) {
	return (uint32_t)crc32(0, data, (uInt)len);
}

/* Writing */

static int put(struct archive_writer *writer, const void *data, size_t len) {
	const char *at = data;

	while (len) {
		ssize_t n = write(writer->fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		len -= (size_t)n;
		writer->at += (uint64_t)n;
	}
	return 0;
}

int archive_begin(int fd, struct archive_writer *ret_writer) {
	struct archive_writer writer = { .fd = fd };
	struct head head = { .version = ARCHIVE_VERSION };
	int r;

	memcpy(head.magic, ARCHIVE_MAGIC, sizeof(head.magic));
	r = put(&writer, &head, sizeof(head));
	if (!r)
		*ret_writer = writer;
	return r;
}

static ZSTD_CCtx *new_compressor(size_t len) {
	ZSTD_CCtx *zstd = ZSTD_createCCtx();

	if (!zstd)
		return NULL;
	if (ZSTD_isError(ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, LEVEL)) ||
		ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(zstd, len))) {
		ZSTD_freeCCtx(zstd);
		return NULL;
	}
	return zstd;
}

/* Writes what comes out piece by piece. */
static int put_compressed(struct archive_writer *writer, const void *data, size_t len, uint32_t *ret_checksum) {
	ZSTD_CCtx *zstd = new_compressor(len);
	ZSTD_inBuffer in = { data, len, 0 };
	_free_ char *chunk = malloc(CHUNK_BYTES);
	size_t left = 1;
	uint32_t checksum = 0;
	int r = zstd && chunk ? 0 : -ENOMEM;

	while (!r && left) {
		ZSTD_outBuffer out = { chunk, CHUNK_BYTES, 0 };

		left = ZSTD_compressStream2(zstd, &out, &in, ZSTD_e_end);
		if (ZSTD_isError(left)) {
			r = -ENOMEM;
			break;
		}
		checksum = (uint32_t)crc32(checksum, (const Bytef *)chunk, (uInt)out.pos);
		r = put(writer, chunk, out.pos);
	}
	ZSTD_freeCCtx(zstd);
	*ret_checksum = checksum;
	return r;
}

int archive_add(struct archive_writer *writer, const char *name, enum archive_kind kind, const void *data, size_t len) {
	struct archive_section section = { .kind = kind, .offset = writer->at, .bytes = len };
	int r;

	assert(strlen(name) < sizeof(section.name));
	memcpy(section.name, name, strlen(name) + 1);
	if (len > ARCHIVE_BYTES_MAX || writer->sections.n == ARCHIVE_SECTIONS_MAX)
		return -E2BIG;
	r = put_compressed(writer, data, len, &section.checksum);
	section.stored = writer->at - section.offset;
	return r ? r : vec_push(&writer->sections, section);
}

int archive_end(struct archive_writer *writer) {
	_free_ struct row *rows = calloc(writer->sections.n + 1, sizeof(*rows));
	struct tail tail = { .table = writer->at, .sections = (uint32_t)writer->sections.n };
	size_t len = writer->sections.n * sizeof(*rows);
	int r;

	if (!rows)
		return -ENOMEM;
	for (size_t i = 0; i < writer->sections.n; i++) {
		const struct archive_section *section = &writer->sections.items[i];

		rows[i] = (struct row){ .offset = section->offset,
			.stored = section->stored,
			.bytes = section->bytes,
			.checksum = section->checksum,
			.kind = section->kind };
		memcpy(rows[i].name, section->name, sizeof(rows[i].name));
	}
	tail.checksum = checksum_of(rows, len);
	tail.size = writer->at + len + sizeof(tail);
	memcpy(tail.magic, ARCHIVE_MAGIC_END, sizeof(tail.magic));
	r = put(writer, rows, len);
	return r ? r : put(writer, &tail, sizeof(tail));
}

void archive_writer_deinit(struct archive_writer *writer) {
	vec_free(&writer->sections);
}

/* Reading */

static int get(const struct archive *archive, uint64_t offset, void *data, size_t len, struct err *err) {
	char *at = data;

	while (len) {
		ssize_t n = pread(archive->fd, at, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, -errno, "%s", strerror(errno));
		if (!n)
			return err_set(err, -EBADMSG, "the file became shorter while it was read");
		at += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int read_head(struct archive *archive, struct err *err) {
	struct head head = { 0 };
	int r;

	if (archive->size < sizeof(head))
		return err_set(err, -EBADMSG, "it is no snapshot, or cut off");
	r = get(archive, 0, &head, sizeof(head), err);
	if (r)
		return r;
	if (memcmp(head.magic, ARCHIVE_MAGIC, sizeof(head.magic)) || !head.version)
		return err_set(err, -EBADMSG, "it is no snapshot of pyspyd");
	if (head.version > ARCHIVE_VERSION)
		return err_set(err, -EPROTO, "it is of version %u, which a newer pyspyd reads; this one reads up to %u",
			head.version, ARCHIVE_VERSION);
	archive->version = head.version;
	return 0;
}

static int read_tail(const struct archive *archive, struct tail *tail, struct err *err) {
	uint64_t table_max = archive->size - sizeof(*tail);
	int r;

	if (archive->size < sizeof(struct head) + sizeof(*tail))
		return err_set(err, -EBADMSG, "it is cut off: its end is missing");
	r = get(archive, table_max, tail, sizeof(*tail), err);
	if (r)
		return r;
	if (memcmp(tail->magic, ARCHIVE_MAGIC_END, sizeof(tail->magic)))
		return err_set(err, -EBADMSG, "it is cut off: its end is missing");
	if (tail->size != archive->size)
		return err_set(err, -EBADMSG, "it is damaged: %llu bytes of %llu are there",
			(unsigned long long)archive->size, (unsigned long long)tail->size);
	if (tail->sections > ARCHIVE_SECTIONS_MAX || tail->table < sizeof(struct head) || tail->table > table_max ||
		table_max - tail->table != tail->sections * sizeof(struct row))
		return err_set(err, -EBADMSG, "it is damaged: its table is not where it should be");
	return 0;
}

static bool is_sound(const struct row *row, uint64_t table) {
	size_t len = strnlen(row->name, sizeof(row->name));

	if (!len || len == sizeof(row->name) || row->kind > ARCHIVE_REASON)
		return false;
	for (size_t i = 0; i < len; i++)
		if ((row->name[i] < 'a' || row->name[i] > 'z') && row->name[i] != '-')
			return false;
	return row->offset >= sizeof(struct head) && row->offset <= table && row->stored <= table - row->offset &&
		row->stored <= ARCHIVE_BYTES_MAX && row->bytes <= ARCHIVE_BYTES_MAX;
}

static int add_section(struct archive *archive, const struct row *row) {
	struct archive_section section = { .kind = (enum archive_kind)row->kind,
		.offset = row->offset,
		.stored = row->stored,
		.bytes = row->bytes,
		.checksum = row->checksum };

	memcpy(section.name, row->name, sizeof(section.name));
	return vec_push(&archive->sections, section);
}

static int read_table(struct archive *archive, struct err *err) {
	struct row rows[ARCHIVE_SECTIONS_MAX];
	struct tail tail = { 0 };
	int r = read_tail(archive, &tail, err);

	if (!r)
		r = get(archive, tail.table, rows, tail.sections * sizeof(rows[0]), err);
	if (!r && checksum_of(rows, tail.sections * sizeof(rows[0])) != tail.checksum)
		return err_set(err, -EBADMSG, "it is damaged: its table is not what was written");
	for (uint32_t i = 0; !r && i < tail.sections; i++)
		r = is_sound(&rows[i], tail.table)
			? add_section(archive, &rows[i])
			: err_set(err, -EBADMSG, "it is damaged: section %u is not in the file", i);
	return r;
}

int archive_open(int fd, struct archive *ret_archive, struct err *err) {
	struct archive archive = { .fd = fd };
	struct stat st = { 0 };
	int r = 0;

	if (fstat(fd, &st))
		r = err_set(err, -errno, "%s", strerror(errno));
	else if (!S_ISREG(st.st_mode))
		r = err_set(err, -EINVAL, "it is no regular file");
	archive.size = (uint64_t)st.st_size;
	if (!r)
		r = read_head(&archive, err);
	if (!r)
		r = read_table(&archive, err);
	if (r)
		archive_close(&archive);
	else
		*ret_archive = archive;
	return r;
}

void archive_close(struct archive *archive) {
	close_fd(&archive->fd);
	vec_free(&archive->sections);
}

const struct archive_section *archive_find(const struct archive *archive, const char *name) {
	vec_foreach (section, &archive->sections)
		if (!strcmp(section->name, name))
			return section;
	return NULL;
}

/* Into exactly so many bytes, out of one frame. */
static int decompress(const char *stored, const struct archive_section *section, char *data) {
	ZSTD_DCtx *zstd = ZSTD_createDCtx();
	ZSTD_inBuffer in = { stored, section->stored, 0 };
	ZSTD_outBuffer out = { data, section->bytes, 0 };
	size_t left = 1;

	if (!zstd)
		return -ENOMEM;
	if (ZSTD_isError(ZSTD_DCtx_setParameter(zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX))) {
		ZSTD_freeDCtx(zstd);
		return -ENOMEM;
	}
	while (left && !ZSTD_isError(left)) {
		size_t read = in.pos, written = out.pos;

		left = ZSTD_decompressStream(zstd, &out, &in);
		if (in.pos == read && out.pos == written)
			break;
	}
	ZSTD_freeDCtx(zstd);
	return left || in.pos != in.size || out.pos != out.size ? -EBADMSG : 0;
}

int archive_read(
	const struct archive *archive, const struct archive_section *section, char **ret_data, struct err *err) {
	_free_ char *stored = malloc(section->stored + 1), *data = malloc(section->bytes + 1);
	int r;

	if (!stored || !data)
		return err_set(err, -ENOMEM, "out of memory");
	r = get(archive, section->offset, stored, section->stored, err);
	if (r)
		return r;
	if (checksum_of(stored, section->stored) != section->checksum)
		return err_set(err, -EBADMSG, "section \"%s\" is damaged", section->name);
	r = decompress(stored, section, data);
	if (r)
		return err_set(err, r, r == -ENOMEM ? "out of memory" : "section \"%s\" is damaged", section->name);
	data[section->bytes] = '\0';
	*ret_data = take_ptr(data);
	return 0;
}
