/* SPDX-License-Identifier: MIT */
/* Exceptions by hand, as each version lays them out, and what a hostile target could put in their place: circles,
 * chains and groups without end, things that are none. Real ones are compared by tests/live/exceptions.sh. */
#include "engine/base/limits.h"
#include "engine/cpython/exceptions.h"
#include "engine/finding/exceptions.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>
#include <string.h>

#define FLAG_EXCEPTION (UINT64_C(1) << 30)
#define FLAG_HEAP (UINT64_C(1) << 9)
#define CHAIN 200

struct thrower {
	struct image *img;
	raddr tstate, item;
	raddr base, plain; /* BaseException, a class derived from it */
	struct intern strings;
	struct py_code_cache codes;
	struct pyspyd_exception *exceptions;
	size_t n;
};

static raddr new_type(struct image *img, const char *type_name, uint64_t flags) {
	raddr type = image_take(img, 1024), name = image_take(img, 64);

	image_put(img, name, type_name, strlen(type_name) + 1);
	image_put_u64(img, type + img->l->type_name, name);
	image_put_u64(img, type + img->l->type_flags, flags);
	image_put_u64(img, type + img->l->type_basicsize, img->l->exception_size);
	return type;
}

static raddr new_class(struct thrower *t, const char *name) {
	raddr type = new_type(t->img, name, FLAG_EXCEPTION);
	raddr mro[] = { type, t->base };

	image_put_u64(t->img, type + t->img->l->type_mro, image_tuple(t->img, mro, ARRAY_SIZE(mro)));
	image_put_u64(t->img, type + t->img->l->type_dict - 8, t->base);
	return type;
}

static raddr new_exception(struct thrower *t, raddr type, const char *argument) {
	raddr at = image_take(t->img, 256), args = image_text(t->img, argument);

	image_put_u64(t->img, at + t->img->l->object_type, type);
	image_put_u64(t->img, at + t->img->l->exception_args, image_tuple(t->img, &args, 1));
	return at;
}

static void handle(struct thrower *t, raddr exception) {
	const struct layout *l = t->img->l;

	if (layout_has(l->tstate_exc_info))
		image_put_u64(t->img, t->item + l->excitem_value, exception);
	else
		image_put_u64(t->img, t->tstate + l->tstate_exc_value, exception);
}

static void thrower_open(struct thrower *t, struct image *img) {
	*t = (struct thrower){ .img = img };
	t->tstate = image_thread(img, img->interp, 1, 1);
	t->item = image_take(img, 64);
	if (layout_has(img->l->tstate_exc_info))
		image_put_u64(img, t->tstate + img->l->tstate_exc_info, t->item);
	t->base = new_type(img, "BaseException", FLAG_EXCEPTION);
	image_put_u64(img, t->base + img->l->type_mro, image_tuple(img, &t->base, 1));
	t->plain = new_class(t, "ValueError");
	cr_assert_eq(intern_init(&t->strings), 0);
	py_code_cache_init(&t->codes, &img->rt, &t->strings);
}

static void forget(struct thrower *t) {
	pyspyd_exceptions_free(t->exceptions, t->n);
	t->exceptions = NULL;
	t->n = 0;
}

static void thrower_close(struct thrower *t) {
	forget(t);
	py_code_cache_deinit(&t->codes);
	intern_deinit(&t->strings);
}

static const struct pyspyd_exception *read_one(struct thrower *t) {
	forget(t);
	cr_assert_eq(py_exceptions_read(&t->img->rt, &t->codes, t->tstate, 0, 0, &t->exceptions, &t->n), 0);
	cr_assert_eq(t->n, 1);
	return t->exceptions;
}

static void put_link(struct thrower *t, raddr from, uint32_t offset, raddr to) {
	image_put_u64(t->img, from + offset, to);
}

static void check_nothing(struct image *img) {
	struct thrower t;

	thrower_open(&t, img);
	cr_assert_eq(py_exceptions_read(&img->rt, &t.codes, t.tstate, 0, 0, &t.exceptions, &t.n), 0);
	cr_assert_eq(t.n, 0);
	handle(&t, image_object(img, T_PLAIN, 64)); /* None, to 3.10 */
	cr_assert_eq(py_exceptions_read(&img->rt, &t.codes, t.tstate, 0, 0, &t.exceptions, &t.n), 0);
	cr_assert_eq(t.n, 0);
	thrower_close(&t);
}

Test(exceptions, nothing_is_handled) {
	image_each(check_nothing);
}

static void check_circle(struct image *img) {
	struct thrower t;
	raddr first, second;

	thrower_open(&t, img);
	first = new_exception(&t, t.plain, "first");
	second = new_exception(&t, t.plain, "second");
	put_link(&t, first, img->l->exception_cause, second);
	put_link(&t, second, img->l->exception_context, first);
	handle(&t, first);
	read_one(&t);
	cr_assert_str_eq(t.exceptions->message, "first");
	cr_assert_str_eq(t.exceptions->cause->message, "second");
	cr_assert_str_eq(t.exceptions->cause->context->message, "first");
	cr_assert(t.exceptions->cause->context->repeated);
	cr_assert_not(t.exceptions->incomplete);
	image_put_u8(img, second + img->l->exception_suppress_context, 1);
	read_one(&t);
	cr_assert_null(t.exceptions->cause->context);
	thrower_close(&t);
}

Test(exceptions, circles_end) {
	image_each(check_circle);
}

static void check_chain(struct image *img) {
	const struct pyspyd_exception *last;
	struct thrower t;
	raddr next = 0;
	size_t n = 1;

	thrower_open(&t, img);
	for (int i = 0; i < CHAIN; i++) {
		raddr exception = new_exception(&t, t.plain, "link");

		put_link(&t, exception, img->l->exception_cause, next);
		next = exception;
	}
	handle(&t, next);
	for (last = read_one(&t); last->cause; last = last->cause)
		n++;
	cr_assert_eq(n, LIMIT_EXCEPTIONS);
	cr_assert(last->incomplete);
	thrower_close(&t);
}

Test(exceptions, chains_are_bounded) {
	image_each(check_chain);
}

static void check_group(struct image *img) {
	raddr members[CHAIN], type, group;
	struct thrower t;

	if (!layout_has(img->l->exceptiongroup_excs))
		return;
	thrower_open(&t, img);
	type = new_class(&t, "BaseExceptionGroup");
	group = new_exception(&t, type, "unused");
	for (int i = 0; i < CHAIN; i++)
		members[i] = i == 1 ? group : new_exception(&t, t.plain, "member");
	put_link(&t, group, img->l->exceptiongroup_msg, image_text(img, "many"));
	put_link(&t, group, img->l->exceptiongroup_excs, image_tuple(img, members, CHAIN));
	handle(&t, group);
	read_one(&t);
	cr_assert_str_eq(t.exceptions->message, "many (200 sub-exceptions)");
	cr_assert_eq(t.exceptions->members_n, LIMIT_EXCEPTION_MEMBERS);
	cr_assert_eq(t.exceptions->members_total, CHAIN);
	cr_assert(t.exceptions->incomplete);
	cr_assert(t.exceptions->members[1].repeated, "a group in itself");
	cr_assert_eq(t.exceptions->members[1].members_n, 0);
	thrower_close(&t);
}

Test(exceptions, groups_are_bounded) {
	image_each(check_group);
}

static raddr new_frame(struct image *img, raddr code) {
	raddr object = image_take(img, 512), frame = object;

	if (layout_has(img->l->frameobj_frame)) {
		frame = image_take(img, 256);
		image_put_u64(img, object + img->l->frameobj_frame, frame);
	}
	image_put_u64(img, frame + img->l->frame_code, code);
	return object;
}

static raddr new_traceback(struct image *img, raddr type, raddr next, raddr frame, int line) {
	raddr at = image_take(img, 64);

	image_put_u64(img, at + img->l->object_type, type);
	image_put_u64(img, at + img->l->tb_next, next);
	image_put_u64(img, at + img->l->tb_frame, frame);
	image_put_u32(img, at + img->l->tb_lasti, 4);
	image_put_u32(img, at + img->l->tb_lineno, (uint32_t)line);
	return at;
}

static void check_traceback(struct image *img) {
	struct thrower t;
	raddr type = new_type(img, "traceback", 0), exception, traceback = 0;

	thrower_open(&t, img);
	exception = new_exception(&t, t.plain, "deep");
	traceback = new_traceback(img, type, 0, new_frame(img, image_code(img, "leaf", "a.py", 7)), -1);
	for (int line = CHAIN; line > 0; line--)
		traceback =
			new_traceback(img, type, traceback, new_frame(img, image_code(img, "caller", "b.py", 1)), line);
	put_link(&t, exception, img->l->exception_traceback, traceback);
	handle(&t, exception);
	read_one(&t);
	cr_assert_eq(t.exceptions->traceback_n, LIMIT_TRACEBACK_INNER + LIMIT_TRACEBACK_OUTER);
	cr_assert_eq(t.exceptions->traceback_gap, LIMIT_TRACEBACK_INNER);
	cr_assert_eq(t.exceptions->traceback_omitted, CHAIN + 1 - t.exceptions->traceback_n);
	cr_assert_str_eq(t.exceptions->traceback[0].function, "leaf");
	cr_assert_eq(t.exceptions->traceback[0].line, 7, "out of the code's table");
	cr_assert_eq(t.exceptions->traceback[1].line, CHAIN);
	cr_assert_eq(t.exceptions->traceback[t.exceptions->traceback_n - 1].line, 1);
	put_link(&t, traceback, img->l->tb_next, traceback);
	read_one(&t);
	cr_assert(t.exceptions->incomplete, "one that leads back into itself");
	put_link(&t, traceback, img->l->tb_next, IMAGE_NOWHERE);
	read_one(&t);
	cr_assert(t.exceptions->incomplete);
	cr_assert_eq(t.exceptions->traceback_n, 1);
	put_link(&t, exception, img->l->exception_traceback, exception);
	read_one(&t);
	cr_assert(t.exceptions->incomplete, "no traceback");
	cr_assert_eq(t.exceptions->traceback_n, 0);
	thrower_close(&t);
}

Test(exceptions, tracebacks_are_bounded) {
	image_each(check_traceback);
}

/* To 3.11: a type and its arguments. */
static void check_unmade(struct image *img) {
	struct thrower t;
	raddr items[] = { image_text(img, "one"), image_long(img, 2) };
	const raddr values[] = { 0, items[0], image_tuple(img, items, 2) };
	static const char *const messages[] = { "", "one", "('one', 2)" };

	if (!layout_has(img->l->tstate_curexc_type))
		return;
	thrower_open(&t, img);
	put_link(&t, t.tstate, img->l->tstate_curexc_type, t.plain);
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		put_link(&t, t.tstate, img->l->tstate_current_exception, values[i]);
		read_one(&t);
		cr_assert_eq(t.exceptions->state, PYSPYD_EXCEPTION_RAISED);
		cr_assert_str_eq(t.exceptions->type, "ValueError");
		cr_assert_str_eq(t.exceptions->message, messages[i]);
	}
	thrower_close(&t);
}

Test(exceptions, what_nobody_has_made_yet) {
	image_each(check_unmade);
}

static void check_own_str(struct image *img) {
	struct thrower t;
	raddr key = image_text(img, "__str__"), value = image_long(img, 1), type;

	thrower_open(&t, img);
	type = new_class(&t, "Odd");
	image_put_u64(img, type + img->l->type_flags, FLAG_EXCEPTION | FLAG_HEAP);
	image_put_u64(img, type + img->l->type_dict, image_dict(img, &key, &value, 1));
	handle(&t, new_exception(&t, type, "argument"));
	read_one(&t);
	cr_assert(t.exceptions->own_str);
	cr_assert_str_eq(t.exceptions->message, "argument");
	handle(&t, new_exception(&t, new_class(&t, "KeyError"), "name"));
	read_one(&t);
	cr_assert_not(t.exceptions->own_str);
	thrower_close(&t);
}

Test(exceptions, a_str_of_its_own_is_not_run) {
	image_each(check_own_str);
}

static void check_late(struct image *img) {
	struct thrower t;

	thrower_open(&t, img);
	handle(&t, new_exception(&t, t.plain, "late"));
	put_link(&t, new_exception(&t, t.plain, "late"), img->l->exception_cause, IMAGE_NOWHERE);
	cr_assert_eq(py_exceptions_read(&img->rt, &t.codes, t.tstate, 0, 1, &t.exceptions, &t.n), 0);
	cr_assert_leq(t.n, 1);
	thrower_close(&t);
}

Test(exceptions, a_deadline_that_has_passed) {
	image_each(check_late);
}

#define S(text) ((char[]){ text })

Test(exceptions, text_and_json) {
	struct pyspyd_frame frame = { .function = S("load"), .file = S("/srv/a.py"), .line = 3 };
	char *notes[] = { S("see\nthere") };
	struct pyspyd_exception cause = { .type = S("KeyError"), .message = S("'port'"), .repeated = true };
	struct pyspyd_exception member = { .type = S("TypeError"), .message = S(""), .own_str = true };
	struct pyspyd_exception exception = { .state = PYSPYD_EXCEPTION_HANDLED,
		.type = S("app.Error"),
		.message = S("bad\x1b[2J"),
		.notes = notes,
		.notes_n = 1,
		.traceback = &frame,
		.traceback_n = 1,
		.cause = &cause,
		.context = &cause,
		.members = &member,
		.members_n = 1,
		.members_total = 2,
		.incomplete = true };
	_cleanup_(strbuf_deinit) struct strbuf sb = { 0 };
	_free_ char *text = NULL;
	json_t *json;

	exceptions_text(&sb, &exception, 1, false);
	cr_assert_str_eq(strbuf_str(&sb),
		"  Handles app.Error: bad\\x1b[2J\n"
		"    load (/srv/a.py:3)\n"
		"    Note: see\\x0athere\n"
		"    Member TypeError (its arguments: it has a __str__ of its own)\n"
		"    Raised from KeyError: 'port' (shown above)\n"
		"    Raised while this was handled: KeyError: 'port' (shown above)\n"
		"    … (incomplete: there is more, beyond the limits or not to be read)\n");
	json = exceptions_json(&exception, 1);
	text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	cr_assert_str_eq(text,
		"[{\"state\":\"handled\",\"type\":\"app.Error\",\"message\":\"bad\\u001B[2J\",\"notes\":["
		"\"see\\nthere\"],"
		"\"traceback\":[{\"lang\":\"python\",\"function\":\"load\",\"qualname\":\"load\",\"file\":\"/srv/"
		"a.py\","
		"\"line\":3,\"module\":null}],\"cause\":{\"state\":null,\"type\":\"KeyError\",\"message\":\"'port'\","
		"\"notes\":[],\"traceback\":[],\"cause\":null,\"context\":null,\"repeated\":true},\"context\":{"
		"\"state\":"
		"null,\"type\":\"KeyError\",\"message\":\"'port'\",\"notes\":[],\"traceback\":[],\"cause\":null,"
		"\"context\":null,\"repeated\":true},\"members\":[{\"state\":null,\"type\":\"TypeError\",\"message\":"
		"\"\","
		"\"notes\":[],\"traceback\":[],\"cause\":null,\"context\":null,\"own_str\":true}],\"members_total\":2,"
		"\"incomplete\":true}]");
}
