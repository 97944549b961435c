/* SPDX-License-Identifier: MIT */
/* Gathers what engine/detect/triage.h decides on: of the thread that died, its registers, mappings, frames, and what it
 * has left in memory.
 *
 * Where a handler took the signal and sent it again (faulthandler does), the registers of the core are those of the
 * handler; the first ones stand in the frame of the signal on the stack. */
#include "engine/pipeline/triage.h"

#include "engine/cpython/objects.h"
#include "engine/detect/triage.h"
#include "engine/native/symbols.h"
#include "engine/pipeline/triage_internal.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#define FRAMES_MAX 512         /* whose names are asked for */
#define BELOW_BYTES (1U << 20) /* a stack pointer may lie below its stack, and so does the guard page */
#define WRITE_ERROR 2          /* x86: bits of the error code of a page fault */
#define EXECUTE_ERROR 16
#define FIELD_BYTES 512
#define STACK_WORDS 128
#define ITEMS_MAX 65536
#define REFERS 1000 /* no condition of the readers */

struct gather {
	struct subject *subject;
	struct native_look *look, *own;
	const struct pyspyd_dump *dump;
	proc_map_vec maps;
	struct triage_facts facts;
	struct triage_signal_frame first;
	struct triage_frame *frames;
	char (*names)[NATIVE_NAME_SIZE];
	raddr sps[FRAMES_MAX];
	size_t skipped; /* frames of the handler */
	char abort_message[TRIAGE_TEXT_SIZE], fatal_message[TRIAGE_TEXT_SIZE];
	struct strbuf type, parent_type;
	struct triage_object parent;
	struct triage_referrers referrers;
};

static void gather_deinit(struct gather *gather) {
	native_look_free(gather->own);
	proc_maps_free(&gather->maps);
	free(gather->frames);
	free(gather->names);
	strbuf_deinit(&gather->type);
	strbuf_deinit(&gather->parent_type);
	triage_referrers_deinit(&gather->referrers);
}

/* Frames. */

static int take_frames(struct gather *gather) {
	const struct native_trace *trace;
	int r = 0;

	if (!gather->look) {
		r = native_look_new_offline(gather->subject->target, &gather->own);
		if (r)
			return r;
		gather->look = gather->own;
	}
	r = native_look_take(gather->look, gather->facts.tid);
	trace = &gather->look->trace;
	for (size_t i = 0; !r && i < trace->n && !gather->skipped; i++)
		if (trace->frames[i].signal &&
			triage_signal_frame(
				gather->look->mem, trace->frames[i].sp, gather->facts.signal, &gather->first))
			gather->skipped = i + 1;
	return r;
}

static int name_frames(struct gather *gather) {
	const struct native_trace *trace = &gather->look->trace;
	size_t n = min_of(trace->n - gather->skipped, (size_t)FRAMES_MAX);
	struct native_place place;

	gather->frames = calloc(n + 1, sizeof(*gather->frames));
	gather->names = calloc(n + 1, sizeof(*gather->names));
	if (!gather->frames || !gather->names)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct native_frame *frame = &trace->frames[gather->skipped + i];

		gather->sps[i] = frame->sp;
		if (native_symbolize(gather->look->modules, native_frame_at(frame), &place) == -ENOMEM)
			return -ENOMEM;
		memcpy(gather->names[i], place.name, sizeof(place.name));
		gather->frames[i].function = gather->names[i];
		gather->frames[i].module = place.module ? native_module_path(gather->look->modules, place.module) : "";
	}
	gather->facts.frames = gather->frames;
	gather->facts.frames_n = n;
	return 0;
}

/* The newest of Python, and how many there are. */
static void take_python(struct gather *gather) {
	const struct pyspyd_thread *thread = gather->dump->threads_n ? &gather->dump->threads[0] : NULL;

	if (!thread || thread->tid != gather->facts.tid)
		return;
	gather->facts.thread_name = thread->name;
	gather->facts.collecting = thread->in_gc;
	gather->facts.exception = thread->exceptions_n ? &thread->exceptions[0] : NULL;
	for (size_t i = 0; i < thread->frames_n; i++) {
		if (thread->frames[i].lang != PYSPYD_PYTHON)
			continue;
		if (!gather->facts.python)
			gather->facts.python = &thread->frames[i];
		gather->facts.python_depth++;
	}
}

/* Registers and mappings. */

static uint64_t register_of(const struct triage_facts *facts, const char *name) {
	for (size_t i = 0; i < facts->registers_n; i++)
		if (!strcmp(facts->registers[i].name, name))
			return facts->registers[i].value;
	return 0;
}

static void take_registers(struct gather *gather) {
	const struct pyspyd_core *core = gather->dump->process.core;
	struct triage_facts *facts = &gather->facts;

	if (gather->skipped) {
		const struct triage_signal_frame *first = &gather->first;

		facts->resent = true;
		facts->code = first->code;
		facts->has_address = first->has_address;
		facts->address = first->address;
		facts->has_sender = facts->has_sender && facts->sender != facts->pid;
		facts->registers = first->registers;
		facts->registers_n = ARRAY_SIZE(first->registers);
		if (facts->has_address && facts->signal == SIGSEGV)
			facts->access = first->error & EXECUTE_ERROR ? TRIAGE_ACCESS_EXECUTE
				: first->error & WRITE_ERROR         ? TRIAGE_ACCESS_WRITE
								     : TRIAGE_ACCESS_READ;
	} else {
		facts->registers = core->registers;
		facts->registers_n = core->registers_n;
	}
	facts->registers_known = facts->registers_n > 0;
#ifdef __aarch64__
	facts->pc = register_of(facts, "pc");
	facts->sp = register_of(facts, "sp");
#else
	facts->pc = register_of(facts, "rip");
	facts->sp = register_of(facts, "rsp");
#endif
}

static void take_map(const struct proc_map *map, struct triage_map *ret) {
	*ret = (struct triage_map){ true, map->start, map->end, map->read, map->write, map->exec, map->path };
}

static void take_maps(struct gather *gather) {
	struct triage_facts *facts = &gather->facts;

	vec_foreach (map, &gather->maps) {
		if (map->start <= facts->pc && facts->pc < map->end)
			take_map(map, &facts->code_map);
		if (facts->has_address && map->start <= facts->address && facts->address < map->end)
			take_map(map, &facts->at);
		if (!facts->stack.known && map->write && facts->sp < map->end && facts->sp + BELOW_BYTES > map->start)
			take_map(map, &facts->stack);
	}
}

/* Of the file in which the address lies: where, and how long it is now. */
static void take_file(struct gather *gather) {
	struct triage_facts *facts = &gather->facts;

	facts->file_bytes = UINT64_MAX;
	vec_foreach (map, &gather->maps) {
		_close_ int fd = -1;
		struct stat st;

		if (!facts->at.known || map->start != facts->at.start || map->path[0] != '/')
			continue;
		facts->file_offset = map->offset + (facts->address - map->start);
		if (!proc_root_open(&gather->subject->target->proc, map->path, &fd) && !fstat(fd, &st))
			facts->file_bytes = (uint64_t)st.st_size;
	}
}

/* Objects. */

/* The type of a type, after at most one metaclass, is its own. */
static bool is_type(const struct py_reader *py, raddr type) {
	raddr meta, above, top;

	return !py_type_of(py, type, &meta) && !py_type_of(py, meta, &above) && !py_type_of(py, above, &top) &&
		above == top;
}

static void take_object(
	const struct py_reader *py, raddr address, struct triage_object *object, struct strbuf *type_name) {
	raddr type;

	if (address < 65536)
		return;
	object->address = address;
	if (mem_read_u64(py->mem, address, &object->references) || py_type_of(py, address, &type))
		return;
	object->readable = true;
	object->type_address = type;
	if (is_type(py, type) && !py_type_describe(py, address, type_name) && !type_name->failed)
		object->type = strbuf_str(type_name);
}

static bool is_writable(const struct gather *gather, raddr addr) {
	vec_foreach (map, &gather->maps)
		if (addr >= map->start && addr < map->end)
			return map->write;
	return false;
}

/* Return: whether the value comes from there: it is the address that fell, but for the offset of a field, or where the
 * processor does not say the address, one that can be none. */
static bool was_followed(const struct triage_facts *facts, uint64_t value) {
	if (facts->has_address)
		return facts->address - value < FIELD_BYTES;
	return value >> 47 != 0 && value >> 47 != 0x1ffff;
}

/* Whether the type of the object at `value` is what could not be followed: with `loaded`, it is in a register too, as
 * it is where the processor does not say the address. */
static bool is_broken(const struct gather *gather, const struct py_reader *py, raddr value, bool loaded) {
	const struct triage_facts *facts = &gather->facts;
	raddr type;

	if (value % 8 || !is_writable(gather, value) || py_type_of(py, value, &type) || !was_followed(facts, type))
		return false;
	for (size_t i = 0; loaded && i < facts->registers_n; i++)
		if (facts->registers[i].value == type)
			return true;
	return !loaded;
}

/* The object is the one that a register points to, or to what the collector has in front of it, and whose type, or the
 * object itself, was what could not be followed. */
static void take_broken(struct gather *gather, const struct py_reader *py) {
	static const unsigned heads[] = { 0, 16, 32 }; /* 32: to 3.7 */
	struct triage_facts *facts = &gather->facts;

	for (size_t i = 0; i < 2 * facts->registers_n && !facts->object.address; i++) {
		const struct pyspyd_register *reg = &facts->registers[i % facts->registers_n];

		if (reg->value == facts->sp || reg->value == facts->pc || !strcmp(reg->name, "eflags"))
			continue;
		for (size_t k = 0; k < ARRAY_SIZE(heads) && !facts->object.address; k++)
			if (is_broken(gather, py, reg->value + heads[k], i < facts->registers_n))
				take_object(py, reg->value + heads[k], &facts->object, &gather->type);
	}
	for (size_t i = 0; i < facts->registers_n && !facts->object.address; i++)
		if (was_followed(facts, facts->registers[i].value) && strcmp(facts->registers[i].name, "eflags") != 0)
			take_object(py, facts->registers[i].value, &facts->object, &gather->type);
}

struct search {
	raddr wanted;
};

static int is_wanted(void *userdata, raddr key, raddr value) {
	const struct search *search = userdata;

	return search->wanted == key || search->wanted == value ? REFERS : 0;
}

static bool refers(const struct py_reader *py, raddr container, raddr object) {
	struct search search = { object };
	_free_ raddr *items = calloc(ITEMS_MAX, sizeof(*items));
	size_t n;
	int r;

	if (!items || container == object)
		return false;
	r = py_sequence_read(py, container, items, ITEMS_MAX, &n);
	for (size_t i = 0; !r && i < min_of(n, (size_t)ITEMS_MAX); i++)
		if (items[i] == object)
			return true;
	if (r != PY_E_TYPE)
		return false;
	return py_dict_walk(py, container, is_wanted, &search) == REFERS ||
		py_attributes_walk(py, container, is_wanted, &search) == REFERS;
}

/* A container that the walk has at hand, in a register or near the stack's top, and that has the object in it. */
static void take_parent(struct gather *gather, const struct py_reader *py) {
	struct triage_facts *facts = &gather->facts;

	for (size_t i = 0; i < facts->registers_n + STACK_WORDS && !gather->parent.type; i++) {
		raddr at = facts->sp + (i - facts->registers_n) * 8, type;
		uint64_t value;

		if (i < facts->registers_n)
			value = facts->registers[i].value;
		else if (mem_read_u64(py->mem, at, &value))
			return;
		if (value % 8 || value < 65536 || py_type_of(py, value, &type) || !is_type(py, type) ||
			!refers(py, value, facts->object.address))
			continue;
		take_object(py, value, &gather->parent, &gather->parent_type);
	}
}

/* All of them, or, where the heap cannot be searched, the one that is at hand. */
static void take_referrers(struct gather *gather, const struct py_reader *py) {
	struct triage_facts *facts = &gather->facts;
	struct triage_referrers *found = &gather->referrers;

	triage_find_referrers(gather->subject->target, &gather->maps, facts->object.address, found);
	facts->referrers = found->objects;
	facts->referrers_n = found->n;
	facts->referrers_more = found->more;
	facts->referrers_cut = found->cut;
	facts->reached_by = found->path;
	if (found->n)
		return;
	take_parent(gather, py);
	if (gather->parent.type) {
		facts->referrers = &gather->parent;
		facts->referrers_n = 1;
	}
}

static void take_objects(struct gather *gather) {
	const struct py_reader *py = &gather->subject->target->rt.reader;
	struct triage_facts *facts = &gather->facts;

	if ((facts->signal != SIGSEGV && facts->signal != SIGBUS) ||
		!triage_meets_objects(facts->frames, facts->frames_n))
		return;
	take_broken(gather, py);
	if (facts->object.address)
		take_referrers(gather, py);
}

static void take_texts(struct gather *gather) {
	struct triage_facts *facts = &gather->facts;
	struct mem *mem = gather->look->mem;
	size_t at;

	if (facts->signal != SIGABRT)
		return;
	if (triage_abort_message(gather->look, gather->abort_message))
		facts->abort_message = gather->abort_message;
	if (triage_reports_fatal(facts->frames, facts->frames_n, &at) && at + 1 < facts->frames_n &&
		triage_text_on_stack(mem, gather->sps[0], gather->sps[at + 1], gather->fatal_message))
		facts->fatal_message = gather->fatal_message;
}

static void take_signal(struct gather *gather) {
	const struct pyspyd_core *core = gather->dump->process.core;

	gather->facts = (struct triage_facts){
		.pid = gather->dump->process.pid,
		.tid = core->tid,
		.signal = core->signal,
		.code = core->code,
		.signal_name = core->signal_name,
		.has_address = core->has_address,
		.address = core->address,
		.has_sender = core->has_sender,
		.sender = core->sender,
		.sender_uid = core->sender_uid,
	};
}

static int gather(struct gather *gather) {
	int r;

	take_signal(gather);
	r = take_frames(gather);
	if (!r)
		r = name_frames(gather);
	if (!r)
		r = proc_maps_read(&gather->subject->target->proc, &gather->maps);
	if (r)
		return r;
	take_python(gather);
	take_registers(gather);
	take_maps(gather);
	take_file(gather);
	take_objects(gather);
	take_texts(gather);
	return 0;
}

int triage_dump(struct subject *subject, struct native_look *native, struct pyspyd_dump *dump) {
	struct gather facts = { .subject = subject, .look = native, .dump = dump };
	int r = 0;

	if (!dump->process.core || !dump->process.core->signal)
		return 0;
	r = gather(&facts);
	if (!r)
		r = triage_decide(&facts.facts, &dump->process.core->triage);
	gather_deinit(&facts);
	return r == -ENOMEM ? r : 0;
}
