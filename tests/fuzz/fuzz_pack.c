/* SPDX-License-Identifier: MIT */
/* Packed profiles out of a store or off a socket that somebody else wrote to. Byte 0 chooses what the rest is: the
 * bytes themselves, what stands behind a checksum that is right, the tables inside, or stacks to be counted. What can
 * be read must come back the same when it is packed again, and is drawn, alone and against itself. */
#include "engine/profile/pack.h"

#include "engine/base/cursor.h"
#include "engine/base/util.h"
#include "engine/profile/pack_format.h"
#include "pyspyd/flight.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define HEAD_BYTES (PACK_CHECKED + 15)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void set_checksum(uint8_t *bytes, size_t len) {
	uint32_t checksum = (uint32_t)crc32(0, bytes + PACK_CHECKED, (uInt)(len - PACK_CHECKED));

	memcpy(bytes, PACK_MAGIC "\x01", PACK_MAGIC_LEN + 1);
	memcpy(bytes + PACK_CHECKED - sizeof(checksum), &checksum, sizeof(checksum));
}

static int compare_counts(const void *left, const void *right) {
	const struct profile_count *a = left, *b = right;

	if (a->thread != b->thread)
		return a->thread < b->thread ? -1 : 1;
	return (a->node > b->node) - (a->node < b->node);
}

static struct profile_count *sorted_counts(const struct profile *p) {
	struct profile_count *counts = calloc(p->counts.n + 1, sizeof(*counts));

	if (!counts)
		abort();
	memcpy(counts, p->counts.items ? p->counts.items : counts, p->counts.n * sizeof(*counts));
	qsort(counts, p->counts.n, sizeof(*counts), compare_counts);
	return counts;
}

static void draw(const void *bytes, size_t len) {
	static const char *const formats[] = { "svg", "collapsed", "speedscope", "pprof", "html", "gecko", "chrome" };
	const struct pyspyd_flight_options options = { .format = formats[len % ARRAY_SIZE(formats)],
		.threads = len / ARRAY_SIZE(formats) % 2 };
	const struct pyspyd_packed packed = { .data = bytes, .len = len };
	_close_ int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	size_t skipped;

	pyspyd_flight_write(&packed, 1, &options, fd, &skipped, NULL);
	pyspyd_flight_diff(&packed, 1, &packed, 1, &options, fd, &skipped, NULL);
}

/* Packs all counts of a profile and unpacks them into it again: the same must be counted, under the same ids. */
static void check_round_trip(struct profile *p) {
	struct pack_head head = { p->start_real_ns, p->start_real_ns + p->duration_ns, p->period_ns, p->accuracy };
	size_t counts = p->counts.n, nodes = p->nodes.n, frames = p->frames.n, threads = p->threads.n, len;
	_free_ struct profile_count *before = sorted_counts(p);
	struct profile_count *after;
	void *packed;

	if (profile_pack(p, p->counts.items, p->counts.n, &head, &packed, &len))
		return;
	profile_reset_counts(p);
	p->start_real_ns = p->duration_ns = 0;
	p->accuracy = (struct pyspyd_accuracy){ 0 };
	if (profile_unpack(p, packed, len))
		abort();
	after = sorted_counts(p);
	if (p->counts.n != counts || memcmp(before, after, counts * sizeof(*before)) != 0)
		abort();
	if (p->nodes.n != nodes || p->frames.n != frames || p->threads.n != threads)
		abort();
	if (p->start_real_ns != head.start_real_ns || p->duration_ns != head.end_real_ns - head.start_real_ns ||
		p->period_ns != head.period_ns || memcmp(&p->accuracy, &head.accuracy, sizeof(head.accuracy)) != 0)
		abort();
	draw(packed, len);
	free(after);
	free(packed);
}

static void read_packed(const void *bytes, size_t len) {
	struct profile *p = NULL;

	if (profile_new(&p))
		return;
	if (!profile_unpack(p, bytes, len))
		check_round_trip(p);
	else if (p->counts.n || p->frames.n || p->nodes.n != 1 || p->duration_ns)
		abort();
	profile_free(p);
}

static void read_checked(const uint8_t *data, size_t size) {
	size_t len = PACK_CHECKED + size;
	_free_ uint8_t *bytes = malloc(len);

	if (!bytes)
		return;
	memcpy(bytes + PACK_CHECKED, data, size);
	set_checksum(bytes, len);
	read_packed(bytes, len);
}

static void read_tables(const uint8_t *data, size_t size) {
	size_t bound = ZSTD_compressBound(size), n;
	_free_ uint8_t *bytes = calloc(1, HEAD_BYTES + bound);

	if (!bytes)
		return;
	n = ZSTD_compress(bytes + HEAD_BYTES, bound, data, size, 1);
	if (ZSTD_isError(n))
		abort();
	set_checksum(bytes, HEAD_BYTES + n);
	read_packed(bytes, HEAD_BYTES + n);
}

/* Four bytes a step: a frame under one of the nodes that are there, counted in some thread. */
static void count_stacks(const uint8_t *data, size_t size) {
	struct cursor c = cursor_of(data, size);
	struct profile *p = NULL;
	uint8_t step[4];

	if (profile_new(&p))
		return;
	while (cursor_bytes(&c, step, sizeof(step))) {
		char name[] = { (char)step[0], 0 };
		struct profile_frame frame = { .function = intern_add(&p->strings, name, 1), .line = step[0] };
		struct profile_thread thread = { .pid = 1, .tid = step[2] % 4, .name = frame.function };
		uint32_t node;

		frame.lang = (enum pyspyd_lang)(step[0] % 3);
		node = profile_add_node(p, step[1] % (uint32_t)p->nodes.n, profile_add_frame(p, &frame));
		profile_count(p, profile_add_thread(p, &thread), node, step[3], (uint64_t)step[3] << step[2] % 64);
	}
	p->period_ns = size;
	check_round_trip(p);
	profile_free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	if (!size)
		return 0;
	switch (data[0] % 4) {
	case 0: read_packed(data + 1, size - 1); break;
	case 1: read_checked(data + 1, size - 1); break;
	case 2: read_tables(data + 1, size - 1); break;
	case 3: count_stacks(data + 1, size - 1); break;
	}
	return 0;
}
