/* SPDX-License-Identifier: MIT */
/* What an exception says of itself, without asking it: the __str__ of the built-in classes is done here from what they
 * keep, each as its C function does it (CPython Objects/exceptions.c, the same from 3.6 on).
 *
 * Which __str__ a class has is told by its method resolution order: the first class that brings one. A class made by
 * Python code (or at run time by C code) that does so is not asked; its arguments are shown.
 *
 * The character that an encoder could not encode is not shown: those are mostly lone surrogates. */
#include "engine/cpython/exception_message.h"

#include "engine/base/limits.h"
#include "engine/cpython/object_head.h"
#include <string.h>

#define MRO_MAX 64
#define NAME_BYTES 64
#define NESTED_MAX 4 /* exceptions that are the argument of another one */

struct message {
	const struct py_reader *py;
	raddr exception;
	struct strbuf *out;
	unsigned depth;
};

static int message_read(const struct py_reader *py, raddr exception, struct strbuf *out, unsigned depth, bool *ret_own);

int exception_check(const struct py_reader *py, raddr object) {
	struct object_head head;

	return object_head_read_as(py, object, TYPE_BASE_EXCEPTION, py->layout.object_size, &head);
}

static int member(const struct message *m, uint32_t offset, uint64_t *ret) {
	return layout_has(offset) ? mem_read_u64(m->py->mem, m->exception + offset, ret) : PY_E_TYPE;
}

static int add_text(const struct py_reader *py, raddr object, struct strbuf *out) {
	int r = py_text_read(py, object, LIMIT_MESSAGE_CHARS, out);

	if (r != PY_E_TRUNCATED)
		return r;
	strbuf_adds(out, "…");
	return 0;
}

static int add_argument(const struct py_reader *py, raddr object, struct strbuf *out, unsigned depth) {
	bool own;
	int r = add_text(py, object, out);

	if (r != PY_E_TYPE)
		return r;
	if (depth < NESTED_MAX && !exception_check(py, object))
		return message_read(py, object, out, depth + 1, &own);
	py_value_describe(py, object, LIMIT_MESSAGE_CHARS, out);
	return 0;
}

int exception_argument_read(const struct py_reader *py, raddr object, struct strbuf *out) {
	return add_argument(py, object, out, 0);
}

/* str() of a member; None where there is none. */
static int add_member(const struct message *m, raddr object) {
	if (object)
		return add_argument(m->py, object, m->out, m->depth);
	strbuf_adds(m->out, "None");
	return 0;
}

static int add_arguments(const struct py_reader *py, raddr tuple, struct strbuf *out, unsigned depth, bool quote) {
	raddr first;
	size_t n;
	int r = py_sequence_read(py, tuple, &first, 1, &n);

	if (r || !n)
		return r;
	if (n == 1 && !quote)
		return add_argument(py, first, out, depth);
	py_value_describe(py, n == 1 ? first : tuple, LIMIT_MESSAGE_CHARS, out);
	return 0;
}

int exception_arguments_read(const struct py_reader *py, raddr tuple, struct strbuf *out) {
	return add_arguments(py, tuple, out, 0, false);
}

static int add_args(const struct message *m) {
	uint64_t args;
	int r = member(m, m->py->layout.exception_args, &args);

	return r ? r : add_arguments(m->py, args, m->out, m->depth, false);
}

static int add_key(const struct message *m) {
	uint64_t args;
	int r = member(m, m->py->layout.exception_args, &args);

	return r ? r : add_arguments(m->py, args, m->out, m->depth, true);
}

/* [Errno 2] No such file or directory: 'a' -> 'b' */
static int add_os(const struct message *m) {
	const struct layout *l = &m->py->layout;
	uint64_t number, text, names[2];
	int r = member(m, l->oserror_errno, &number);

	if (!r)
		r = member(m, l->oserror_strerror, &text);
	if (!r)
		r = member(m, l->oserror_filename, &names[0]);
	if (!r)
		r = member(m, l->oserror_filename2, &names[1]);
	if (r)
		return r;
	if (!names[0] && (!number || !text))
		return add_args(m);
	strbuf_adds(m->out, "[Errno ");
	r = add_member(m, number);
	strbuf_adds(m->out, "] ");
	if (!r)
		r = add_member(m, text);
	for (size_t i = 0; !r && i < ARRAY_SIZE(names) && names[i]; i++) {
		strbuf_adds(m->out, i ? " -> " : ": ");
		py_value_describe(m->py, names[i], LIMIT_PATH_CHARS, m->out);
	}
	return r;
}

/* invalid syntax (file.py, line 3) */
static int add_syntax(const struct message *m) {
	const struct layout *l = &m->py->layout;
	_cleanup_(strbuf_deinit) struct strbuf path = { 0 };
	uint64_t text, file, line;
	const char *name;
	int64_t number;
	bool has_file, has_line;
	int r = member(m, l->syntaxerror_msg, &text);

	if (!r)
		r = member(m, l->syntaxerror_filename, &file);
	if (!r)
		r = member(m, l->syntaxerror_lineno, &line);
	if (!r)
		r = add_member(m, text);
	if (r)
		return r;
	has_file = file && !py_text_read(m->py, file, LIMIT_PATH_CHARS, &path);
	has_line = line && !py_long_read(m->py, line, &number);
	if (!has_file && !has_line)
		return 0;
	name = strrchr(strbuf_str(&path), '/');
	strbuf_addf(m->out, " (%s%s", has_file ? name ? name + 1 : strbuf_str(&path) : "",
		has_file && has_line ? ", " : "");
	if (has_line)
		strbuf_addf(m->out, "line %lld", (long long)number);
	strbuf_adds(m->out, ")");
	return 0;
}

struct unicode_words {
	const char *verb, *unit;
	bool has_encoding, has_byte;
};

static int add_unicode(const struct message *m, const struct unicode_words *words) {
	const struct layout *l = &m->py->layout;
	uint64_t encoding = 0, object = 0, start, end, reason;
	uint8_t byte;
	int r = member(m, l->unicodeerror_start, &start);

	if (!r)
		r = member(m, l->unicodeerror_end, &end);
	if (!r)
		r = member(m, l->unicodeerror_reason, &reason);
	if (!r)
		r = member(m, l->unicodeerror_object, &object);
	if (!r && words->has_encoding)
		r = member(m, l->unicodeerror_encoding, &encoding);
	if (r || !object)
		return r; /* one that was never filled says nothing */
	if (words->has_encoding) {
		strbuf_adds(m->out, "'");
		r = add_member(m, encoding);
		strbuf_adds(m->out, "' codec ");
	}
	strbuf_addf(m->out, "can't %s %s", words->verb, words->unit);
	if (end == start + 1 && words->has_byte && !mem_read(m->py->mem, object + l->bytes_data + start, &byte, 1))
		strbuf_addf(m->out, " 0x%02x", byte);
	strbuf_adds(m->out, end == start + 1 ? " in position " : "s in position ");
	strbuf_addf(m->out, "%lld", (long long)start);
	if (end != start + 1)
		strbuf_addf(m->out, "-%lld", (long long)(end - 1));
	strbuf_adds(m->out, ": ");
	return r ? r : add_member(m, reason);
}

static int add_encode(const struct message *m) {
	return add_unicode(m, &(struct unicode_words){ .verb = "encode", .unit = "character", .has_encoding = true });
}

static int add_decode(const struct message *m) {
	return add_unicode(
		m, &(struct unicode_words){ .verb = "decode", .unit = "byte", .has_encoding = true, .has_byte = true });
}

static int add_translate(const struct message *m) {
	return add_unicode(m, &(struct unicode_words){ .verb = "translate", .unit = "character" });
}

static int add_import(const struct message *m) {
	uint64_t text;
	size_t start = m->out->len;
	int r = member(m, m->py->layout.importerror_msg, &text);

	if (!r)
		r = text ? add_text(m->py, text, m->out) : PY_E_TYPE;
	return r == PY_E_TYPE && m->out->len == start ? add_args(m) : r;
}

static int add_group(const struct message *m) {
	uint64_t text, members;
	size_t n;
	int r = member(m, m->py->layout.exceptiongroup_msg, &text);

	if (!r)
		r = member(m, m->py->layout.exceptiongroup_excs, &members);
	if (!r)
		r = py_sequence_read(m->py, members, NULL, 0, &n);
	if (!r)
		r = add_member(m, text);
	if (!r)
		strbuf_addf(m->out, " (%zu sub-exception%s)", n, n > 1 ? "s" : "");
	return r;
}

/* Built-in classes that have a __str__ of their own. */
static const struct speaker {
	const char *name; /* tp_name */
	int (*add)(const struct message *m);
} speakers[] = {
	{ "BaseException", add_args },
	{ "KeyError", add_key },
	{ "OSError", add_os },
	{ "SyntaxError", add_syntax },
	{ "UnicodeEncodeError", add_encode },
	{ "UnicodeDecodeError", add_decode },
	{ "UnicodeTranslateError", add_translate },
	{ "ImportError", add_import },
	{ "BaseExceptionGroup", add_group },
};

static const struct speaker *speaker_named(const char *name) {
	for (size_t i = 0; i < ARRAY_SIZE(speakers); i++)
		if (!strcmp(speakers[i].name, name))
			return &speakers[i];
	return NULL;
}

/* From 3.12 on the dictionaries of static types are the interpreter's, and not where the type says: those that have a
 * __str__ are known by name. Return: 0 with *ret_done set where the search is over. */
static int ask_class(const struct py_reader *py, raddr addr, const struct speaker **ret, bool *ret_done) {
	struct type_head type;
	char name[NAME_BYTES];
	raddr unused;
	int r = type_head_read(py, addr, &type);

	if (!r)
		r = type.name ? mem_read_cstr(py->mem, type.name, name, sizeof(name)) : PY_E_TYPE;
	if (r)
		return r;
	if (!(type.flags & TYPE_HEAP)) {
		*ret = speaker_named(name);
		*ret_done = *ret != NULL;
	}
	if (!*ret_done && type.dict)
		*ret_done = !py_dict_get(py, type.dict, "__str__", &unused);
	return 0;
}

/* The class that answers str(); *ret stays NULL where it is one that we cannot speak for. */
static int find_speaker(const struct py_reader *py, raddr exception, const struct speaker **ret) {
	raddr classes[MRO_MAX], type;
	uint64_t mro;
	bool done = false;
	size_t n;
	int r = py_type_of(py, exception, &type);

	*ret = NULL;
	if (!r)
		r = layout_has(py->layout.type_mro) ? mem_read_u64(py->mem, type + py->layout.type_mro, &mro)
						    : PY_E_TYPE;
	if (!r)
		r = py_sequence_read(py, mro, classes, MRO_MAX, &n);
	for (size_t i = 0; !r && !done && i < min_of(n, (size_t)MRO_MAX); i++)
		r = ask_class(py, classes[i], ret, &done);
	return r;
}

static int message_read(
	const struct py_reader *py, raddr exception, struct strbuf *out, unsigned depth, bool *ret_own) {
	const struct message m = { .py = py, .exception = exception, .out = out, .depth = depth };
	const struct speaker *speaker;
	int r = find_speaker(py, exception, &speaker);

	if (r)
		return r;
	*ret_own = !speaker;
	return speaker ? speaker->add(&m) : add_args(&m);
}

int exception_message_read(const struct py_reader *py, raddr exception, struct strbuf *out, bool *ret_own_str) {
	return message_read(py, exception, out, 0, ret_own_str);
}
