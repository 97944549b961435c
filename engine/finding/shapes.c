/* SPDX-License-Identifier: MIT */
/* Freeing what the public headers describe: frames, threads, processes, dumps, rows of processes. Half-built objects
 * are ordinary: whatever was not reached is NULL or 0. */
#include "pyspyd/dump.h"
#include "pyspyd/ps.h"
#include <stdlib.h>

static void locals_free(struct pyspyd_local *locals, size_t n) {
	if (!locals)
		return;
	for (size_t i = 0; i < n; i++) {
		free(locals[i].name);
		free(locals[i].type);
		free(locals[i].value);
	}
	free(locals);
}

void pyspyd_frame_deinit(struct pyspyd_frame *frame) {
	free(frame->function);
	free(frame->qualname);
	free(frame->file);
	free(frame->module);
	locals_free(frame->locals, frame->locals_n);
	*frame = (struct pyspyd_frame){ 0 };
}

void pyspyd_frames_free(struct pyspyd_frame *frames, size_t n) {
	for (size_t i = 0; frames && i < n; i++)
		pyspyd_frame_deinit(&frames[i]);
	free(frames);
}

static void exception_deinit(struct pyspyd_exception *exception) {
	free(exception->type);
	free(exception->message);
	for (size_t i = 0; i < exception->notes_n; i++)
		free(exception->notes[i]);
	free(exception->notes);
	pyspyd_frames_free(exception->traceback, exception->traceback_n);
	pyspyd_exceptions_free(exception->cause, 1);
	pyspyd_exceptions_free(exception->context, 1);
	pyspyd_exceptions_free(exception->members, exception->members_n);
}

void pyspyd_exceptions_free(struct pyspyd_exception *exceptions, size_t n) {
	for (size_t i = 0; exceptions && i < n; i++)
		exception_deinit(&exceptions[i]);
	free(exceptions);
}

void pyspyd_threads_free(struct pyspyd_thread *threads, size_t n) {
	if (!threads)
		return;
	for (size_t i = 0; i < n; i++) {
		free(threads[i].name);
		pyspyd_frames_free(threads[i].frames, threads[i].frames_n);
		pyspyd_exceptions_free(threads[i].exceptions, threads[i].exceptions_n);
	}
	free(threads);
}

static void strings_free(char **strings, size_t n) {
	for (size_t i = 0; strings && i < n; i++)
		free(strings[i]);
	free(strings);
}

void pyspyd_core_free(struct pyspyd_core *core) {
	if (!core)
		return;
	free(core->path);
	free(core->signal_name);
	free(core->registers);
	pyspyd_triage_free(core->triage);
	strings_free(core->missing, core->missing_n);
	strings_free(core->different, core->different_n);
	free(core);
}

void pyspyd_process_deinit(struct pyspyd_process *process) {
	if (!process)
		return;
	free(process->name);
	for (char **argument = process->cmdline; argument && *argument; argument++)
		free(*argument);
	free(process->cmdline);
	free(process->exe);
	free(process->python);
	free(process->cgroup);
	free(process->container);
	free(process->unit);
	pyspyd_core_free(process->core);
	*process = (struct pyspyd_process){ 0 };
}

static void tasks_free(struct pyspyd_task *tasks, size_t n) {
	if (!tasks)
		return;
	for (size_t i = 0; i < n; i++) {
		free(tasks[i].name);
		pyspyd_frames_free(tasks[i].frames, tasks[i].frames_n);
		free(tasks[i].waits_for);
		free(tasks[i].expression);
		free(tasks[i].targets);
		for (size_t k = 0; tasks[i].holders && k < tasks[i].holders_n; k++)
			free(tasks[i].holders[k].why);
		free(tasks[i].holders);
		free(tasks[i].awaiters);
	}
	free(tasks);
}

void pyspyd_dump_free(struct pyspyd_dump *dump) {
	if (!dump)
		return;
	pyspyd_process_deinit(&dump->process);
	pyspyd_threads_free(dump->threads, dump->threads_n);
	pyspyd_objects_free(dump->objects);
	free(dump->loops);
	tasks_free(dump->tasks, dump->tasks_n);
	free(dump);
}

void pyspyd_ps_free(struct pyspyd_ps_row *rows, size_t n) {
	if (!rows)
		return;
	for (size_t i = 0; i < n; i++) {
		pyspyd_process_deinit(&rows[i].process);
		free(rows[i].user);
		free(rows[i].why_not);
	}
	free(rows);
}
