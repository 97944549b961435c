/* SPDX-License-Identifier: MIT */
/* From the engine's words to the shapes that people and machines are shown. */
#include "engine/pipeline/describe.h"

#include "engine/base/clock.h"
#include "engine/cpython/locals.h"
#include "engine/sample/still.h"
#include <string.h>
#include <sys/syscall.h>

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
	struct sample_thread *thread;
	const struct describe_options *options;
	struct py_stack_scratch *scratch;
	struct py_raw_stack stack;
	struct py_interp_view view;
	struct pyspyd_frame *frames; /* of the last try */
	size_t frames_n;
};

static char *string_of(const struct sample_target *target, uint32_t id) {
	return strdup(intern_str(&target->strings, id));
}

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
	*frame = (struct pyspyd_frame){
		.lang = PYSPYD_PYTHON,
		.function = string_of(target, code->name),
		.qualname = string_of(target, code->qualname),
		.file = string_of(target, code->file),
		.module = string_of(target, code->module),
		.line = py_code_line(&target->codes, code, offset),
	};
	if (!frame->function || !frame->qualname || !frame->file || !frame->module)
		return -ENOMEM;
	if (look->options->locals)
		return py_locals_read(&target->rt, raw, look->options->unmask, &frame->locals, &frame->locals_n);
	return 0;
}

static int look_once(void *userdata) {
	struct thread_look *look = userdata;
	int r;

	pyspyd_frames_free(look->frames, look->frames_n);
	look->frames = NULL;
	look->frames_n = 0;
	r = py_interp_view(&look->target->rt, look->thread->py.interp, &look->view);
	if (!r)
		r = py_stack_capture(&look->target->rt, &look->thread->plan, look->scratch, &look->stack);
	if (r)
		return r;
	look->frames = calloc(look->stack.frames.n + 1, sizeof(*look->frames));
	if (!look->frames)
		return -ENOMEM;
	for (size_t i = 0; !r && i < look->stack.frames.n; i++) {
		r = fill_frame(look, &look->stack.frames.items[i], i == 0, &look->frames[i]);
		look->frames_n = i + 1;
	}
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

static char *name_of(
	const struct sample_target *target, const struct sample_thread *thread, const struct py_thread_names *names) {
	const char *name = py_thread_name(names, thread->py.ident);
	struct proc_stat stat;

	if (name)
		return strdup(name);
	return strdup(proc_thread_stat(&target->proc, thread->py.tid, &stat) ? "?" : stat.comm);
}

int describe_thread(struct sample_target *target, struct sample_thread *thread, const struct py_thread_names *names,
	const struct describe_options *options, struct py_stack_scratch *scratch, struct pyspyd_thread *ret) {
	struct thread_look look = { .target = target, .thread = thread, .options = options, .scratch = scratch };
	enum still_proof proof;
	char state = '?';
	int r = still_run(&thread->task, look_once, &look, &proof, &state);

	if (r == MEM_E_GONE || r == -ENOMEM || r == -EPERM) {
		pyspyd_frames_free(look.frames, look.frames_n);
		py_raw_stack_deinit(&look.stack);
		return r == MEM_E_GONE ? PYSPYD_E_GONE : r;
	}
	*ret = (struct pyspyd_thread){
		.tid = thread->py.tid,
		.ident = thread->py.ident,
		.name = name_of(target, thread, names),
		.state = state,
		.gil = gil_of(&look),
		.interpreter = thread->py.interp_id,
		.frames = look.frames,
		.frames_n = look.frames_n,
		.truncated = look.stack.truncated,
		.incomplete = r || proof != STILL_PROVEN,
	};
	ret->in_gc = look.view.collecting && (ret->gil == PYSPYD_GIL_HELD || !look.view.gil_known);
	py_raw_stack_deinit(&look.stack);
	return ret->name ? 0 : -ENOMEM;
}
