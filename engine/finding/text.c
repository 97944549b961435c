/* SPDX-License-Identifier: MIT */
/* A finding for people:
 *
 *   open warning  spiking-thread: worker-3 (tid 4711) uses 99 % of a core for 12 s in parse (json.py:88), python-loop
 *     process 4700: python3 app.py
 *     hottest stack (93 % of 240 samples):
 *       parse (json.py:88)
 *       main (app.py:3)
 *     advice: …
 *
 * Where threads wait, the stacks of several of them stand in place of the hottest one; where something grew, what did.
 */
#include "engine/base/util.h"
#include "engine/finding/finding.h"
#include "engine/finding/growth_text.h"
#include "engine/finding/stack_text.h"
#include <inttypes.h>
#include <jansson.h>

#define STACK_SHOWN 12  /* frames, the innermost ones */
#define THREADS_SHOWN 4 /* of those that wait */
#define STACK_OF_MANY_SHOWN 8
#define NATIVE_SHOWN 2 /* of the native frames above the Python ones */

static enum text_style style_of(const struct pyspyd_finding *finding) {
	if (finding->state == PYSPYD_RESOLVED)
		return TEXT_GREEN;
	return finding->severity == PYSPYD_CRITICAL   ? TEXT_RED
		: finding->severity == PYSPYD_WARNING ? TEXT_YELLOW
						      : TEXT_BOLD;
}

static void add_head(struct strbuf *sb, const struct pyspyd_finding *finding, bool colour) {
	char duration[32];

	text_style(sb, colour, style_of(finding));
	strbuf_addf(sb, "%s %s", finding_state_name(finding->state), finding_severity_name(finding->severity));
	text_style(sb, colour, TEXT_PLAIN);
	strbuf_adds(sb, "  ");
	text_add(sb, finding->summary, DETECT_SUMMARY_MAX);
	if (finding->state == PYSPYD_RESOLVED) {
		detect_duration_text(finding->duration_ns, duration, sizeof(duration));
		strbuf_addf(sb, "; it lasted %s", duration);
	}
	strbuf_addf(sb, "\n  process %d: ", (int)finding->process.pid);
	text_command(sb, &finding->process);
	strbuf_adds(sb, "\n");
}

/* Samples show what a thread did most; the wait graph, where each of those that wait stands. */
static void add_stack_head(struct strbuf *sb, const struct pyspyd_finding *finding, size_t index) {
	const struct pyspyd_finding_thread *thread = &finding->threads[index];
	json_t *hottest = json_array_get(json_object_get(finding->evidence, "stacks"), 0);
	json_t *samples = json_object_get(finding->evidence, "samples");

	if (thread->waits_for) {
		strbuf_adds(sb, "  ");
		text_add(sb, thread->thread.name, TEXT_NAME_MAX);
		if (thread->thread.tid)
			strbuf_addf(sb, " (tid %d)", (int)thread->thread.tid);
		strbuf_adds(sb, ", ");
		text_add(sb, thread->role, TEXT_NAME_MAX);
		strbuf_adds(sb, ":\n");
		return;
	}
	strbuf_adds(sb, "  hottest stack");
	if (hottest && samples && json_integer_value(samples))
		strbuf_addf(sb, " (%.0f %% of %" JSON_INTEGER_FORMAT " samples)",
			100 * json_number_value(json_object_get(hottest, "share")), json_integer_value(samples));
	strbuf_adds(sb, ":\n");
}

/* Where native frames were merged in, the Python frames and the innermost native ones tell enough. Return: how many
 * frames those are; their indices are in `told`, as far as there is room. */
static size_t choose_frames(const struct pyspyd_thread *thread, size_t *told, size_t room) {
	size_t python = 0, native = 0, n = 0, seen = 0;

	for (size_t i = 0; i < thread->frames_n; i++)
		python += thread->frames[i].lang == PYSPYD_PYTHON;
	for (size_t i = 0; i < thread->frames_n; i++) {
		bool is_python = thread->frames[i].lang == PYSPYD_PYTHON;
		bool innermost = thread->frames[i].lang == PYSPYD_NATIVE && !seen && native++ < NATIVE_SHOWN;

		seen += is_python;
		if (thread->native && python && !is_python && !innermost)
			continue;
		if (n < room)
			told[n] = i;
		n++;
	}
	return n;
}

static void add_stack(
	struct strbuf *sb, const struct pyspyd_finding *finding, size_t index, size_t shown, bool colour) {
	const struct pyspyd_thread *thread = &finding->threads[index].thread;
	size_t told[STACK_SHOWN], n = choose_frames(thread, told, min_of(shown, ARRAY_SIZE(told)));

	if (!thread->frames_n)
		return;
	add_stack_head(sb, finding, index);
	for (size_t i = 0; i < min_of(n, shown); i++) {
		strbuf_adds(sb, "    ");
		text_frame(sb, &thread->frames[told[i]], true, colour);
		strbuf_adds(sb, "\n");
	}
	if (n > shown)
		strbuf_addf(sb, "    … and %zu more\n", n - shown);
}

static void add_stacks(struct strbuf *sb, const struct pyspyd_finding *finding, bool colour) {
	if (!finding->threads_n)
		return;
	if (!finding->threads[0].waits_for) {
		add_stack(sb, finding, 0, STACK_SHOWN, colour);
		return;
	}
	for (size_t i = 0; i < finding->threads_n && i < THREADS_SHOWN; i++)
		add_stack(sb, finding, i, STACK_OF_MANY_SHOWN, colour);
	if (finding->threads_n > THREADS_SHOWN)
		strbuf_addf(sb, "  … and %zu more threads\n", finding->threads_n - THREADS_SHOWN);
}

char *pyspyd_finding_text(const struct pyspyd_finding *finding, bool colour) {
	struct strbuf sb = { 0 };

	add_head(&sb, finding, colour);
	if (finding->state != PYSPYD_RESOLVED) {
		add_stacks(&sb, finding, colour);
		growth_text(&sb, finding->evidence);
		if (finding->advice && *finding->advice) {
			strbuf_adds(&sb, "  advice: ");
			text_add(&sb, finding->advice, TEXT_PATH_MAX);
			strbuf_adds(&sb, "\n");
		}
	}
	return strbuf_take(&sb);
}
