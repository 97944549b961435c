/* SPDX-License-Identifier: MIT */
/* Exceptions of a thread.
 *
 * A thread state has the exception on its way (to 3.11 in three words: a type, a value that may still be the arguments
 * of an exception that nobody has made yet, and a traceback) and a chain of those that are being handled: one item for
 * the thread and one for each generator or coroutine that runs in it. 3.6 has but one value for the innermost.
 *
 * Everything is followed from there: __cause__, __context__, members of groups. An exception that was met before is
 * named again, but not followed, so that chains that lead back into themselves end. The whole is a tree of at most
 * LIMIT_EXCEPTIONS; what does not fit is marked where it is missing.
 *
 * Nobody keeps the thread from running meanwhile but the caller: exceptions are objects like others, so that a program
 * that moves gives parts of different moments, which are checked one by one. */
#include "engine/cpython/exceptions.h"

#include "engine/base/clock.h"
#include "engine/base/cursor.h"
#include "engine/base/limits.h"
#include "engine/cpython/asyncio.h"
#include "engine/cpython/exception_message.h"
#include "engine/cpython/object_head.h"
#include <string.h>

#define TRACEBACK_BYTES_MAX 128
#define FRAME_BYTES_MAX 512
#define NAME_BYTES 16
#define GLANCE_HANDLERS_MAX 8
#define HANDLERS_MAX 256 /* items of one thread's chain: one for each generator that runs */

/* One entry of a traceback. */
struct passed {
	raddr frame; /* PyFrameObject */
	int32_t lasti, line;
};
typedef VEC(struct passed) passed_vec;

struct look {
	const struct py_runtime *rt;
	struct py_code_cache *codes;
	uint64_t generation, now_ns, deadline_ns;
	raddr seen[LIMIT_EXCEPTIONS];
	size_t seen_n;
};

typedef VEC(struct pyspyd_exception) exception_vec;

static int read_exception(struct look *look, raddr object, raddr traceback, struct pyspyd_exception *exception);

static const struct py_reader *reader_of(const struct look *look) {
	return &look->rt->reader;
}

static bool is_late(const struct look *look) {
	return look->deadline_ns && clock_mono_ns() > look->deadline_ns;
}

/* Whether a result ends the whole look; the others say that one thing could not be read. */
static bool is_fatal(int r) {
	return r < 0 || r == MEM_E_GONE;
}

/* What could not be read leaves a mark. */
static int or_incomplete(int r, struct pyspyd_exception *exception) {
	if (r && !is_fatal(r)) {
		exception->incomplete = true;
		return 0;
	}
	return r;
}

static int take_text(struct strbuf *text, char **ret) {
	if (text->failed)
		return -ENOMEM;
	*ret = text->data ? strbuf_take(text) : strdup("");
	return *ret ? 0 : -ENOMEM;
}

/* ExceptionGroup is made at run time and knows its module; the other built-in ones have none. */
static void drop_builtins(struct strbuf *text) {
	static const char prefix[] = "builtins.";

	if (strncmp(strbuf_str(text), prefix, strlen(prefix)) != 0)
		return;
	text->len -= strlen(prefix);
	memmove(text->data, text->data + strlen(prefix), text->len + 1);
}

static int describe_type(const struct look *look, raddr type, struct pyspyd_exception *exception) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	int r = py_type_describe_at(reader_of(look), type, &text);

	if (is_fatal(r))
		return r;
	if (r) {
		exception->incomplete = true;
		strbuf_deinit(&text);
		strbuf_adds(&text, "?");
	}
	drop_builtins(&text);
	return take_text(&text, &exception->type);
}

static int read_message(const struct look *look, raddr object, struct pyspyd_exception *exception) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	int r = exception_message_read(reader_of(look), object, &text, &exception->own_str);

	r = or_incomplete(r, exception);
	return r ? r : take_text(&text, &exception->message);
}

/* Tracebacks */

static bool is_traceback(const struct look *look, raddr object) {
	char name[NAME_BYTES];

	return !py_type_name(reader_of(look), object, name, sizeof(name)) && !strcmp(name, "traceback");
}

/* The chain as it is: the outermost frame first. */
static int walk_traceback(const struct look *look, raddr traceback, passed_vec *passed, bool *ret_whole) {
	const struct layout *l = &reader_of(look)->layout;
	uint8_t bytes[TRACEBACK_BYTES_MAX];
	size_t len = min_of(l->tb_lineno + sizeof(int32_t), sizeof(bytes));
	uint64_t type = 0;
	int r;

	*ret_whole = false;
	if (!layout_has(l->tb_next) || !is_traceback(look, traceback))
		return PY_E_TORN;
	while (traceback && passed->n < LIMIT_FRAMES && !is_late(look)) {
		r = mem_read(reader_of(look)->mem, traceback, bytes, len);
		if (!r && type && peek_u64(bytes, len, l->object_type) != type)
			r = PY_E_TORN;
		type = peek_u64(bytes, len, l->object_type);
		if (!r)
			r = vec_push(passed,
				((struct passed){
					.frame = peek_u64(bytes, len, l->tb_frame),
					.lasti = (int32_t)peek_u32(bytes, len, l->tb_lasti),
					.line = (int32_t)peek_u32(bytes, len, l->tb_lineno),
				}));
		if (r)
			return r;
		traceback = peek_u64(bytes, len, l->tb_next);
	}
	*ret_whole = !traceback;
	return 0;
}

/* Code and globals of a frame object: its own to 3.10, those of the frame behind it from 3.11 on. */
static int read_frame(const struct look *look, raddr object, struct py_raw_frame *ret) {
	const struct layout *l = &reader_of(look)->layout;
	struct mem *mem = reader_of(look)->mem;
	uint64_t frame = object;
	uint64_t code, globals;
	int r = layout_has(l->frameobj_frame) ? mem_read_u64(mem, object + l->frameobj_frame, &frame) : 0;

	if (!r)
		r = mem_read_many(mem,
			(struct mem_range[]){
				{ frame + l->frame_code, sizeof(code), &code },
				{ frame + l->frame_globals, sizeof(globals), &globals },
			},
			2, NULL);
	if (r)
		return r;
	*ret = (struct py_raw_frame){ .frame = frame, .code = py_untag(code), .globals = globals };
	return 0;
}

static char *string_of(const struct look *look, uint32_t id) {
	return strdup(intern_str(look->codes->strings, id));
}

static int describe_frame(const struct look *look, const struct passed *passed, struct pyspyd_frame *frame) {
	const struct py_code *code;
	struct py_raw_frame raw;
	int r = read_frame(look, passed->frame, &raw);

	if (!r)
		r = py_code_lookup(look->codes, &raw, look->generation, look->now_ns, true, &code);
	if (r)
		return r;
	frame->lang = PYSPYD_PYTHON;
	frame->function = string_of(look, code->name);
	frame->qualname = string_of(look, code->qualname);
	frame->file = string_of(look, code->file);
	frame->module = string_of(look, code->module);
	frame->line = passed->line;
	if (passed->line < 0) /* 3.12+: nobody has asked for it yet */
		frame->line = py_code_line(look->codes, code, passed->lasti);
	return frame->function && frame->qualname && frame->file && frame->module ? 0 : -ENOMEM;
}

/* Turned round: where it was raised comes first. */
static int describe_passed(const struct look *look, const passed_vec *passed, struct pyspyd_exception *exception) {
	size_t shown = min_of(passed->n, (size_t)LIMIT_TRACEBACK_INNER + LIMIT_TRACEBACK_OUTER);

	exception->traceback = calloc(shown + 1, sizeof(*exception->traceback));
	if (!exception->traceback)
		return -ENOMEM;
	exception->traceback_omitted = passed->n - shown;
	exception->traceback_gap = exception->traceback_omitted ? LIMIT_TRACEBACK_INNER : 0;
	for (size_t i = 0; i < shown; i++) {
		size_t skip = i >= LIMIT_TRACEBACK_INNER ? exception->traceback_omitted : 0;
		int r = is_late(look) ? PY_E_TRUNCATED : 0;

		exception->traceback_n = i + 1;
		if (!r)
			r = describe_frame(look, &passed->items[passed->n - 1 - i - skip], &exception->traceback[i]);
		if (r) {
			pyspyd_frame_deinit(&exception->traceback[i]);
			exception->traceback_n = i;
			exception->traceback_omitted = 0;
			return r;
		}
	}
	return 0;
}

static int read_traceback(const struct look *look, raddr traceback, struct pyspyd_exception *exception) {
	passed_vec passed = { 0 };
	bool whole;
	int r = walk_traceback(look, traceback, &passed, &whole);

	exception->incomplete |= !r && !whole;
	if (passed.n && !is_fatal(r)) {
		int described = describe_passed(look, &passed, exception);

		r = is_fatal(described) || !r ? described : r;
	}
	vec_free(&passed);
	return or_incomplete(r, exception);
}

/* What an exception leads to */

static int read_notes(const struct look *look, raddr object, struct pyspyd_exception *exception) {
	raddr list, items[LIMIT_EXCEPTION_NOTES];
	size_t n;
	int r = py_attribute(reader_of(look), object, "__notes__", &list);

	if (r)
		return is_fatal(r) ? r : 0;
	r = py_sequence_read(reader_of(look), list, items, ARRAY_SIZE(items), &n);
	if (r)
		return or_incomplete(r, exception);
	exception->incomplete |= n > ARRAY_SIZE(items);
	n = min_of(n, ARRAY_SIZE(items));
	exception->notes = calloc(n + 1, sizeof(*exception->notes));
	if (!exception->notes)
		return -ENOMEM;
	for (size_t i = 0; !r && i < n; i++) {
		_cleanup_(strbuf_deinit) struct strbuf text = { 0 };

		r = exception_argument_read(reader_of(look), items[i], &text);
		r = or_incomplete(r, exception);
		if (!r)
			r = take_text(&text, &exception->notes[exception->notes_n]);
		exception->notes_n += !r;
	}
	return r;
}

/* `link` is a reference to an exception, or to nothing. */
static int read_link(
	struct look *look, raddr link, struct pyspyd_exception *exception, struct pyspyd_exception **ret_linked) {
	if (!link)
		return 0;
	if (look->seen_n == LIMIT_EXCEPTIONS || is_late(look) || exception_check(reader_of(look), link)) {
		exception->incomplete = true;
		return 0;
	}
	*ret_linked = calloc(1, sizeof(**ret_linked));
	return *ret_linked ? read_exception(look, link, 0, *ret_linked) : -ENOMEM;
}

static int read_members(struct look *look, raddr object, struct pyspyd_exception *exception) {
	const struct py_reader *py = reader_of(look);
	raddr items[LIMIT_EXCEPTION_MEMBERS];
	uint64_t tuple;
	size_t n;
	int r = mem_read_u64(py->mem, object + py->layout.exceptiongroup_excs, &tuple);

	if (!r)
		r = py_sequence_read(py, tuple, items, ARRAY_SIZE(items), &n);
	if (r)
		return or_incomplete(r, exception);
	exception->members_total = n;
	n = min_of(n, ARRAY_SIZE(items));
	exception->members = calloc(n + 1, sizeof(*exception->members));
	if (!exception->members)
		return -ENOMEM;
	for (size_t i = 0; !r && i < n && look->seen_n < LIMIT_EXCEPTIONS && !is_late(look); i++) {
		if (exception_check(py, items[i]))
			break;
		exception->members_n = i + 1;
		r = read_exception(look, items[i], 0, &exception->members[i]);
	}
	exception->incomplete |= exception->members_n < exception->members_total;
	return r;
}

/* Groups are known by the class that all of them are derived from. */
static bool is_group(const struct look *look, raddr object) {
	return layout_has(reader_of(look)->layout.exceptiongroup_excs) &&
		asyncio_is_instance(reader_of(look), object, "BaseExceptionGroup");
}

static int read_links(
	struct look *look, raddr object, const uint8_t *bytes, size_t len, struct pyspyd_exception *exception) {
	const struct layout *l = &reader_of(look)->layout;
	int r = read_link(look, peek_u64(bytes, len, l->exception_cause), exception, &exception->cause);

	if (!r && !peek_u8(bytes, len, l->exception_suppress_context))
		r = read_link(look, peek_u64(bytes, len, l->exception_context), exception, &exception->context);
	if (!r && is_group(look, object))
		r = read_members(look, object, exception);
	return r;
}

static bool was_seen(const struct look *look, raddr object) {
	for (size_t i = 0; i < look->seen_n; i++)
		if (look->seen[i] == object)
			return true;
	return false;
}

/* `object` is an exception; `traceback` stands in for its own, 0: does not. There is room in look->seen, or it was
 * seen. Half-built ones are freed with the rest. */
static int read_exception(struct look *look, raddr object, raddr traceback, struct pyspyd_exception *exception) {
	const struct layout *l = &reader_of(look)->layout;
	uint8_t bytes[TRACEBACK_BYTES_MAX];
	size_t len = min_of((size_t)l->exception_size, sizeof(bytes));
	int r = mem_read(reader_of(look)->mem, object, bytes, len);

	exception->repeated = was_seen(look, object);
	if (!r)
		r = describe_type(look, peek_u64(bytes, len, l->object_type), exception);
	if (!r)
		r = read_message(look, object, exception);
	if (r || exception->repeated)
		return or_incomplete(r, exception);
	look->seen[look->seen_n++] = object;
	r = read_notes(look, object, exception);
	traceback = traceback ? traceback : peek_u64(bytes, len, l->exception_traceback);
	if (!r && traceback)
		r = read_traceback(look, traceback, exception);
	return r ? r : read_links(look, object, bytes, len, exception);
}

/* The thread */

/* Appends an exception; the last of the vector is the one that was not finished, where that failed. */
static int add_exception(struct look *look, raddr object, raddr traceback, enum pyspyd_exception_state state,
	exception_vec *exceptions) {
	int r = vec_push(exceptions, ((struct pyspyd_exception){ .state = state }));

	if (r)
		return r;
	return read_exception(look, object, traceback, &exceptions->items[exceptions->n - 1]);
}

/* To 3.11, what C code raised is a type and arguments until somebody catches it. */
static int add_unmade(struct look *look, raddr type, raddr value, raddr traceback, exception_vec *exceptions) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	struct pyspyd_exception *exception;
	char name[NAME_BYTES];
	int r = vec_push(exceptions, ((struct pyspyd_exception){ .state = PYSPYD_EXCEPTION_RAISED }));

	if (r)
		return r;
	exception = &exceptions->items[exceptions->n - 1];
	r = describe_type(look, type, exception);
	if (!r && value && !py_type_name(reader_of(look), value, name, sizeof(name)) && strcmp(name, "NoneType")) {
		r = strcmp(name, "tuple") ? exception_argument_read(reader_of(look), value, &text)
					  : exception_arguments_read(reader_of(look), value, &text);
		r = or_incomplete(r, exception);
	}
	if (!r)
		r = take_text(&text, &exception->message);
	return r || !traceback ? r : read_traceback(look, traceback, exception);
}

static int add_raised(struct look *look, raddr tstate, exception_vec *exceptions) {
	const struct py_reader *py = reader_of(look);
	const struct layout *l = &py->layout;
	uint64_t type = 0, value, traceback = 0;
	struct mem_range ranges[3] = { { tstate + l->tstate_current_exception, sizeof(value), &value } };
	size_t n = 1;
	int r;

	if (!layout_has(l->tstate_current_exception))
		return 0;
	if (layout_has(l->tstate_curexc_type))
		ranges[n++] = (struct mem_range){ tstate + l->tstate_curexc_type, sizeof(type), &type };
	if (layout_has(l->tstate_curexc_traceback))
		ranges[n++] = (struct mem_range){ tstate + l->tstate_curexc_traceback, sizeof(traceback), &traceback };
	r = mem_read_many(py->mem, ranges, n, NULL); /* at once: the thread may have been stopped for it */
	if (r || (!value && !type))
		return r;
	r = value ? exception_check(py, value) : PY_E_TYPE;
	if (!r)
		return add_exception(look, value, traceback, PYSPYD_EXCEPTION_RAISED, exceptions);
	if (r == PY_E_TYPE && type)
		return add_unmade(look, type, value, traceback, exceptions);
	return r == PY_E_TYPE ? PY_E_TORN : r;
}

/* None, or nothing, where an item's owner handles none. */
static int add_handled(struct look *look, raddr value, raddr *last, exception_vec *exceptions) {
	int r = value && value != *last ? exception_check(reader_of(look), value) : PY_E_TYPE;

	if (r == PY_E_TYPE || look->seen_n == LIMIT_EXCEPTIONS)
		return 0;
	*last = value;
	return r ? r : add_exception(look, value, 0, PYSPYD_EXCEPTION_HANDLED, exceptions);
}

/* A generator that handles nothing itself shares its caller's exception on some versions: the same twice. */
static int add_all_handled(struct look *look, raddr tstate, exception_vec *exceptions) {
	const struct layout *l = &reader_of(look)->layout;
	struct mem *mem = reader_of(look)->mem;
	uint64_t item, value;
	raddr last = 0;
	int r;

	if (!layout_has(l->tstate_exc_info)) {
		r = mem_read_u64(mem, tstate + l->tstate_exc_value, &value);
		return r ? r : add_handled(look, value, &last, exceptions);
	}
	r = mem_read_u64(mem, tstate + l->tstate_exc_info, &item);
	for (int i = 0; !r && item && i < HANDLERS_MAX && !is_late(look); i++) {
		const struct mem_range ranges[] = { { item + l->excitem_value, sizeof(value), &value },
			{ item + l->excitem_previous, sizeof(item), &item } };

		r = mem_read_many(mem, ranges, ARRAY_SIZE(ranges), NULL);
		if (!r)
			r = add_handled(look, value, &last, exceptions);
	}
	return r;
}

int py_exceptions_read(const struct py_runtime *rt, struct py_code_cache *codes, raddr tstate, uint64_t generation,
	uint64_t deadline_ns, struct pyspyd_exception **ret_exceptions, size_t *ret_n) {
	const struct layout *l = &rt->reader.layout;
	struct look look = { .rt = rt,
		.codes = codes,
		.generation = generation,
		.now_ns = clock_mono_ns(),
		.deadline_ns = deadline_ns };
	exception_vec exceptions = { 0 };
	int r;

	if (!layout_has(l->tstate_exc_info) && !layout_has(l->tstate_exc_value))
		return PY_E_TYPE;
	r = add_raised(&look, tstate, &exceptions);
	if (!r)
		r = add_all_handled(&look, tstate, &exceptions);
	if (r) {
		pyspyd_exceptions_free(exceptions.items, exceptions.n);
		return r;
	}
	*ret_exceptions = exceptions.items;
	*ret_n = exceptions.n;
	return 0;
}

/* Glances */

static bool is_exception_type(const struct py_reader *py, raddr type) {
	uint64_t flags;

	return !mem_read_u64(py->mem, type + py->layout.type_flags, &flags) && flags & TYPE_BASE_EXCEPTION;
}

/* The frame object of the thread's innermost frame; 0: it has none yet, so that nothing was caught in it. */
static int innermost_frame(const struct py_reader *py, raddr tstate, raddr *ret_object) {
	const struct layout *l = &py->layout;
	bool cframe = layout_has(l->cframe_current_frame); /* 3.10 has one for other things */
	uint64_t frame;
	int r = mem_read_u64(py->mem, tstate + (cframe ? l->tstate_cframe : l->tstate_frame), &frame);

	if (!r && cframe && frame)
		r = mem_read_u64(py->mem, frame + l->cframe_current_frame, &frame);
	if (!r && frame && layout_has(l->frame_object))
		r = mem_read_u64(py->mem, frame + l->frame_object, &frame);
	if (!r)
		*ret_object = frame;
	return r;
}

/* A traceback begins with the frame that caught the exception. */
static int glance_at_handled(const struct py_reader *py, raddr tstate, struct py_exception_glance *glance) {
	const struct layout *l = &py->layout;
	uint64_t args, traceback, frame = 0, innermost;
	int r = mem_read_many(py->mem,
		(struct mem_range[]){
			{ glance->exception + l->object_type, sizeof(glance->type), &glance->type },
			{ glance->exception + l->exception_args, sizeof(args), &args },
			{ glance->exception + l->exception_traceback, sizeof(traceback), &traceback },
		},
		3, NULL);

	if (!r && !is_exception_type(py, glance->type))
		r = PY_E_TORN;
	if (!r && traceback)
		r = mem_read_u64(py->mem, traceback + l->tb_frame, &frame);
	if (!r)
		r = innermost_frame(py, tstate, &innermost);
	if (r)
		return r;
	glance->here = frame && frame == innermost;
	glance->mark = hash_mix(hash_mix(hash_mix(glance->exception) ^ args) ^ traceback);
	return 0;
}

/* The innermost handler's. Of what is no exception (None, to 3.10) the type tells. */
static int find_handled(const struct py_reader *py, raddr item, struct py_exception_glance *glance) {
	const struct layout *l = &py->layout;
	uint64_t value, type;
	int r = 0;

	for (int i = 0; !r && item && i < GLANCE_HANDLERS_MAX; i++) {
		r = mem_read_u64(py->mem, item + l->excitem_value, &value);
		if (!r && value)
			r = py_type_of(py, value, &type);
		if (!r && value && is_exception_type(py, type)) {
			glance->exception = value;
			return 0;
		}
		if (!r)
			r = mem_read_u64(py->mem, item + l->excitem_previous, &item);
	}
	return r;
}

int py_exception_glance(const struct py_runtime *rt, raddr tstate, struct py_exception_glance *ret_glance) {
	const struct py_reader *py = &rt->reader;
	const struct layout *l = &py->layout;
	struct py_exception_glance glance = { 0 };
	uint64_t raised, item;
	int r;

	if (!layout_has(l->tstate_exc_info) || !layout_has(l->tstate_current_exception))
		return PY_E_TYPE;
	r = mem_read_many(py->mem,
		(struct mem_range[]){
			{ tstate +
					(layout_has(l->tstate_curexc_type) ? l->tstate_curexc_type
									   : l->tstate_current_exception),
				sizeof(raised), &raised },
			{ tstate + l->tstate_exc_info, sizeof(item), &item },
		},
		2, NULL);
	glance.raised = !r && raised;
	if (glance.raised && layout_has(l->tstate_curexc_type))
		glance.type = raised;
	else if (glance.raised)
		r = py_type_of(py, raised, &glance.type);
	if (!r && glance.raised && !is_exception_type(py, glance.type))
		r = PY_E_TORN;
	if (!r && !glance.raised)
		r = find_handled(py, item, &glance);
	if (!r && glance.exception)
		r = glance_at_handled(py, tstate, &glance);
	if (!r)
		*ret_glance = glance;
	return r;
}
