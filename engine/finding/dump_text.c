/* SPDX-License-Identifier: MIT */
/* pyspyd_dump for machines and for people:
 *
 *   Process 4711: python3 app.py (Python 3.13.1)
 *
 *   Thread 4711 (MainThread) [R, GIL]
 *     parse (/srv/app/json.py:88)
 *       text: str = '{"a": 1}'
 *       reader: Reader = <app.Reader object at 0x7f21c4a3b2d0>
 *         .position: int = 3
 *     <module> (/srv/app/app.py:3)
 *     Handles ValueError: bad number
 *       number (/srv/app/json.py:31)
 *
 * What a variable's object has in it, only a snapshot knows (objects_text.c). The tasks of asyncio, where they were
 * asked for, are dump_tasks.c's. */
#include "pyspyd/dump.h"

#include "engine/base/util.h"
#include "engine/finding/dump_tasks.h"
#include "engine/finding/exceptions.h"
#include "engine/finding/objects_text.h"
#include "engine/finding/stack_json.h"
#include "engine/finding/stack_text.h"
#include <inttypes.h>

#define OBJECT_LINES_MAX 64 /* below the variables of one frame */

static json_t *threads_json(const struct pyspyd_dump *dump) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < dump->threads_n; i++)
		ok = !json_array_append_new(array, stack_json_thread(&dump->threads[i], NULL, -1));
	return json_done(ok, array);
}

static json_t *counters_json(const struct pyspyd_dump *dump) {
	uint64_t frames = 0, truncated = 0, incomplete = 0, disagree = 0, stopped_ns = 0;
	bool native = false;
	json_t *object = json_object();
	bool ok;

	for (size_t i = 0; i < dump->threads_n; i++) {
		frames += dump->threads[i].frames_n;
		truncated += dump->threads[i].truncated;
		incomplete += dump->threads[i].incomplete;
		native = native || dump->threads[i].native;
		disagree += dump->threads[i].disagree;
		stopped_ns = max_of(stopped_ns, dump->threads[i].stopped_ns);
	}
	ok = json_put(true, object, "threads", json_count(dump->threads_n));
	ok = json_put(ok, object, "frames", json_count(frames));
	ok = json_put(ok, object, "truncated", json_count(truncated));
	ok = json_put(ok, object, "incomplete", json_count(incomplete));
	if (native) {
		ok = json_put(ok, object, "disagree", json_count(disagree));
		ok = json_put(ok, object, "stopped_max_us", json_real_or_null((double)stopped_ns / 1e3));
	}
	if (dump->async) {
		ok = json_put(ok, object, "tasks", json_count(dump->tasks_n));
		ok = json_put(ok, object, "tasks_truncated", json_boolean(dump->tasks_truncated));
	}
	return json_done(ok, object);
}

char *pyspyd_dump_json(const struct pyspyd_dump *dump) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "schema", json_string("pyspyd.dump/1"));

	ok = json_put(ok, object, "process", stack_json_process(&dump->process));
	if (dump->process.core)
		ok = json_put(ok, object, "core", stack_json_core(dump->process.core));
	ok = json_put(ok, object, "threads", threads_json(dump));
	ok = json_put(ok, object, "counters", counters_json(dump));
	if (dump->async) {
		ok = json_put(ok, object, "loops", dump_loops_json(dump));
		ok = json_put(ok, object, "tasks", dump_tasks_json(dump));
	}
	return json_line(json_done(ok, object));
}

/* `core`: of the thread that died; else NULL. */
static void add_thread_line(
	struct strbuf *sb, const struct pyspyd_thread *thread, const struct pyspyd_core *core, bool colour) {
	bool running = thread->state == 'R';

	text_style(sb, colour, running ? TEXT_GREEN : TEXT_BOLD);
	if (thread->tid)
		strbuf_addf(sb, "Thread %d (", (int)thread->tid);
	else
		strbuf_addf(sb, "Thread 0x%" PRIx64 " (", thread->ident);
	text_add(sb, thread->name, TEXT_NAME_MAX);
	strbuf_adds(sb, ") [");
	strbuf_add_printable(sb, thread->state ? &thread->state : "?", 1);
	if (core)
		strbuf_addf(sb, ", %s", core->signal_name);
	if (thread->gil == PYSPYD_GIL_HELD)
		strbuf_adds(sb, ", GIL");
	if (thread->gil == PYSPYD_GIL_WAITING)
		strbuf_adds(sb, ", waits for the GIL");
	if (thread->in_gc)
		strbuf_adds(sb, ", collects garbage");
	if (thread->interpreter < 0)
		strbuf_adds(sb, ", not Python's");
	if (thread->interpreter > 0)
		strbuf_addf(sb, ", interpreter %" PRId64, thread->interpreter);
	strbuf_adds(sb, "]");
	text_style(sb, colour, TEXT_PLAIN);
	strbuf_adds(sb, "\n");
}

static void add_local(struct strbuf *sb, const struct pyspyd_local *local, bool colour) {
	text_style(sb, colour, TEXT_CYAN);
	strbuf_adds(sb, "    ");
	text_add(sb, local->name, TEXT_NAME_MAX);
	text_style(sb, colour, TEXT_PLAIN);
	strbuf_adds(sb, ": ");
	text_add(sb, local->type, TEXT_NAME_MAX);
	strbuf_adds(sb, " = ");
	text_add(sb, local->value, TEXT_PATH_MAX);
	strbuf_adds(sb, "\n");
}

static bool has_native(const struct pyspyd_thread *thread) {
	for (size_t i = 0; i < thread->frames_n; i++)
		if (thread->frames[i].lang == PYSPYD_NATIVE)
			return true;
	return false;
}

static void add_native_remarks(struct strbuf *sb, const struct pyspyd_thread *thread) {
	if (thread->native_end)
		strbuf_addf(sb, "  … (%s: %s)\n", has_native(thread) ? "native frames end here" : "no native frames",
			thread->native_end);
	if (thread->disagree)
		strbuf_adds(sb, "  … (native and Python frames do not agree)\n");
}

/* `seen`: NULL: it is not known what its objects hold. */
static void add_locals(struct strbuf *sb, const struct pyspyd_frame *frame, struct objects_text *objects,
	const struct pyspyd_object_frame *seen, bool colour) {
	size_t lines = OBJECT_LINES_MAX;

	for (size_t i = 0; frame->locals && i < frame->locals_n; i++) {
		add_local(sb, &frame->locals[i], colour);
		if (seen)
			objects_text_add(objects, sb, seen, frame->locals[i].name, &lines);
	}
}

static void add_frames(
	struct strbuf *sb, const struct pyspyd_thread *thread, struct objects_text *objects, bool colour) {
	const struct pyspyd_object_thread *seen = objects_text_thread(objects, thread);
	size_t python = 0;

	for (size_t i = 0; i < thread->frames_n; i++) {
		const struct pyspyd_frame *frame = &thread->frames[i];

		strbuf_adds(sb, "  ");
		text_frame(sb, frame, false, colour);
		strbuf_adds(sb, "\n");
		add_locals(sb, frame, objects, seen && python < seen->frames_n ? &seen->frames[python] : NULL, colour);
		python += frame->lang == PYSPYD_PYTHON;
	}
}

static void add_thread(struct strbuf *sb, const struct pyspyd_thread *thread, const struct pyspyd_core *core,
	struct objects_text *objects, bool colour) {
	bool died = core && core->tid && core->tid == thread->tid;

	add_thread_line(sb, thread, died ? core : NULL, colour);
	add_frames(sb, thread, objects, colour);
	if (!thread->frames_n && !thread->incomplete && !thread->native)
		strbuf_adds(sb, "  (no Python frames)\n");
	if (thread->truncated)
		strbuf_adds(sb, "  … (deeper than is read: the outermost calls are missing)\n");
	if (thread->incomplete)
		strbuf_adds(sb, "  … (incomplete: it moved while it was read, or memory was not there)\n");
	if (thread->native)
		add_native_remarks(sb, thread);
	exceptions_text(sb, thread->exceptions, thread->exceptions_n, colour);
	if (thread->native && died)
		text_registers(sb, core);
}

char *pyspyd_dump_text(const struct pyspyd_dump *dump, bool colour) {
	_cleanup_(objects_text_deinit) struct objects_text objects = { 0 };
	struct strbuf sb = { 0 };

	objects_text_init(&objects, dump->objects, colour);
	text_process(&sb, &dump->process, colour);
	for (size_t i = 0; i < dump->threads_n; i++) {
		strbuf_adds(&sb, "\n");
		add_thread(&sb, &dump->threads[i], dump->process.core, &objects, colour);
	}
	if (!dump->async || dump_tasks_text(&sb, dump, colour))
		return strbuf_take(&sb);
	strbuf_deinit(&sb);
	return NULL;
}
