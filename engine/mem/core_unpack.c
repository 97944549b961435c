/* SPDX-License-Identifier: MIT */
/* Packed cores: systemd-coredump stores them as zstd (or xz, lz4), people as gzip.
 *
 * Memory is read here and there, so the core is unpacked whole, into a temporary file that has no name and is gone with
 * its descriptor. Pages of zeros become holes. A packed file that is cut off gives what is before the cut. Its room is
 * bounded: by UNPACKED_MAX, and by what leaves ROOM_LEFT free on the disk. */
#include "engine/mem/core_internal.h"

#include <fcntl.h>
#include <lz4frame.h>
#include <lzma.h>
#include <string.h>
#include <sys/statvfs.h>
#include <zlib.h>
#include <zstd.h>

#define IN_BYTES (256U << 10)
#define OUT_BYTES (1U << 20)
#define HOLE_BYTES 4096U
#define UNPACKED_MAX (256ULL << 30)
#define ROOM_LEFT (64ULL << 20)
#define ROOM_CHECK_BYTES (64ULL << 20) /* how much is written between two looks at the room */
#define LZMA_MEMORY_MAX (256U << 20)

struct unpack {
	int in, out;
	uint8_t *in_bytes, *out_bytes;
	uint64_t written; /* holes included */
	uint64_t checked; /* bytes on the disk since the last look at the room */
	const char *name;
	struct err *err;
};

static int check_room(struct unpack *u) {
	struct statvfs fs;

	u->checked = 0;
	if (fstatvfs(u->out, &fs))
		return -errno;
	if ((uint64_t)fs.f_bavail * fs.f_frsize < ROOM_LEFT + ROOM_CHECK_BYTES)
		return err_set(u->err, -ENOSPC,
			"%s does not fit into the temporary folder when it is unpacked "
			"(TMPDIR names another one)",
			u->name);
	return 0;
}

static int write_piece(struct unpack *u, const uint8_t *bytes, size_t len) {
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(u->out, bytes + done, len - done, (off_t)(u->written + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(u->err, -errno, "unpacking %s: %s", u->name, strerror(errno));
		done += (size_t)n;
	}
	u->checked += len;
	return u->checked >= ROOM_CHECK_BYTES ? check_room(u) : 0;
}

static bool is_hole(const uint8_t *bytes, size_t len) {
	return len == HOLE_BYTES && !bytes[0] && !memcmp(bytes, bytes + 1, len - 1);
}

static int emit(struct unpack *u, size_t len) {
	if (len > UNPACKED_MAX - u->written)
		return err_set(
			u->err, -EFBIG, "%s is larger than %llu GiB when it is unpacked", u->name, UNPACKED_MAX >> 30);
	for (size_t at = 0; at < len;) {
		size_t piece = min_of(len - at, (size_t)HOLE_BYTES);
		int r = is_hole(u->out_bytes + at, piece) ? 0 : write_piece(u, u->out_bytes + at, piece);

		if (r)
			return r;
		u->written += piece;
		at += piece;
	}
	return 0;
}

/* Return: the number of bytes; 0 at the end; negative errno. */
static ssize_t more(struct unpack *u) {
	ssize_t n;

	do
		n = read(u->in, u->in_bytes, IN_BYTES);
	while (n < 0 && errno == EINTR);
	return n < 0 ? err_set(u->err, -errno, "%s: %s", u->name, strerror(errno)) : n;
}

static int damaged(const struct unpack *u) {
	return u->written ? 0 : err_set(u->err, -EBADMSG, "%s cannot be unpacked: it is damaged", u->name);
}

static int unpack_zstd(struct unpack *u) {
	ZSTD_DStream *stream = ZSTD_createDStream();
	ssize_t n = 0;
	int r = stream ? 0 : -ENOMEM;

	while (!r && (n = more(u)) > 0) {
		ZSTD_inBuffer in = { .src = u->in_bytes, .size = (size_t)n };
		bool full = true;

		while (!r && (in.pos < in.size || full)) {
			ZSTD_outBuffer out = { .dst = u->out_bytes, .size = OUT_BYTES };
			size_t left = ZSTD_decompressStream(stream, &out, &in);

			full = out.pos == out.size;
			r = emit(u, out.pos);
			if (!r && ZSTD_isError(left)) {
				ZSTD_freeDStream(stream);
				return damaged(u);
			}
		}
	}
	ZSTD_freeDStream(stream);
	return r ? r : (int)n;
}

static int run_lzma(struct unpack *u, lzma_stream *stream) {
	ssize_t n = 0;

	for (;;) {
		lzma_ret ret;
		int r;

		if (!stream->avail_in) {
			n = more(u);
			if (n < 0)
				return (int)n;
			stream->next_in = u->in_bytes;
			stream->avail_in = (size_t)n;
		}
		stream->next_out = u->out_bytes;
		stream->avail_out = OUT_BYTES;
		ret = lzma_code(stream, n ? LZMA_RUN : LZMA_FINISH);
		r = emit(u, OUT_BYTES - stream->avail_out);
		if (r || ret == LZMA_STREAM_END)
			return r;
		if (ret == LZMA_MEM_ERROR)
			return -ENOMEM;
		if (ret != LZMA_OK)
			return damaged(u);
	}
}

static int unpack_xz(struct unpack *u) {
	lzma_stream stream = LZMA_STREAM_INIT;
	int r = lzma_stream_decoder(&stream, LZMA_MEMORY_MAX, LZMA_CONCATENATED) == LZMA_OK ? 0 : -ENOMEM;

	if (!r)
		r = run_lzma(u, &stream);
	lzma_end(&stream);
	return r;
}

static int run_gzip(struct unpack *u, z_stream *stream) {
	ssize_t n = 0;

	for (;;) {
		int ret, r;

		if (!stream->avail_in) {
			n = more(u);
			if (n <= 0)
				return (int)n;
			stream->next_in = u->in_bytes;
			stream->avail_in = (unsigned)n;
		}
		stream->next_out = u->out_bytes;
		stream->avail_out = OUT_BYTES;
		ret = inflate(stream, Z_NO_FLUSH);
		r = emit(u, OUT_BYTES - stream->avail_out);
		if (r)
			return r;
		if (ret == Z_STREAM_END) /* another member may follow */
			ret = inflateReset(stream);
		if (ret != Z_OK && ret != Z_BUF_ERROR)
			return damaged(u);
	}
}

static int unpack_gzip(struct unpack *u) {
	z_stream stream = { 0 };
	int r = inflateInit2(&stream, 15 + 16) == Z_OK ? 0 : -ENOMEM; /* a gzip header, any window */

	if (r)
		return r;
	r = run_gzip(u, &stream);
	inflateEnd(&stream);
	return r;
}

/* All of a piece; what it holds back comes when it is called again. Return: 0; 1: no more can be unpacked; negative
 * errno.
 */
static int run_lz4(struct unpack *u, LZ4F_dctx *stream, size_t n) {
	size_t at = 0, in, out;

	do {
		size_t left;
		int r;

		in = n - at;
		out = OUT_BYTES;
		left = LZ4F_decompress(stream, u->out_bytes, &out, u->in_bytes + at, &in, NULL);
		r = emit(u, out);
		if (r)
			return r;
		if (LZ4F_isError(left))
			return damaged(u) ? -EBADMSG : 1;
		at += in;
	} while (at < n || out == OUT_BYTES);
	return 0;
}

static int unpack_lz4(struct unpack *u) {
	LZ4F_dctx *stream;
	ssize_t n = 0;
	int r = LZ4F_isError(LZ4F_createDecompressionContext(&stream, LZ4F_VERSION)) ? -ENOMEM : 0;

	if (r)
		return r;
	while (!r && (n = more(u)) > 0)
		r = run_lz4(u, stream, (size_t)n);
	LZ4F_freeDecompressionContext(stream);
	return r < 0 ? r : n < 0 ? (int)n : 0;
}

static const struct {
	uint8_t magic[6];
	size_t magic_len;
	int (*unpack)(struct unpack *u);
} formats[] = {
	{ { 0x28, 0xb5, 0x2f, 0xfd }, 4, unpack_zstd },
	{ { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, unpack_xz },
	{ { 0x1f, 0x8b, 8 }, 3, unpack_gzip },
	{ { 0x04, 0x22, 0x4d, 0x18 }, 4, unpack_lz4 },
};

static int open_temporary(const struct unpack *u, int *ret_fd) {
	const char *folder = getenv("TMPDIR");
	int fd;

	if (!folder || folder[0] != '/')
		folder = "/var/tmp";
	fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(u->err, -errno, "%s is packed, and there can be no temporary file in %s: %s", u->name,
			folder, strerror(errno));
	*ret_fd = fd;
	return 0;
}

static int unpack_into(struct unpack *u, int (*unpack)(struct unpack *u)) {
	int r = open_temporary(u, &u->out);

	if (r)
		return r;
	u->in_bytes = malloc(IN_BYTES);
	u->out_bytes = malloc(OUT_BYTES);
	r = u->in_bytes && u->out_bytes ? check_room(u) : -ENOMEM;
	if (!r)
		r = unpack(u);
	if (!r && ftruncate(u->out, (off_t)u->written))
		r = -errno;
	free(u->in_bytes);
	free(u->out_bytes);
	return r;
}

int core_unpack(int *fd, const char *name, struct err *err) {
	struct unpack u = { .in = *fd, .out = -1, .name = name, .err = err };
	uint8_t start[6] = { 0 };
	int r;

	if (pread(*fd, start, sizeof(start), 0) < 0)
		return err_set(err, -errno, "%s: %s", name, strerror(errno));
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		if (memcmp(start, formats[i].magic, formats[i].magic_len))
			continue;
		if (lseek(*fd, 0, SEEK_SET) < 0)
			return -errno;
		r = unpack_into(&u, formats[i].unpack);
		if (r) {
			close_fd(&u.out);
			return r;
		}
		close_fd(fd);
		*fd = u.out;
		return 0;
	}
	return 0;
}
