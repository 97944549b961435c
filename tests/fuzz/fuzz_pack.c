/* SPDX-License-Identifier: MIT */
/* Packed profiles out of a store or off a socket that somebody else wrote to. Byte 0 chooses what the rest is: the
 * bytes themselves, what stands behind a checksum that is right, the tables inside, or stacks to be counted. What can
 * be read must come back the same when it is packed again. */
#include "engine/profile/pack.h"

#include "engine/base/cursor.h"
#include "engine/base/util.h"
#include "engine/profile/pack_format.h"
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

static void same_string(const struct profile *a, uint32_t in_a, const struct profile *b, uint32_t in_b) {
	if (strcmp(intern_str(&a->strings, in_a), intern_str(&b->strings, in_b)) != 0)
		abort();
}

static void same_frame(const struct profile *a, uint32_t in_a, const struct profile *b, uint32_t in_b) {
	const struct profile_frame *f = &a->frames.items[in_a], *g = &b->frames.items[in_b];

	same_string(a, f->function, b, g->function);
	same_string(a, f->file, b, g->file);
	same_string(a, f->module, b, g->module);
	if (f->line != g->line || f->lang != g->lang)
		abort();
}

static void same_thread(const struct profile *a, uint32_t in_a, const struct profile *b, uint32_t in_b) {
	const struct profile_thread *t = &a->threads.items[in_a], *u = &b->threads.items[in_b];

	same_string(a, t->name, b, u->name);
	same_string(a, t->process_name, b, u->process_name);
	if (t->pid != u->pid || t->tid != u->tid)
		abort();
}

static void same_count(const struct profile *a, const struct profile *b, size_t i) {
	const struct profile_count *c = &a->counts.items[i], *d = &b->counts.items[i];
	uint32_t m = c->node, n = d->node;

	same_thread(a, c->thread, b, d->thread);
	if (c->samples != d->samples || c->ns != d->ns)
		abort();
	for (; m && n; m = a->nodes.items[m].parent, n = b->nodes.items[n].parent)
		same_frame(a, a->nodes.items[m].frame, b, b->nodes.items[n].frame);
	if (m || n)
		abort();
}

/* Packs all counts of a profile, unpacks them, and compares. */
static void check_round_trip(const struct profile *p) {
	struct pack_head head = { p->start_real_ns, p->start_real_ns + p->duration_ns, p->period_ns, p->accuracy };
	struct profile *back = NULL;
	void *packed;
	size_t len;

	if (profile_pack(p, p->counts.items, p->counts.n, &head, &packed, &len))
		return;
	if (profile_new(&back) || profile_unpack(back, packed, len) || back->counts.n != p->counts.n)
		abort();
	if (back->kind != p->kind || back->duration_ns != p->duration_ns || back->period_ns != p->period_ns ||
		memcmp(&back->accuracy, &p->accuracy, sizeof(p->accuracy)) != 0)
		abort();
	for (size_t i = 0; i < p->counts.n; i++)
		same_count(p, back, i);
	profile_free(back);
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
