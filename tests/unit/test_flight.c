/* SPDX-License-Identifier: MIT */
/* Flame graphs out of packed profiles: sums and comparisons are right, and what cannot be read is left out and said. */
#include "pyspyd/flight.h"

#include "engine/base/util.h"
#include "engine/profile/pack.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#define MINUTE_NS UINT64_C(60000000000)
#define PERIOD_NS UINT64_C(50000000)
#define START_NS UINT64_C(1700000040000000000) /* 2023-11-14T22:14:00Z */
#define SVG_NAME "<script>\"&;\xff"

struct stack {
	const char *outer, *inner; /* NULL: none */
	uint64_t samples;
	uint64_t period_ns; /* 0: the usual one */
};

static uint32_t intern(struct profile *p, const char *s) {
	return intern_add(&p->strings, s, strlen(s));
}

static uint32_t add_node(struct profile *p, uint32_t parent, const char *function) {
	struct profile_frame frame = { .function = function ? intern(p, function) : 0 };

	return function ? profile_add_node(p, parent, profile_add_frame(p, &frame)) : parent;
}

/* A minute of process 10; stacks alternate between two threads. */
static struct pyspyd_packed pack_minute(uint64_t minute, const struct stack *stacks, size_t n) {
	struct profile *p = NULL;
	struct pack_head head = { .start_real_ns = START_NS + minute * MINUTE_NS, .period_ns = PERIOD_NS };
	struct pyspyd_packed packed = { .start_real_ns = head.start_real_ns };
	void *data = NULL;

	cr_assert_eq(profile_new(&p), 0);
	packed.end_real_ns = head.end_real_ns = head.start_real_ns + MINUTE_NS;
	for (size_t i = 0; i < n; i++) {
		struct profile_thread thread = { .pid = 10, .tid = 10 + (pid_t)i % 2, .name = intern(p, "t") };
		uint32_t node = add_node(p, 0, stacks[i].outer);
		uint64_t period = stacks[i].period_ns ? stacks[i].period_ns : PERIOD_NS;

		if (stacks[i].inner)
			node = add_node(p, node, stacks[i].inner);
		thread.process_name = intern(p, "prog");
		head.period_ns = period;
		cr_assert_eq(profile_count(p, profile_add_thread(p, &thread), node, stacks[i].samples,
				     stacks[i].samples * period),
			0);
	}
	head.accuracy = (struct pyspyd_accuracy){ .source = "vm", .looks = 1200, .expected = 1201 };
	cr_assert_eq(profile_pack(p, p->counts.items, p->counts.n, &head, &data, &packed.len), 0);
	packed.data = data;
	profile_free(p);
	return packed;
}

#define PACK(minute, ...) \
	pack_minute(minute, (const struct stack[]){ __VA_ARGS__ }, ARRAY_SIZE(((const struct stack[]){ __VA_ARGS__ })))

static char *contents(int fd) {
	off_t size = lseek(fd, 0, SEEK_END);
	char *text = calloc(1, (size_t)size + 1);

	cr_assert_eq(pread(fd, text, (size_t)size, 0), size);
	return text;
}

static char *write_to_text(
	const struct pyspyd_packed *packed, size_t n, const char *format, bool threads, size_t *ret_skipped) {
	_close_ int fd = memfd_create("flight", MFD_CLOEXEC);
	struct pyspyd_flight_options options = { .format = format, .threads = threads };
	struct err err = { 0 };

	cr_assert_eq(pyspyd_flight_write(packed, n, &options, fd, ret_skipped, &err), 0, "%s", err.text);
	return contents(fd);
}

static char *diff_to_text(const struct pyspyd_packed *before, const struct pyspyd_packed *after, const char *format) {
	_close_ int fd = memfd_create("flight", MFD_CLOEXEC);
	struct pyspyd_flight_options options = { .format = format };
	struct err err = { 0 };
	size_t skipped = 7;

	cr_assert_eq(pyspyd_flight_diff(before, 1, after, 1, &options, fd, &skipped, &err), 0, "%s", err.text);
	cr_assert_eq(skipped, 0);
	return contents(fd);
}

static void free_packed(struct pyspyd_packed *packed, size_t n) {
	for (size_t i = 0; i < n; i++)
		free((void *)packed[i].data);
}

static void check_has(const char *text, const char *part) {
	cr_assert(strstr(text, part), "'%s' is not in: %.2000s", part, text);
}

Test(flight, minutes_add_up) {
	struct pyspyd_packed packed[] = {
		PACK(1, { "main", "f", 3, 0 }, { "main", "g", 4, 0 }),
		PACK(0, { "main", "g", 5, 0 }, { "main", "f", 6, 0 }, { NULL, NULL, 2, 0 }),
	};
	size_t skipped = 7;
	_free_ char *text = write_to_text(packed, 2, "collapsed", false, &skipped);
	_free_ char *threads = write_to_text(packed, 2, "collapsed", true, &skipped);

	cr_assert_str_eq(text, "<no frames> 2\nmain;f 9\nmain;g 9\n");
	check_has(threads, "t (10);main;f 3\n");
	check_has(threads, "t (11);main;f 6\n");
	cr_assert_eq(skipped, 0);
	free_packed(packed, 2);
}

Test(flight, every_format_is_written) {
	static const char *const formats[] = { "svg", "speedscope", "pprof", "html", "gecko", "chrome" };
	struct pyspyd_packed packed[] = { PACK(3, { "main", "f", 3, 0 }), PACK(1, { "main", "f", 4, 0 }) };
	size_t skipped;

	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		_free_ char *text = write_to_text(packed, 2, formats[i], false, &skipped);

		cr_assert(*text, "%s", formats[i]);
		if (i == 2)
			continue;
		check_has(text, "prog (10), 2023-11-14T22:15:00Z to 2023-11-14T22:18:00Z");
		check_has(text, "wall, 7 samples, 20 Hz, 120 s");
		check_has(text, "2400 of 2402 ticks");
	}
	free_packed(packed, 2);
}

/* A sample of the second minute stands for five times as long. */
Test(flight, time_counts_where_the_rate_changed) {
	struct pyspyd_packed packed[] = {
		PACK(0, { "main", "f", 300, 0 }, { "main", "g", 700, 0 }),
		PACK(1, { "main", "f", 100, 5 * PERIOD_NS }),
	};
	size_t skipped;
	_free_ char *text = write_to_text(packed, 2, "collapsed", false, &skipped);

	cr_assert_str_eq(text, "main;f 800\nmain;g 700\n");
	free_packed(packed, 2);
}

Test(flight, damage_is_left_out) {
	struct pyspyd_packed packed[] = {
		PACK(0, { "main", "f", 3, 0 }),
		PACK(1, { "main", "g", 4, 0 }),
		PACK(2, { "main", "h", 5, 0 }),
	};
	size_t skipped = 7;
	char *text;

	((uint8_t *)packed[1].data)[packed[1].len - 1] ^= 1;
	((uint8_t *)packed[2].data)[4] = 99; /* the version */
	text = write_to_text(packed, 3, "collapsed", false, &skipped);
	cr_assert_str_eq(text, "main;f 3\n");
	cr_assert_eq(skipped, 2);
	free(text);
	free_packed(packed, 3);
}

static int try(const struct pyspyd_packed *packed, size_t n, const char *format, struct err *err) {
	struct pyspyd_flight_options options = { .format = format };
	_close_ int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	size_t skipped;

	return pyspyd_flight_write(packed, n, &options, fd, &skipped, err);
}

static int try_diff(
	const struct pyspyd_packed *before, const struct pyspyd_packed *after, const char *format, struct err *err) {
	struct pyspyd_flight_options options = { .format = format };
	_close_ int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	size_t skipped;

	return pyspyd_flight_diff(before, before != NULL, after, after != NULL, &options, fd, &skipped, err);
}

Test(flight, what_is_wrong_is_said) {
	struct pyspyd_packed packed = PACK(0, { "main", "f", 3, 0 }), empty = PACK(0, { "main", "f", 0, 0 });
	struct pyspyd_packed damaged = { .data = "what", .len = 4 };
	struct err err = { 0 };

	cr_assert_eq(try(&packed, 1, "jpeg", &err), PYSPYD_E_USAGE);
	check_has(err.text, "jpeg");
	cr_assert_eq(try(&packed, 1, NULL, &err), PYSPYD_E_USAGE);
	cr_assert_eq(try(NULL, 0, "svg", &err), -ENODATA);
	cr_assert_eq(try(&empty, 1, "svg", &err), -ENODATA);
	check_has(err.text, "no thread was seen");
	cr_assert_eq(try(&damaged, 1, "svg", &err), -ENODATA);
	check_has(err.text, "1 of 1");
	cr_assert_eq(try_diff(&packed, &packed, "jpeg", &err), PYSPYD_E_USAGE);
	cr_assert_eq(try_diff(&packed, &packed, "pprof", &err), PYSPYD_E_USAGE);
	check_has(err.text, "pprof");
	cr_assert_eq(try_diff(NULL, &packed, "svg", &err), -ENODATA);
	check_has(err.text, "before");
	cr_assert_eq(try_diff(&packed, &empty, "svg", &err), -ENODATA);
	cr_assert_null(strstr(err.text, "before"));
	cr_assert_eq(try_diff(&packed, &packed, "svg", &err), 0);
	free_packed(&packed, 1);
	free_packed(&empty, 1);
}

Test(flight, failed_writes_are_errors) {
	struct pyspyd_packed packed = PACK(0, { "main", "f", 3, 0 });
	struct pyspyd_flight_options options = { .format = "svg" };
	_close_ int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	struct err err = { 0 };
	size_t skipped;

	if (fd < 0)
		cr_skip_test("/dev/full cannot be opened");
	cr_assert_eq(pyspyd_flight_write(&packed, 1, &options, fd, &skipped, &err), -ENOSPC);
	cr_assert_eq(pyspyd_flight_diff(&packed, 1, &packed, 1, &options, fd, &skipped, &err), -ENOSPC);
	free_packed(&packed, 1);
}

/* 100 samples before, 400 after: the former count four times. */
Test(flight, differences_are_of_shares) {
	struct pyspyd_packed before = PACK(0, { "main", "f", 90, 0 }, { "main", "gone", 10, 0 });
	struct pyspyd_packed after = PACK(1, { "main", "f", 100, 0 }, { "main", "new", 300, 0 });
	_free_ char *text = diff_to_text(&before, &after, "collapsed");
	_free_ char *back = diff_to_text(&after, &before, "collapsed");

	cr_assert_str_eq(text, "main;f 360 100\nmain;new 0 300\nmain;gone 40 0\n");
	cr_assert_str_eq(back, "main;f 100 360\nmain;gone 0 40\nmain;new 300 0\n");
	free_packed(&before, 1);
	free_packed(&after, 1);
}

/* The colour of the box with this name. */
static unsigned colour_of(const char *svg, const char *name) {
	char title[64];
	const char *at;
	unsigned colour = 0;

	snprintf(title, sizeof(title), "<title>%s\n", name);
	at = strstr(svg, title);
	cr_assert(at, "no box '%s'", name);
	at = strstr(at, "fill=\"#");
	cr_assert_eq(sscanf(at, "fill=\"#%6x", &colour), 1);
	return colour;
}

static void check_colour(const char *svg, const char *name, int change) {
	unsigned colour = colour_of(svg, name), red = colour >> 16, green = colour >> 8 & 255, blue = colour & 255;

	if (change > 0)
		cr_assert(red > green + 50 && red > blue + 50, "%s: %06x", name, colour);
	else if (change < 0)
		cr_assert(blue > green + 50 && blue > red + 50, "%s: %06x", name, colour);
	else
		cr_assert(red == green && red == blue, "%s: %06x", name, colour);
}

Test(flight, growth_is_red_and_decline_blue) {
	struct pyspyd_packed before =
		PACK(0, { "same", NULL, 50, 0 }, { "less", NULL, 40, 0 }, { "gone", NULL, 10, 0 });
	struct pyspyd_packed after =
		PACK(1, { "same", NULL, 500, 0 }, { "less", NULL, 100, 0 }, { "new", NULL, 400, 0 });
	_free_ char *svg = diff_to_text(&before, &after, "svg");

	check_colour(svg, "all", 0);
	check_colour(svg, "same", 0);
	check_colour(svg, "less", -1);
	check_colour(svg, "gone", -1);
	check_colour(svg, "new", 1);
	check_has(svg, "less\n10.00 %, before 40.00 % (-30.00)");
	check_has(svg, "all\n100.00 %, before 100.00 % (+0.00)");
	check_has(svg, "2023-11-14T22:15:00Z to 2023-11-14T22:16:00Z, before: 2023-11-14T22:14:00Z");
	check_has(svg, "wall, 1000 samples, 20 Hz, 60 s; red: more than before, blue: less");
	free_packed(&before, 1);
	free_packed(&after, 1);
}

/* Colours and widths of what is hardly there are within bounds, and names are as harmless as elsewhere. */
Test(flight, differences_survive_hostile_profiles) {
	struct pyspyd_packed before = PACK(0, { SVG_NAME, NULL, UINT32_MAX, UINT64_C(1) << 62 }, { "x", NULL, 1, 1 });
	struct pyspyd_packed after = PACK(1, { SVG_NAME, NULL, 1, 1 }, { "x", NULL, UINT32_MAX, UINT64_C(1) << 62 });
	_free_ char *svg = diff_to_text(&before, &after, "svg");
	_free_ char *html = diff_to_text(&before, &after, "html");
	_free_ char *text = diff_to_text(&before, &after, "collapsed");
	size_t lines = 0;

	free(diff_to_text(&before, &after, "gecko"));
	free(diff_to_text(&before, &after, "chrome"));
	cr_assert_null(strstr(svg, "<script>\""));
	cr_assert_null(strstr(html, "<script>\""));
	check_has(svg, "&lt;script&gt;&quot;&amp;;");
	for (const char *line = text; (line = strchr(line, '\n')); line++)
		lines++;
	cr_assert_eq(lines, 2);
	check_has(text, "<script>\"&:");
	free_packed(&before, 1);
	free_packed(&after, 1);
}
