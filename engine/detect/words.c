/* SPDX-License-Identifier: MIT */
/* Summaries, facts and parties of verdicts: what several detectors write alike. */
#include "engine/detect/words.h"

#include "engine/base/util.h"
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define SHOWN_NAME_MAX 72 /* bytes; printable forms are at most four times as long, and three fit in a summary */

/* The longest part of the text that is at most n bytes and ends with a whole character. */
static size_t whole_part(const char *text, size_t n) {
	for (int back = 0; back < 3 && n && ((unsigned char)text[n] & 0xc0) == 0x80; back++)
		n--;
	return n;
}

void detect_add_text(struct strbuf *sb, const char *text, size_t max) {
	size_t n = text ? strnlen(text, max + 1) : 0;
	bool cut = n > max;

	if (cut)
		n = whole_part(text, max);
	strbuf_add_printable(sb, text ? text : "?", text ? n : 1);
	if (cut)
		strbuf_adds(sb, "…");
}

void detect_add_name(struct strbuf *sb, const char *name) {
	detect_add_text(sb, name, SHOWN_NAME_MAX);
}

static const char *base_name(const char *file) {
	const char *slash = strrchr(file, '/');

	return slash && slash[1] ? slash + 1 : file;
}

static void add_file(struct strbuf *sb, const char *file, int line) {
	detect_add_name(sb, base_name(file));
	if (line > 0)
		strbuf_addf(sb, ":%d", line);
}

void detect_add_place(struct strbuf *sb, const char *function, const char *file, int line) {
	detect_add_name(sb, function);
	if (!*file)
		return;
	strbuf_adds(sb, " (");
	add_file(sb, file, line);
	strbuf_adds(sb, ")");
}

void detect_add_count(struct strbuf *sb, double count) {
	char digits[32];
	/* Beyond that nobody counts, and a double does not either. */
	int n = snprintf(digits, sizeof(digits), "%.0f", fmax(fmin(count, 1e18), -1e18));

	for (int i = 0; i < n; i++) {
		strbuf_add(sb, &digits[i], 1);
		if (digits[i] != '-' && i + 1 < n && (n - 1 - i) % 3 == 0)
			strbuf_adds(sb, ",");
	}
}

void detect_add_bytes(struct strbuf *sb, double bytes) {
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	size_t unit = 0;

	/* What would be shown as 1024.0 is shown as 1.0 of the next. */
	for (; unit + 1 < ARRAY_SIZE(units) && fabs(bytes) >= (unit ? 1023.95 : 1024); unit++)
		bytes /= 1024;
	strbuf_addf(sb, "%.*f %s", unit ? 1 : 0, bytes, units[unit]);
}

const struct pyspyd_frame *detect_node_frame(const struct pyspyd_wait_node *node) {
	return node->site < node->frames_n ? &node->frames[node->site] : NULL;
}

static const char *text_or(const char *text, const char *otherwise) {
	return text && *text ? text : otherwise;
}

static const char *function_of(const struct pyspyd_frame *frame) {
	return text_or(frame->qualname, text_or(frame->function, "?"));
}

bool detect_is_actor(const struct pyspyd_wait_node *node) {
	return node->kind == PYSPYD_WAIT_THREAD || node->kind == PYSPYD_WAIT_TASK;
}

bool detect_is_own_thread(const struct detect_input *input, const struct pyspyd_wait_node *node) {
	return node->kind == PYSPYD_WAIT_THREAD && node->pid == input->pid;
}

/* What has to happen to a resource, by its type, for those who wait for it to go on. Who is about to do it is named
 * next. */
static const struct {
	const char *type, *words;
} acts[] = {
	{ "Event", "to be set by " },
	{ "future", "to be set by " },
	{ "Condition", "to be notified by " },
	{ "Queue", "to be filled by " },
	{ "LifoQueue", "to be filled by " },
	{ "PriorityQueue", "to be filled by " },
	{ "SimpleQueue", "to be filled by " },
	{ "full Queue", "to be emptied by " },
	{ "unfinished tasks of Queue", "to be done by " },
	{ "Barrier", "to be reached by " },
	{ "result of a pool", "to be brought by " },
	{ "loop", "to be brought by " },
	{ "pipe", "by " },
	{ "socket", "by " },
};

static bool can_be_held(const char *type) {
	static const char *const parts[] = { "lock", "mutex", "gil", "semaphore" };

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (strcasestr(type, parts[i]))
			return true;
	return false;
}

const char *detect_link(const struct pyspyd_wait_node *resource, const struct pyspyd_wait_node *to) {
	const char *type = text_or(resource->type, "");

	for (size_t i = 0; i < ARRAY_SIZE(acts); i++)
		if (!strcmp(type, acts[i].type))
			return acts[i].words;
	if (to->kind == PYSPYD_WAIT_RESOURCE || !can_be_held(type))
		return "up to ";
	return strcmp(text_or(to->type, ""), "threads") ? "held by " : "to be released by ";
}

static void add_expression(struct strbuf *sb, const char *expression) {
	if (!expression)
		return;
	strbuf_adds(sb, " `");
	detect_add_name(sb, expression);
	strbuf_adds(sb, "`");
}

void detect_add_process(struct strbuf *sb, const struct pyspyd_wait_node *node) {
	const char *type = text_or(node->type, "");

	if (!strcmp(type, "process-end"))
		strbuf_adds(sb, "the end of ");
	else if (!strcmp(type, "threads"))
		strbuf_adds(sb, "any thread of ");
	strbuf_addf(sb, "process %d", (int)node->pid);
	if (!text_or(node->label, NULL))
		return;
	strbuf_adds(sb, " (");
	detect_add_name(sb, node->label);
	strbuf_adds(sb, ")");
}

void detect_add_node(struct strbuf *sb, const struct pyspyd_wait_node *node, const char *expression) {
	const struct pyspyd_frame *frame = detect_is_actor(node) ? detect_node_frame(node) : NULL;

	if (node->kind == PYSPYD_WAIT_PROCESS)
		detect_add_process(sb, node);
	else
		detect_add_name(sb, text_or(node->label, text_or(node->type, "?")));
	add_expression(sb, detect_is_actor(node) ? NULL : expression);
	if (!frame)
		return;
	strbuf_adds(sb, " (");
	detect_add_name(sb, function_of(frame));
	if (text_or(frame->file, NULL)) {
		strbuf_adds(sb, ", ");
		add_file(sb, frame->file, frame->line);
	}
	strbuf_adds(sb, ")");
}

int detect_set_summary(struct detect_verdict *verdict, struct strbuf *text, const char *suffix) {
	size_t room = sizeof(verdict->summary) - 1 - strlen(suffix);
	const char *string = strbuf_str(text);
	bool cut = text->len > room;
	int r = text->failed ? -ENOMEM : 0;

	if (!r)
		snprintf(verdict->summary, sizeof(verdict->summary), "%.*s%s%s",
			(int)(cut ? whole_part(string, room - strlen("…")) : text->len), string, cut ? "…" : "",
			suffix);
	strbuf_deinit(text);
	return r;
}

static void add_fact(struct detect_verdict *verdict, struct detect_fact fact) {
	assert(verdict->facts_n < DETECT_FACTS_MAX);
	verdict->facts[verdict->facts_n++] = fact;
}

void detect_fact_number(struct detect_verdict *verdict, const char *key, double number) {
	add_fact(verdict, (struct detect_fact){ .key = key, .type = DETECT_NUMBER, .number = number });
}

void detect_fact_count(struct detect_verdict *verdict, const char *key, uint64_t count) {
	add_fact(verdict, (struct detect_fact){ .key = key, .type = DETECT_COUNT, .count = count });
}

void detect_fact_text(struct detect_verdict *verdict, const char *key, const char *text) {
	add_fact(verdict, (struct detect_fact){ .key = key, .type = DETECT_TEXT, .text = text });
}

static void add_party(struct detect_verdict *verdict, struct detect_party party) {
	party.cpu_percent = -1;
	if (verdict->parties_n < DETECT_PARTIES_MAX)
		verdict->parties[verdict->parties_n++] = party;
}

void detect_party_thread(struct detect_verdict *verdict, const struct detect_thread *thread, const char *role) {
	add_party(verdict, (struct detect_party){ .thread = thread, .role = role });
}

void detect_party_node(struct detect_verdict *verdict, uint32_t node, const char *role) {
	add_party(verdict, (struct detect_party){ .node = node, .role = role });
}

uint32_t detect_find_node(const struct detect_input *input, pid_t tid) {
	for (size_t i = 0; input->waits && i < input->waits->nodes_n; i++)
		if (input->waits->nodes[i].tid == tid && detect_is_own_thread(input, &input->waits->nodes[i]))
			return (uint32_t)i;
	return UINT32_MAX;
}

void detect_party(struct detect_verdict *verdict, const struct detect_input *input, const struct detect_thread *thread,
	const char *role) {
	uint32_t node = detect_find_node(input, thread->tid);

	if (node == UINT32_MAX || !input->waits->nodes[node].frames_n) {
		detect_party_thread(verdict, thread, role);
		return;
	}
	verdict->waits = input->waits;
	detect_party_node(verdict, node, role);
}

void detect_add_party_place(struct strbuf *sb, const struct detect_verdict *verdict, const struct detect_party *party) {
	const struct detect_thread *thread = party->thread;

	if (!thread) {
		const struct pyspyd_frame *frame = detect_node_frame(&verdict->waits->nodes[party->node]);

		if (frame) {
			strbuf_adds(sb, " in ");
			detect_add_place(sb, function_of(frame), text_or(frame->file, ""), frame->line);
		}
		return;
	}
	for (size_t i = 0; thread->stacks_n && i < thread->stacks->frames_n; i++) {
		const struct detect_frame *frame = &thread->stacks->frames[i];

		if (frame->lang != PYSPYD_PYTHON)
			continue;
		strbuf_adds(sb, " in ");
		detect_add_place(sb, *frame->qualname ? frame->qualname : frame->function, frame->file, frame->line);
		return;
	}
}
