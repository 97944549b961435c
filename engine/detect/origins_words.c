/* SPDX-License-Identifier: MIT */
/* Words for places at which things are made. A place is named where it made enough of them to be looked at first. */
#include "engine/detect/origins_words.h"

#include <stdio.h>

#define NAMED_SHARE 0.2
#define NAMED_LEAST 3

void detect_origins(struct detect_verdict *verdict, const struct detect_input *input, enum pyspyd_handle_what what) {
	size_t from = 0, to;

	while (from < input->origins_n && input->origins[from].what != what)
		from++;
	for (to = from; to < input->origins_n && input->origins[to].what == what;)
		to++;
	verdict->origins = input->origins + from;
	verdict->origins_n = to - from;
	verdict->origins_why = input->origins_why;
}

/* The place that is named; NULL: none stands out. */
static const struct pyspyd_origin *named(const struct detect_verdict *verdict) {
	const struct pyspyd_origin *place = verdict->origins;

	if (!verdict->origins_n || !place->frames_n || place->count < NAMED_LEAST || place->share < NAMED_SHARE)
		return NULL;
	return place;
}

static void add_place(struct strbuf *sb, const struct pyspyd_origin *place) {
	const struct pyspyd_frame *frame = &place->frames[place->own];

	detect_add_place(sb, frame->qualname, frame->file, frame->line);
}

void detect_add_origins(struct strbuf *sb, const struct detect_verdict *verdict, const char *made) {
	const struct pyspyd_origin *place = named(verdict);

	if (!place)
		return;
	strbuf_adds(sb, "; of ");
	detect_add_count(sb, (double)place->count / place->share);
	strbuf_addf(sb, " that were seen to be %s, ", made);
	detect_add_count(sb, (double)place->count);
	strbuf_adds(sb, " came from ");
	add_place(sb, place);
}

void detect_origins_advice(
	struct detect_verdict *verdict, char text[ORIGINS_ADVICE_MAX], const char *rest, const char *otherwise) {
	const struct pyspyd_origin *place = named(verdict);
	struct strbuf sb = { 0 };

	verdict->advice = otherwise;
	if (!place)
		return;
	strbuf_adds(&sb, "Look at ");
	add_place(&sb, place);
	strbuf_adds(&sb, rest);
	snprintf(text, ORIGINS_ADVICE_MAX, "%s", strbuf_str(&sb));
	strbuf_deinit(&sb);
	verdict->advice = text;
}
