/* SPDX-License-Identifier: MIT */
/* From a runtime's layout to the few offsets that a program needs, and from the list of threads to the map in which it
 * finds the thread states of whom it meets. Which threads were told is kept, so that those that ended are forgotten. */
#include "engine/sample/bpf_processes.h"

#include "engine/base/map.h"
#include "engine/base/util.h"
#include "engine/cpython/code.h"
#include <bpf/bpf.h>
#include <errno.h>

void bpf_processes_init(struct bpf_processes *processes, int processes_fd, int threads_fd) {
	*processes = (struct bpf_processes){ .processes_fd = processes_fd, .threads_fd = threads_fd };
}

void bpf_processes_deinit(struct bpf_processes *processes) {
	vec_foreach (told, &processes->told)
		vec_free(&told->thread_pointers);
	vec_free(&processes->told);
}

/* The part of a frame in which all of its fields are, and their places in it. */
static int describe_frame(const struct layout *l, struct pyb_process *p) {
	const uint32_t used[] = { l->frame_previous, l->frame_code, l->frame_globals, l->frame_instr, l->frame_lasti,
		l->frame_owner, l->frame_is_entry, l->frame_tlbc_index };
	uint32_t start = UINT32_MAX, end = 0;
	bool has_instr = layout_has(l->frame_instr);

	for (size_t i = 0; i < ARRAY_SIZE(used); i++) {
		if (!layout_has(used[i]))
			continue;
		start = min_of(start, used[i] & ~7U);
		end = max_of(end, (used[i] & ~7U) + 8);
	}
	if (start >= end || end - start > PYB_WINDOW)
		return PYSPYD_E_UNSUPPORTED;
	p->frame_window_start = start;
	p->frame_window_len = end - start;
	p->frame_previous = l->frame_previous - start;
	p->frame_code = l->frame_code - start;
	p->frame_globals = l->frame_globals - start;
	p->frame_instr = (has_instr ? l->frame_instr : l->frame_lasti) - start;
	p->instr_mask = has_instr ? UINT64_MAX : UINT32_MAX;
	if (layout_has(l->frame_owner)) {
		p->frame_owner = l->frame_owner - start;
		p->owner_mask = 0xff;
	}
	if (layout_has(l->frame_is_entry)) {
		p->frame_is_entry = l->frame_is_entry - start;
		p->is_entry_mask = 1;
	}
	if (layout_has(l->frame_tlbc_index)) {
		p->frame_tlbc = l->frame_tlbc_index - start;
		p->tlbc_mask = 0xffff;
	}
	p->always_entry = !layout_has(l->frame_owner) && !layout_has(l->frame_is_entry);
	return 0;
}

static void describe_check(const struct py_runtime *rt, struct pyb_process *p) {
	const struct layout *l = &rt->reader.layout;

	p->check = py_code_has_unique_version(rt) ? PYB_CHECK_VERSION : PYB_CHECK_FIELDS;
	p->code_version = l->code_version;
	p->code_name = l->code_name;
	p->code_linetable = l->code_linetable;
	p->code_line = l->code_firstlineno;
	p->code_filename = l->code_filename;
	p->str_hash = py_str_hash_offset(l);
	p->str_length = l->unicode_length;
	p->str_text = l->unicode_ascii_size;
	p->bytes_length = l->var_size;
	p->bytes_data = l->bytes_data;
}

int bpf_processes_describe(const struct py_runtime *rt, struct pyb_process *ret_process) {
	const struct layout *l = &rt->reader.layout;
	struct pyb_process p = {
		.interp_threads_head = l->interp_threads_head,
		.tstate_next = l->tstate_next,
		.tstate_interp = l->tstate_interp,
		.tstate_thread_id = l->tstate_thread_id,
		.tstate_frame = l->tstate_frame,
		.tstate_cframe = l->tstate_cframe,
		.cframe_frame = l->cframe_current_frame,
		.tstate_holds_gil = PYB_NONE,
		.gil_locked = l->gil_locked,
		.gil_last_holder = l->gil_last_holder,
	};
	int r = describe_frame(l, &p);

	if (r)
		return r;
	py_holds_gil_word(rt, &p.tstate_holds_gil, &p.holds_gil_mask);
	describe_check(rt, &p);
	*ret_process = p;
	return 0;
}

/* The youngest interpreters, the main one behind them. */
static int describe_interps(const struct py_runtime *rt, struct pyb_process *p) {
	py_interp_vec interps = { 0 };
	int r = py_interps_read(rt, &interps);

	for (size_t i = 0; !r && i < interps.n; i++) {
		struct py_interp_view view = { 0 };
		uint32_t at = min_of((uint32_t)i, (uint32_t)PYB_INTERPS_MAX - 1);

		r = py_interp_view(rt, interps.items[i].addr, &view);
		p->interps[at] = (struct pyb_interp){ .addr = interps.items[i].addr,
			.gil = view.gil_known && !rt->tstate_current ? view.gil : 0,
			.tstate_current = rt->tstate_current,
			.collecting = py_collecting_word(rt, interps.items[i].addr) };
		p->interps_n = at + 1;
	}
	vec_free(&interps);
	return r;
}

static struct bpf_told *find_told(struct bpf_processes *processes, pid_t pid) {
	vec_foreach (told, &processes->told)
		if (told->pid == (uint32_t)pid)
			return told;
	return NULL;
}

int bpf_processes_add(struct bpf_processes *processes, const struct py_runtime *rt, pid_t pid) {
	uint32_t key = (uint32_t)pid;
	struct pyb_process process;
	int r = bpf_processes_describe(rt, &process);

	if (!r)
		r = describe_interps(rt, &process);
	if (!r)
		r = bpf_map_update_elem(processes->processes_fd, &key, &process, BPF_ANY);
	if (!r && !find_told(processes, pid))
		r = vec_push(&processes->told, (struct bpf_told){ .pid = key });
	return r;
}

static void forget_thread(struct bpf_processes *processes, pid_t pid, uint64_t thread_pointer) {
	const struct pyb_thread_key key = { .thread_pointer = thread_pointer, .pid = (uint32_t)pid };

	bpf_map_delete_elem(processes->threads_fd, &key);
}

static uint32_t interp_index(const struct pyb_process *process, raddr interp) {
	uint32_t i = 0;

	while (i < process->interps_n && process->interps[i].addr != interp)
		i++;
	return i;
}

/* One more state of the thread; the one of the younger interpreter first, as the program looks at them in this order.
 */
static void add_state(struct pyb_thread *thread, raddr tstate, uint32_t interp) {
	uint32_t at = thread->states[0] && thread->interp[0] < interp ? 1 : 0;

	if (at == 0 && thread->states[0]) {
		thread->states[1] = thread->states[0];
		thread->interp[1] = thread->interp[0];
	}
	thread->states[at] = tstate;
	thread->interp[at] = interp;
}

static int tell_thread(struct bpf_processes *processes, const struct pyb_process *process, pid_t pid,
	const struct py_thread *const *threads, size_t n, size_t i) {
	const struct pyb_thread_key key = { .thread_pointer = threads[i]->ident, .pid = (uint32_t)pid };
	struct pyb_thread value = { 0 };

	for (size_t j = 0; j < n; j++) {
		uint32_t interp = interp_index(process, threads[j]->interp);

		if (threads[j]->ident == threads[i]->ident && interp < process->interps_n)
			add_state(&value, threads[j]->tstate, interp);
	}
	return bpf_map_update_elem(processes->threads_fd, &key, &value, BPF_ANY);
}

int bpf_processes_set_threads(
	struct bpf_processes *processes, pid_t pid, const struct py_thread *const *threads, size_t n) {
	struct map _cleanup_(map_deinit) now = { 0 };
	struct pyb_process process;
	uint32_t key = (uint32_t)pid;
	struct bpf_told *told = find_told(processes, pid);
	int r = bpf_map_lookup_elem(processes->processes_fd, &key, &process);

	if (!told)
		return -ENOENT;
	for (size_t i = 0; !r && i < n; i++) {
		uint64_t unused;

		if (map_get(&now, threads[i]->ident, &unused))
			continue; /* told with its first state */
		r = tell_thread(processes, &process, pid, threads, n, i);
		if (!r)
			r = map_put(&now, threads[i]->ident, 1);
	}
	if (r)
		return r;
	for (size_t i = 0; i < told->thread_pointers.n; i++) {
		uint64_t unused;

		if (!map_get(&now, told->thread_pointers.items[i], &unused))
			forget_thread(processes, pid, told->thread_pointers.items[i]);
	}
	told->thread_pointers.n = 0;
	for (size_t i = 0; !r && i < n; i++)
		r = vec_push(&told->thread_pointers, threads[i]->ident);
	return r;
}

void bpf_processes_remove(struct bpf_processes *processes, pid_t pid) {
	uint32_t key = (uint32_t)pid;
	struct bpf_told *told = find_told(processes, pid);

	bpf_map_delete_elem(processes->processes_fd, &key);
	if (!told)
		return;
	for (size_t i = 0; i < told->thread_pointers.n; i++)
		forget_thread(processes, pid, told->thread_pointers.items[i]);
	vec_free(&told->thread_pointers);
	*told = processes->told.items[--processes->told.n];
}

int bpf_raw_stack(const struct py_runtime *rt, const struct pyb_event *event, const struct pyb_frame *frames,
	struct py_raw_stack *stack) {
	uint32_t version = rt->reader.version;

	stack->frames.n = 0;
	stack->truncated = event->flags & (PYB_TRUNCATED | PYB_BROKEN);
	stack->gil_known = event->flags & PYB_GIL_KNOWN;
	stack->holds_gil = event->flags & PYB_GIL;
	stack->code_generation = 0;
	if (vec_reserve(&stack->frames, event->frames_n))
		return -ENOMEM;
	for (uint32_t i = 0; i < event->frames_n; i++) {
		struct py_raw_frame *to = &stack->frames.items[stack->frames.n++];

		*to = (struct py_raw_frame){ .code = pyb_frame_code(&frames[i]),
			.globals = pyb_frame_globals(&frames[i]),
			.code_base = pyb_frame_tlbc(&frames[i]),
			.instr = (int64_t)pyb_frame_instr(&frames[i]),
			.check = frames[i].check,
			.entry = frames[i].code & PYB_FRAME_ENTRY };
		if (!layout_has(rt->reader.layout.frame_instr))
			to->instr = py_lasti_bytes(version, (int32_t)to->instr);
	}
	return 0;
}
