/* SPDX-License-Identifier: MIT */
/* Packed profiles: what comes back is what went in, sums are exact, and no bytes, damaged or made up, do harm. */
#include "engine/profile/pack.h"

#include "engine/base/strbuf.h"
#include "engine/base/util.h"
#include "engine/profile/pack_format.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define MINUTE_NS UINT64_C(60000000000)
#define PERIOD_NS UINT64_C(50000000)
#define START_NS UINT64_C(1700000000000000000)

struct packed {
	void *data;
	size_t len;
};

static uint32_t intern(struct profile *p, const char *s) {
	return intern_add(&p->strings, s, strlen(s));
}

static struct profile *new_profile(void) {
	struct profile *p = NULL;

	cr_assert_eq(profile_new(&p), 0);
	return p;
}

static uint32_t add_frame(struct profile *p, const char *function, int line, enum pyspyd_lang lang) {
	struct profile_frame frame = { .function = intern(p, function), .file = intern(p, "app.py"), .line = line };

	frame.module = intern(p, "app");
	frame.lang = lang;
	return profile_add_frame(p, &frame);
}

static uint32_t add_thread(struct profile *p, pid_t pid, pid_t tid, const char *name) {
	struct profile_thread thread = { .pid = pid, .tid = tid, .name = intern(p, name) };

	thread.process_name = intern(p, "python3");
	return profile_add_thread(p, &thread);
}

static struct pack_head head_of_minute(uint64_t minute) {
	return (struct pack_head){
		.start_real_ns = START_NS + minute * MINUTE_NS,
		.end_real_ns = START_NS + (minute + 1) * MINUTE_NS,
		.period_ns = PERIOD_NS,
		.accuracy = { "vm", "nice", 1201, 1200, 2400, 1000, 1, 2, 3, 4, 5 },
	};
}

/* Two processes; `extra` makes ids differ between profiles that hold the same. */
static struct profile *sample_profile(bool extra) {
	struct profile *p = new_profile();
	uint32_t main, f, g, a, b, other;

	if (extra)
		profile_add_node(p, 0, add_frame(p, "nobody's", 1, PYSPYD_PYTHON));
	main = profile_add_node(p, 0, add_frame(p, "<module>", 40, PYSPYD_PYTHON));
	f = profile_add_node(p, main, add_frame(p, "f", -3, PYSPYD_NATIVE));
	g = profile_add_node(p, f, add_frame(p, "C.g", INT_MAX, PYSPYD_KERNEL));
	other = add_thread(p, 20, 20, "other");
	a = add_thread(p, 10, 10, "MainThread");
	b = add_thread(p, 10, 11, "");
	cr_assert_eq(profile_count(p, other, main, 7, 7), 0);
	cr_assert_eq(profile_count(p, a, f, 3, 3 * PERIOD_NS), 0);
	cr_assert_eq(profile_count(p, b, g, 4, 4 * PERIOD_NS - 1), 0);
	cr_assert_eq(profile_count(p, b, 0, 1, UINT64_MAX), 0);
	return p;
}

/* The counts of process 10: those behind the first. */
static struct packed pack_part(const struct profile *p, const struct pack_head *head) {
	struct packed packed = { 0 };

	cr_assert_eq(profile_pack(p, p->counts.items + 1, p->counts.n - 1, head, &packed.data, &packed.len), 0);
	return packed;
}

static struct packed pack_sample(uint64_t minute) {
	struct profile *p = sample_profile(minute % 2);
	struct pack_head head = head_of_minute(minute);
	struct packed packed = pack_part(p, &head);

	profile_free(p);
	return packed;
}

static int compare_lines(const void *a, const void *b) {
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All that a profile counts, one line a count, sorted; the caller's to free(). */
static char *describe(const struct profile *p) {
	char **lines = calloc(p->counts.n + 1, sizeof(*lines));
	struct strbuf all = { 0 };

	for (size_t i = 0; i < p->counts.n; i++) {
		const struct profile_count *count = &p->counts.items[i];
		const struct profile_thread *t = &p->threads.items[count->thread];
		struct strbuf line = { 0 };

		strbuf_addf(&line, "%d/%d %s %s:", t->pid, t->tid, intern_str(&p->strings, t->name),
			intern_str(&p->strings, t->process_name));
		for (uint32_t node = count->node; node; node = p->nodes.items[node].parent) {
			const struct profile_frame *f = &p->frames.items[p->nodes.items[node].frame];

			strbuf_addf(&line, " %s,%s,%s,%d,%d", intern_str(&p->strings, f->function),
				intern_str(&p->strings, f->file), intern_str(&p->strings, f->module), f->line, f->lang);
		}
		strbuf_addf(&line, " = %" PRIu64 " %" PRIu64 "\n", count->samples, count->ns);
		lines[i] = strbuf_take(&line);
	}
	qsort(lines, p->counts.n, sizeof(*lines), compare_lines);
	for (size_t i = 0; i < p->counts.n; i++) {
		strbuf_adds(&all, lines[i]);
		free(lines[i]);
	}
	free(lines);
	return strbuf_take(&all);
}

static const char sample_text[] =
	"10/10 MainThread python3: f,app.py,app,-3,1 <module>,app.py,app,40,0 = 3 150000000\n"
	"10/11  python3: = 1 18446744073709551615\n"
	"10/11  python3: C.g,app.py,app,2147483647,2 f,app.py,app,-3,1 <module>,app.py,app,40,0 = 4 199999999\n";

static void check_accuracy(const struct pyspyd_accuracy *a, uint64_t times) {
	cr_assert_str_eq(a->source, "vm");
	cr_assert_str_eq(a->priority, "nice");
	cr_assert_eq(a->expected, 1201 * times);
	cr_assert_eq(a->looks, 1200 * times);
	cr_assert_eq(a->samples, 2400 * times);
	cr_assert_eq(a->idle, 1000 * times);
	cr_assert_eq(a->torn, 1 * times);
	cr_assert_eq(a->discarded, 2 * times);
	cr_assert_eq(a->late, 3 * times);
	cr_assert_eq(a->unreadable, 4 * times);
	cr_assert_eq(a->truncated, 5 * times);
}

Test(pack, comes_back_as_it_went) {
	struct packed packed = pack_sample(0);
	struct profile *p = new_profile();
	_free_ char *text = NULL;

	cr_assert_eq(profile_unpack(p, packed.data, packed.len), 0);
	text = describe(p);
	cr_assert_str_eq(text, sample_text);
	cr_assert_eq(p->frames.n, 3);
	cr_assert_eq(p->threads.n, 2, "only what the counts need is packed");
	cr_assert_eq(p->start_real_ns, START_NS);
	cr_assert_eq(p->duration_ns, MINUTE_NS);
	cr_assert_eq(p->period_ns, PERIOD_NS);
	check_accuracy(&p->accuracy, 1);
	profile_free(p);
	free(packed.data);
}

Test(pack, equal_stacks_add_up) {
	struct profile *p = new_profile();
	_free_ char *text = NULL;

	for (uint64_t minute = 5; minute-- > 0;) {
		struct packed packed = pack_sample(minute);

		cr_assert_eq(profile_unpack(p, packed.data, packed.len), 0);
		free(packed.data);
	}
	text = describe(p);
	cr_assert_eq(p->counts.n, 3);
	cr_assert_eq(p->counts.items[0].samples, 15);
	cr_assert_eq(p->counts.items[0].ns, 15 * PERIOD_NS);
	cr_assert_eq(p->frames.n, 3);
	cr_assert_eq(p->start_real_ns, START_NS);
	cr_assert_eq(p->duration_ns, 5 * MINUTE_NS);
	check_accuracy(&p->accuracy, 5);
	profile_free(p);
}

Test(pack, the_head_is_read_alone) {
	struct packed packed = pack_sample(3);
	struct pack_head head = { 0 };

	cr_assert_eq(pack_head_read(packed.data, packed.len, &head), 0);
	cr_assert_eq(head.start_real_ns, START_NS + 3 * MINUTE_NS);
	cr_assert_eq(head.end_real_ns, START_NS + 4 * MINUTE_NS);
	cr_assert_eq(head.period_ns, PERIOD_NS);
	check_accuracy(&head.accuracy, 1);
	free(packed.data);
}

Test(pack, nothing_is_something_too) {
	struct profile *p = new_profile(), *back = new_profile();
	struct pack_head head = { .start_real_ns = 5, .end_real_ns = 3 };
	struct packed packed = { 0 };

	p->kind = PROFILE_GIL;
	cr_assert_eq(profile_pack(p, NULL, 0, &head, &packed.data, &packed.len), 0);
	cr_assert_eq(profile_unpack(back, packed.data, packed.len), 0);
	cr_assert_eq(back->counts.n, 0);
	cr_assert_eq(back->kind, PROFILE_GIL);
	cr_assert_eq(back->start_real_ns, 5);
	cr_assert_eq(back->duration_ns, 0, "an end before the start is none");
	cr_assert_null(back->accuracy.source);
	profile_free(p);
	profile_free(back);
	free(packed.data);
}

Test(pack, a_sum_is_as_exact_as_its_worst_part) {
	static const struct {
		const char *source, *priority;
	} parts[] = { { "blocking", "fifo" }, { "vm-remote", "nice" }, { NULL, NULL }, { "vm", "none" } };
	struct profile *p = sample_profile(false), *sum = new_profile();

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		struct pack_head head = head_of_minute(i);
		struct packed packed;

		head.accuracy.source = parts[i].source;
		head.accuracy.priority = parts[i].priority;
		head.period_ns = PERIOD_NS >> i;
		packed = pack_part(p, &head);
		cr_assert_eq(profile_unpack(sum, packed.data, packed.len), 0);
		free(packed.data);
	}
	cr_assert_str_eq(sum->accuracy.source, "vm-remote");
	cr_assert_str_eq(sum->accuracy.priority, "none");
	cr_assert_eq(sum->period_ns, PERIOD_NS >> 3);
	profile_free(p);
	profile_free(sum);
}

Test(pack, kinds_do_not_mix) {
	struct profile *p = sample_profile(false), *sum = new_profile();
	struct pack_head head = head_of_minute(0);
	struct packed wall = pack_part(p, &head), cpu;

	p->kind = PROFILE_CPU;
	cpu = pack_part(p, &head);
	cr_assert_eq(profile_unpack(sum, cpu.data, cpu.len), 0);
	cr_assert_eq(profile_unpack(sum, wall.data, wall.len), -EINVAL);
	cr_assert_eq(sum->duration_ns, MINUTE_NS);
	cr_assert_eq(sum->kind, PROFILE_CPU);
	free(wall.data);
	free(cpu.data);
	profile_free(p);
	profile_free(sum);
}

/* Every process of a big profile costs only what it has: 200 parts of one tree, and their sum is the whole. */
Test(pack, parts_sum_up_to_the_whole) {
	struct profile *p = new_profile(), *sum = new_profile();
	struct pack_head head = head_of_minute(0);
	uint32_t node = 0, first[201];
	_free_ char *text = NULL, *sum_text = NULL;

	for (int i = 0; i < 200; i++) {
		uint32_t thread = add_thread(p, i + 1, i + 1, "t");

		first[i] = (uint32_t)p->counts.n;
		for (int j = 0; j < 50; j++) {
			node = profile_add_node(p, j % 30 ? node : 0, add_frame(p, j % 2 ? "f" : "g", i * j % 97, 0));
			cr_assert_eq(profile_count(p, thread, node, (uint64_t)(i + j), (uint64_t)j), 0);
		}
	}
	first[200] = (uint32_t)p->counts.n;
	for (int i = 200; i-- > 0;) {
		struct packed packed = { 0 };

		cr_assert_eq(profile_pack(p, p->counts.items + first[i], first[i + 1] - first[i], &head, &packed.data,
				     &packed.len),
			0);
		cr_assert_eq(profile_unpack(sum, packed.data, packed.len), 0);
		free(packed.data);
	}
	text = describe(p);
	sum_text = describe(sum);
	cr_assert_str_eq(text, sum_text);
	profile_free(p);
	profile_free(sum);
}

/* Nothing may be added, whatever is changed or missing. */
static void check_refused(const void *data, size_t len, int expected) {
	struct profile *p = new_profile();
	struct pack_head head;

	cr_assert_eq(profile_unpack(p, data, len), expected);
	cr_assert_eq(p->frames.n + p->threads.n + p->counts.n + p->duration_ns, 0);
	cr_assert_eq(p->nodes.n, 1);
	if (expected == -EPROTO)
		cr_assert_eq(pack_head_read(data, len, &head), -EPROTO);
	profile_free(p);
}

Test(pack, damage_is_noticed) {
	struct packed packed = pack_sample(0);
	uint8_t *bytes = packed.data;

	for (size_t len = 0; len < packed.len; len++) {
		_free_ uint8_t *cut = malloc(len + 1); /* so that a read behind the end is one behind a block */

		memcpy(cut, bytes, len);
		check_refused(cut, len, -EBADMSG);
	}
	for (size_t i = 0; i < packed.len; i++) {
		for (int bit = 0; bit < 8; bit++) {
			int expected = i == PACK_MAGIC_LEN && (bytes[i] ^ 1 << bit) > PACK_VERSION ? -EPROTO : -EBADMSG;

			bytes[i] ^= (uint8_t)(1 << bit);
			check_refused(bytes, packed.len, expected);
			bytes[i] ^= (uint8_t)(1 << bit);
		}
	}
	free(packed.data);
}

/* A head as it should be, with these bytes behind it. */
static struct packed wrap(const void *tail, size_t len) {
	uint8_t head[PACK_CHECKED + 16] = PACK_MAGIC "\x02";
	struct packed packed = { malloc(sizeof(head) + len), sizeof(head) + len };
	uint8_t *bytes = packed.data;
	uint32_t checksum;

	memcpy(bytes, head, sizeof(head));
	memcpy(bytes + sizeof(head), tail, len);
	checksum = (uint32_t)crc32(0, bytes + PACK_CHECKED, (uInt)(packed.len - PACK_CHECKED));
	memcpy(bytes + PACK_CHECKED - 4, &checksum, 4);
	return packed;
}

static struct packed wrap_tables(const void *tables, size_t len) {
	size_t bound = ZSTD_compressBound(len), n;
	_free_ void *compressed = malloc(bound);

	n = ZSTD_compress(compressed, bound, tables, len, 1);
	cr_assert_not(ZSTD_isError(n));
	return wrap(compressed, n);
}

static void check_tables(const char *tables, size_t len, int expected) {
	struct packed packed = wrap_tables(tables, len);
	struct profile *p;

	if (expected) {
		check_refused(packed.data, packed.len, expected);
	} else {
		p = new_profile();
		cr_assert_eq(profile_unpack(p, packed.data, packed.len), 0);
		profile_free(p);
	}
	free(packed.data);
}

#define TABLES(text, expected) check_tables(text, sizeof(text) - 1, expected)

/* strings "a"; frame a/a/""/line 0; node 1 under the root; thread 1/1 a; count. */
Test(pack, made_up_tables_are_refused) {
	TABLES("\1\1a\1\1\1\0\0\0\1\1\0\1\1\2\1\1\1\0\2\1\0", 0);
	TABLES("\0\0\0\0\0", 0);
	TABLES("\0\0\0\0", -EBADMSG);                                     /* a table is missing */
	TABLES("\0\0\0\0\0\0", -EBADMSG);                                 /* one too many */
	TABLES("\1\0\0\0\0\0", -EBADMSG);                                 /* an empty string */
	TABLES("\1\1\0\0\0\0\0", -EBADMSG);                               /* a string with a NUL */
	TABLES("\1\2a\0\0\0\0", -EBADMSG);                                /* … */
	TABLES("\1\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", -EBADMSG);     /* a long one */
	TABLES("\xff\xff\x3f", -EBADMSG);                                 /* many */
	TABLES("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02", -EBADMSG);     /* a number beyond 64 bits */
	TABLES("\0\1\1\0\0\0\0\0\0\0", -EBADMSG);                         /* a frame's string that is not there */
	TABLES("\0\1\0\0\0\xff\xff\xff\xff\x7f\0\0\0\0", -EBADMSG);       /* a line that is no int */
	TABLES("\0\1\0\0\0\0\3\0\0\0", -EBADMSG);                         /* a language that is none */
	TABLES("\0\1\0\0\0\0\0\1\0\0\0\0", -EBADMSG);                     /* a node that is its own parent */
	TABLES("\0\1\0\0\0\0\0\1\2\0\0\0", -EBADMSG);                     /* a parent before the root */
	TABLES("\0\1\0\0\0\0\0\1\1\1\0\0", -EBADMSG);                     /* a frame that is not there */
	TABLES("\0\0\0\1\xff\xff\xff\xff\x0f\0\0\0\0", -EBADMSG);         /* a pid that is none */
	TABLES("\0\0\0\1\1\1\0\0\0", -EBADMSG);                           /* a tid below zero */
	TABLES("\0\0\0\1\1\2\1\0\0", -EBADMSG);                           /* a name that is not there */
	TABLES("\0\0\0\1\1\2\0\0\1\2\0\1\0", -EBADMSG);                   /* a thread … */
	TABLES("\0\0\0\1\1\2\0\0\1\0\2\1\0", -EBADMSG);                   /* … and a stack that are not there */
	TABLES("\0\0\0\1\1\2\0\0\1\0\1\1\0", -EBADMSG);                   /* one before the first */
	TABLES("\0\0\0\1\1\2\0\0\1\0\0\xff\xff\xff\xff\x7f\0", -EBADMSG); /* more samples than there can be */
}

/* One frame, `depth` times one below the other. */
static void check_depth(size_t depth, int expected) {
	_cleanup_(strbuf_deinit) struct strbuf tables = { 0 };
	struct packed packed;

	strbuf_add(&tables, "\0\1\0\0\0\0\0", 7);
	strbuf_add(&tables, (const char[]){ (char)(depth | 0x80), (char)(depth >> 7 | 0x80), (char)(depth >> 14) }, 3);
	for (size_t i = 0; i < depth; i++)
		strbuf_add(&tables, "\1", 1);
	for (size_t i = 0; i < depth; i++)
		strbuf_add(&tables, "\0", 1);
	strbuf_add(&tables, "\0\0", 2);
	if (expected) {
		packed = wrap_tables(tables.data, tables.len);
		check_refused(packed.data, packed.len, expected);
		free(packed.data);
	} else {
		check_tables(tables.data, tables.len, 0);
	}
}

Test(pack, stacks_have_a_depth) {
	check_depth(PACK_DEPTH_MAX, 0);
	check_depth(PACK_DEPTH_MAX + 1, -EBADMSG);
}

Test(pack, bombs_do_not_go_off) {
	size_t len = (size_t)PACK_BYTES_MAX + 1;
	_free_ char *zeros = calloc(1, len);
	struct packed packed;

	cr_assert_not_null(zeros);
	packed = wrap_tables(zeros, len);
	cr_assert_lt(packed.len, 65536);
	check_refused(packed.data, packed.len, -EBADMSG);
	free(packed.data);
}

/* A frame that does not say its size, and one that says too little. */
Test(pack, a_size_is_to_be_told) {
	static const char tables[5];
	ZSTD_CCtx *context = ZSTD_createCCtx();
	uint8_t compressed[64];
	struct packed packed;
	size_t n;

	ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
	n = ZSTD_compress2(context, compressed, sizeof(compressed), tables, sizeof(tables));
	cr_assert_not(ZSTD_isError(n));
	packed = wrap(compressed, n);
	check_refused(packed.data, packed.len, -EBADMSG);
	free(packed.data);
	n = ZSTD_compress(compressed, sizeof(compressed), tables, sizeof(tables), 1);
	cr_assert_eq(compressed[5], sizeof(tables)); /* RFC 8878, 3.1.1.1: magic, descriptor, size */
	compressed[5]--;
	packed = wrap(compressed, n);
	check_refused(packed.data, packed.len, -EBADMSG);
	free(packed.data);
	ZSTD_freeCCtx(context);
}

Test(pack, too_much_is_refused) {
	struct profile *p = new_profile();
	struct pack_head head = { 0 };
	struct packed packed = { 0 };
	struct profile_count *many = calloc(PACK_ITEMS_MAX + 1, sizeof(*many));
	uint32_t thread = add_thread(p, 1, 1, "t");

	cr_assert_not_null(many);
	cr_assert_eq(profile_pack(p, many, PACK_ITEMS_MAX + 1, &head, &packed.data, &packed.len), -E2BIG);
	cr_assert_eq(profile_count(p, thread, 0, (uint64_t)PACK_SAMPLES_MAX + 1, 1), 0);
	cr_assert_eq(profile_pack(p, p->counts.items, 1, &head, &packed.data, &packed.len), -E2BIG);
	cr_assert_null(packed.data);
	free(many);
	profile_free(p);
}
