/* SPDX-License-Identifier: MIT */
/* From the engine's words to the shapes that people and machines are shown.
 *
 * With native frames, a thread that runs is stopped where that is allowed. In the stop its Python frames are copied,
 * and its variables and exceptions as far as STOPPED_NS allows; names and lines are looked up when it runs again. */
#include "engine/pipeline/describe.h"

#include "engine/base/clock.h"
#include "engine/cpython/exceptions.h"
#include "engine/cpython/locals.h"
#include "engine/sample/still.h"
#include <string.h>
#include <sys/syscall.h>

#define STOPPED_NS (500 * NS_PER_US)

int describe_process(const struct proc *proc, const char *python, struct pyspyd_process *ret) {
	struct proc_identity id;
	int r = proc_identity_read(proc, &id);

	if (r)
		return r == PROC_E_GONE ? PYSPYD_E_GONE : r;
	*ret = (struct pyspyd_process){
		.pid = proc->pid,
		.start_real_ns = id.start_real_ns,
		.name = take_ptr(id.name),
		.cmdline = take_ptr(id.cmdline),
		.exe = take_ptr(id.exe),
		.python = strdup(python),
		.uid = id.uid,
		.cgroup = take_ptr(id.cgroup),
		.container = take_ptr(id.container),
		.unit = take_ptr(id.unit),
	};
	proc_identity_free(&id);
	return ret->python ? 0 : -ENOMEM;
}

struct thread_look {
	struct sample_target *target;
	struct sample_thread *thread; /* NULL: Python does not know it */
	const struct proc_task *task;
	const struct describe_options *options;
	struct py_stack_scratch *scratch;
	struct py_raw_stack stack;
	struct py_interp_view view;
	struct pyspyd_frame *frames; /* of the last try */
	size_t frames_n;
	struct pyspyd_exception *exceptions; /* of the last try that could read them */
	size_t exceptions_n;
	bool exceptions_known;
	int result; /* of the last try */
};

static char *string_of(const struct sample_target *target, uint32_t id) {
	return strdup(intern_str(&target->strings, id));
}

/* Fills what a frame's words stand for; its variables may be there. */
static int fill_frame(struct thread_look *look, const struct py_raw_frame *raw, bool leaf, struct pyspyd_frame *frame) {
	struct sample_target *target = look->target;
	const struct py_code *code;
	int64_t offset;
	int r = py_code_lookup(&target->codes, raw, look->stack.code_generation, clock_mono_ns(), leaf, &code);

	if (r)
		return r;
	offset = py_code_offset(&target->codes, code, raw);
	if (code->bytecode && (offset < -2 || offset >= (int64_t)code->bytecode_len))
		return PY_E_TORN;
	frame->lang = PYSPYD_PYTHON;
	frame->function = string_of(target, code->name);
	frame->qualname = string_of(target, code->qualname);
	frame->file = string_of(target, code->file);
	frame->module = string_of(target, code->module);
	frame->line = py_code_line(&target->codes, code, offset);
	return frame->function && frame->qualname && frame->file && frame->module ? 0 : -ENOMEM;
}

static void drop_frames(struct thread_look *look) {
	pyspyd_frames_free(look->frames, look->frames_n);
	look->frames = NULL;
	look->frames_n = 0;
}

/* Copies the words of the stack. What a core has not is not there later either: so of a dead thread the frames up to
 * there are kept. */
static int capture(struct thread_look *look) {
	bool keep = false;
	int r;

	drop_frames(look);
	if (!look->thread)
		return 0;
	r = py_interp_view(&look->target->rt, look->thread->py.interp, &look->view);
	if (!r)
		r = py_stack_capture(&look->target->rt, &look->thread->plan, look->scratch, &look->stack);
	if (look->target->offline && (r == PY_E_TORN || r == MEM_E_FAULT))
		keep = look->stack.frames.n > 0;
	if (r && !keep)
		return r;
	look->frames = calloc(look->stack.frames.n + 1, sizeof(*look->frames));
	if (!look->frames)
		return -ENOMEM;
	look->frames_n = look->stack.frames.n;
	return r;
}

static int read_locals(struct thread_look *look, uint64_t deadline_ns) {
	int r = 0;

	for (size_t i = 0; !r && look->options->locals && i < look->frames_n; i++) {
		if (deadline_ns && clock_mono_ns() > deadline_ns)
			return 0;
		r = py_locals_read(&look->target->rt, &look->stack.frames.items[i], look->options->unmask,
			&look->frames[i].locals, &look->frames[i].locals_n);
	}
	return r;
}

static void drop_exceptions(struct thread_look *look) {
	pyspyd_exceptions_free(look->exceptions, look->exceptions_n);
	look->exceptions = NULL;
	look->exceptions_n = 0;
	look->exceptions_known = false;
}

/* Return: 0, also where they could not be read; MEM_E_GONE; negative errno. */
static int read_exceptions(struct thread_look *look, uint64_t deadline_ns) {
	struct sample_target *target = look->target;
	int r;

	if (!look->options->exceptions || !look->thread)
		return 0;
	drop_exceptions(look);
	r = py_exceptions_read(&target->rt, &target->codes, look->thread->py.tstate, look->stack.code_generation,
		deadline_ns, &look->exceptions, &look->exceptions_n);
	look->exceptions_known = !r;
	return r == MEM_E_GONE || r < 0 ? r : 0;
}

static int decode(struct thread_look *look) {
	for (size_t i = 0; i < look->frames_n; i++) {
		int r = fill_frame(look, &look->stack.frames.items[i], i == 0, &look->frames[i]);

		if (!r)
			continue;
		while (look->frames_n > i + 1)
			pyspyd_frame_deinit(&look->frames[--look->frames_n]);
		return r;
	}
	return 0;
}

static int look_once(void *userdata) {
	struct thread_look *look = userdata;
	struct native_look *native = look->options->native;
	int r = capture(look), torn = 0, unwound;

	if (r && look->frames_n) {
		torn = r;
		r = 0;
	}
	if (!r) {
		int read = read_locals(look, 0);

		r = decode(look);
		r = r ? r : read;
		read = read_exceptions(look, 0);
		r = r ? r : read ? read : torn;
	}
	if (!native || r == MEM_E_GONE || r < 0)
		return r;
	unwound = native_look_take(native, look->task->tid);
	return unwound ? unwound : r;
}

static void look_stopped(void *userdata) {
	struct thread_look *look = userdata;

	uint64_t deadline_ns = clock_mono_ns() + STOPPED_NS;

	look->result = capture(look);
	if (!look->result)
		look->result = read_locals(look, deadline_ns);
	if (!look->result)
		look->result = read_exceptions(look, deadline_ns);
}

/* Return: 0 with *ret_done, whether it was stopped and looked at; MEM_E_GONE; negative errno. */
static int try_stopped(struct thread_look *look, bool *ret_done) {
	struct native_look *native = look->options->native;
	int r, decoded;

	*ret_done = false;
	r = native_look_stop(native, look->task->tid, look_stopped, look);
	if (r || native->why)
		return r;
	decoded = decode(look);
	look->result = look->result ? look->result : decoded;
	*ret_done = true;
	return 0;
}

static bool runs(const struct proc_task *task) {
	char state = '?';
	int cpu;

	return !proc_task_state(task, &state, &cpu) && state == 'R';
}

/* The dead do not move. */
static int look_offline(struct thread_look *look, enum still_proof *ret_proof, char *ret_state) {
	int r = look_once(look), cpu;

	look->result = r;
	*ret_proof = STILL_PROVEN;
	(void)!proc_task_state(look->task, ret_state, &cpu);
	return r == MEM_E_GONE || r < 0 ? r : 0;
}

static int look_still(struct thread_look *look, enum still_proof *ret_proof, char *ret_state) {
	int r = still_run(look->task, look_once, look, ret_proof, ret_state);

	look->result = r;
	return r == MEM_E_GONE || r < 0 ? r : 0;
}

/* Looks, in the way that the thread needs. Return: 0 and look->result; MEM_E_GONE; negative errno. */
static int look_at(struct thread_look *look, enum still_proof *ret_proof, char *ret_state) {
	struct native_look *native = look->options->native;
	bool stop = native && native->how == NATIVE_HOW_STOP, done = false;
	const char *why;
	int r = 0;

	if (look->target->offline)
		return look_offline(look, ret_proof, ret_state);
	if (!stop || !runs(look->task)) {
		r = look_still(look, ret_proof, ret_state);
		if (r || !stop || !native->running)
			return r;
	}
	r = try_stopped(look, &done);
	if (r)
		return r;
	*ret_proof = STILL_PROVEN;
	*ret_state = 'R';
	if (done)
		return 0;
	why = native->why;
	r = look_still(look, ret_proof, ret_state);
	if (native->running)
		native->why = why;
	return r;
}

/* A thread that waits for the GIL sleeps in a futex inside the GIL's own structure. */
static bool waits_in(const struct proc *proc, pid_t tid, raddr start, uint64_t bytes) {
	char name[64];
	char *text _free_ = NULL;
	unsigned long long addr;
	size_t len;
	int number;

	snprintf(name, sizeof(name), "task/%d/syscall", (int)tid);
	if (proc_read_file(proc, name, 512, &text, &len) || sscanf(text, "%d 0x%llx", &number, &addr) != 2)
		return false;
	return number == SYS_futex && addr >= start && addr - start < bytes;
}

static enum pyspyd_gil gil_of(const struct thread_look *look) {
	const struct layout *l = &look->target->rt.reader.layout;
	const struct py_interp_view *view = &look->view;

	if (look->stack.gil_known ? look->stack.holds_gil : view->gil_holder == look->thread->py.tstate)
		return view->gil_known || look->stack.gil_known ? PYSPYD_GIL_HELD : PYSPYD_GIL_NONE;
	if (!view->gil_known)
		return look->target->rt.reader.flavour & LAYOUT_FREE_THREADED ? PYSPYD_GIL_NONE : PYSPYD_GIL_UNKNOWN;
	if (look->stack.gil_requested)
		return PYSPYD_GIL_WAITING;
	if (view->gil && layout_has(l->gil_size) &&
		waits_in(&look->target->proc, look->thread->py.tid, view->gil, l->gil_size))
		return PYSPYD_GIL_WAITING;
	return PYSPYD_GIL_NONE;
}

static char *name_of(const struct sample_target *target, pid_t tid, const char *name) {
	struct proc_stat stat;

	if (name)
		return strdup(name);
	return strdup(proc_thread_stat(&target->proc, tid, &stat) ? "?" : stat.comm);
}

/* Whether the kernel's thread has Python frames of this interpreter alone. */
static bool is_alone(const struct thread_look *look) {
	if (look->thread && look->thread->inner)
		return false;
	vec_foreach (other, &look->target->threads)
		if (look->thread && (*other)->inner == look->thread)
			return false;
	return true;
}

static int merge(struct thread_look *look, struct pyspyd_thread *ret) {
	bool whole = !look->result && !look->stack.truncated;

	return look->options->native
		? native_look_merge(look->options->native, &look->stack, whole, is_alone(look), ret)
		: 0;
}

static int thread_failed(int r, struct thread_look *look) {
	drop_frames(look);
	drop_exceptions(look);
	py_raw_stack_deinit(&look->stack);
	return r == MEM_E_GONE || r == PROC_E_GONE ? PYSPYD_E_GONE : r;
}

/* Takes over the frames. */
static int finish(struct thread_look *look, enum still_proof proof, struct pyspyd_thread *ret) {
	int r;

	ret->frames = take_ptr(look->frames);
	ret->frames_n = look->frames_n;
	ret->exceptions = take_ptr(look->exceptions);
	ret->exceptions_n = look->exceptions_n;
	ret->exceptions_known = look->exceptions_known;
	ret->truncated = look->stack.truncated;
	ret->incomplete = look->result || proof != STILL_PROVEN;
	r = merge(look, ret);
	py_raw_stack_deinit(&look->stack);
	return r;
}

int describe_thread(struct sample_target *target, struct sample_thread *thread, const struct py_thread_names *names,
	const struct describe_options *options, struct py_stack_scratch *scratch, struct pyspyd_thread *ret) {
	struct thread_look look = {
		.target = target, .thread = thread, .task = &thread->task, .options = options, .scratch = scratch
	};
	enum still_proof proof;
	char state = '?';
	int r = look_at(&look, &proof, &state);

	if (r)
		return thread_failed(r, &look);
	*ret = (struct pyspyd_thread){
		.tid = thread->py.tid,
		.ident = thread->py.ident,
		.name = name_of(target, thread->py.tid, py_thread_name(names, thread->py.ident)),
		.state = state,
		.gil = gil_of(&look),
		.interpreter = thread->py.interp_id,
	};
	ret->in_gc = look.view.collecting && (ret->gil == PYSPYD_GIL_HELD || !look.view.gil_known);
	r = finish(&look, proof, ret);
	return r || ret->name ? r : -ENOMEM;
}

int describe_foreign_thread(
	struct sample_target *target, pid_t tid, const struct describe_options *options, struct pyspyd_thread *ret) {
	struct proc_task task;
	struct thread_look look = { .target = target, .task = &task, .options = options };
	enum still_proof proof;
	char state = '?';
	int r = proc_task_open(&target->proc, tid, &task);

	if (r)
		return thread_failed(r, &look);
	r = look_at(&look, &proof, &state);
	proc_task_close(&task);
	if (r)
		return thread_failed(r, &look);
	*ret = (struct pyspyd_thread){
		.tid = tid, .name = name_of(target, tid, NULL), .state = state, .interpreter = -1
	};
	r = finish(&look, proof, ret);
	return r || ret->name ? r : -ENOMEM;
}
