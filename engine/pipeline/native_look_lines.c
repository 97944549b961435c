/* SPDX-License-Identifier: MIT */
/* Lines and inlined functions for the frames of a dump.
 *
 * All addresses of one file are asked for at once, since opening its debug information is what takes time. Where a
 * function was inlined, a frame of its own is put above the one that it is part of. */
#include "engine/pipeline/native_look.h"

#include "engine/base/clock.h"
#include "engine/native/lines.h"
#include <errno.h>
#include <string.h>

struct places {
	native_line_vec lines; /* of all files; `query` is not used any more */
	struct map first;      /* address → index in lines */
	struct map count;      /* address → how many */
	struct map wanted;     /* address → 1: it was asked for, or is about to be */
	VEC(raddr) ask;        /* of one file */
};

static void places_deinit(struct places *places) {
	native_lines_free(&places->lines);
	map_deinit(&places->first);
	map_deinit(&places->count);
	map_deinit(&places->wanted);
	vec_free(&places->ask);
}

static int collect(struct places *places, const struct native_module *module, const struct pyspyd_thread *thread) {
	uint64_t known;
	int r = 0;

	for (size_t i = 0; !r && i < thread->frames_n; i++) {
		raddr at = thread->frames[i].address;

		if (thread->frames[i].lang != PYSPYD_NATIVE || at < module->start || at >= module->end ||
			map_get(&places->wanted, at, &known) || places->ask.n >= NATIVE_LINE_QUERIES_MAX)
			continue;
		r = map_put(&places->wanted, at, 1);
		if (!r)
			r = vec_push(&places->ask, at);
	}
	return r;
}

/* Takes the lines over. */
static int keep(struct places *places, native_line_vec *lines) {
	int r = vec_reserve(&places->lines, places->lines.n + lines->n);

	vec_foreach (line, lines) {
		raddr at = places->ask.items[line->query];
		uint64_t count = 0;

		if (r)
			return r;
		if (!map_get(&places->count, at, &count))
			r = map_put(&places->first, at, places->lines.n);
		if (!r)
			r = map_put(&places->count, at, count + 1);
		if (r)
			return r;
		places->lines.items[places->lines.n++] = *line;
		*line = (struct native_line){ 0 };
	}
	return r;
}

/* Return: 0, also where nothing is known; -ENOMEM. */
static int read_module(struct places *places, struct native_look *look, const struct native_module *module,
	struct pyspyd_thread *threads, size_t n, uint64_t deadline_ns) {
	uint64_t now = clock_mono_ns();
	native_line_vec lines = { 0 };
	int r = 0;

	places->ask.n = 0;
	for (size_t i = 0; !r && i < n; i++)
		r = collect(places, module, &threads[i]);
	if (r || !places->ask.n || now >= deadline_ns)
		return r;
	r = native_lines_read(look->modules, module, places->ask.items, places->ask.n, deadline_ns - now, &lines);
	if (!r)
		r = keep(places, &lines);
	native_lines_free(&lines);
	return r == -ENOMEM ? r : 0;
}

static int set_text(char **field, const char *text) {
	char *copy = strdup(text);

	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

static int set_line(struct pyspyd_frame *frame, const struct native_line *line) {
	frame->line = line->line <= INT32_MAX ? (int)line->line : 0;
	return set_text(&frame->file, line->file);
}

static int set_inlined(struct pyspyd_frame *frame, const struct native_line *line, const struct pyspyd_frame *into) {
	int r = set_line(frame, line);

	frame->lang = PYSPYD_NATIVE;
	frame->address = into->address;
	frame->inlined = true;
	if (!r)
		r = set_text(&frame->function, *line->function ? line->function : "?");
	if (!r)
		r = set_text(&frame->qualname, frame->function);
	return r ? r : set_text(&frame->module, into->module);
}

static size_t lines_of(const struct places *places, const struct pyspyd_frame *frame, size_t *ret_first) {
	uint64_t first, count;

	if (frame->lang != PYSPYD_NATIVE || !map_get(&places->first, frame->address, &first) ||
		!map_get(&places->count, frame->address, &count))
		return 0;
	*ret_first = first;
	return count;
}

/* One frame, and those that are inlined into it, moved to the end of `out`. */
static int spread(const struct places *places, struct pyspyd_frame *frame, struct pyspyd_frame *out, size_t *n) {
	size_t first = 0, count = lines_of(places, frame, &first);
	int r = 0;

	for (size_t i = first; !r && i < first + count; i++) {
		const struct native_line *line = &places->lines.items[i];

		r = line->inlined ? set_inlined(&out[(*n)++], line, frame) : set_line(frame, line);
	}
	out[(*n)++] = *frame;
	*frame = (struct pyspyd_frame){ 0 };
	return r;
}

static int spread_thread(const struct places *places, struct pyspyd_thread *thread) {
	size_t room = thread->frames_n + 1, n = 0, first;
	struct pyspyd_frame *frames;
	int r = 0;

	for (size_t i = 0; i < thread->frames_n; i++)
		room += lines_of(places, &thread->frames[i], &first);
	frames = calloc(room, sizeof(*frames));
	if (!frames)
		return -ENOMEM;
	for (size_t i = 0; i < thread->frames_n; i++) {
		int one = spread(places, &thread->frames[i], frames, &n);

		r = r ? r : one;
	}
	free(thread->frames);
	thread->frames = frames;
	thread->frames_n = n;
	return r;
}

int native_look_lines(struct native_look *look, struct pyspyd_thread *threads, size_t n, uint64_t time_ns) {
	uint64_t deadline = clock_mono_ns() + time_ns;
	struct places places = { 0 };
	int r = 0;

	for (size_t i = 0; !r && i < look->modules->items.n; i++)
		r = read_module(&places, look, &look->modules->items.items[i], threads, n, deadline);
	for (size_t i = 0; !r && places.lines.n && i < n; i++)
		r = spread_thread(&places, &threads[i]);
	places_deinit(&places);
	return r;
}
