/* SPDX-License-Identifier: MIT */
/* Names of objects as people write them:
 *
 *   registry:Registry._seen
 *   package.app:workers[0].queue.qsize()
 *   __main__:CONFIG["hosts"]['a\'b'][-1]
 *
 * A name is what Python takes for an identifier, as far as bytes tell: letters, digits, _ and whatever is not ASCII.
 * Expressions, slices and calls are none. */
#include "engine/cpython/path.h"

#include "engine/base/strbuf.h"
#include "engine/cpython/locals.h"
#include <ctype.h>
#include <errno.h>
#include <string.h>

#define INDEX_DIGITS_MAX 15

struct parser {
	struct py_path *path;
	const char *at;
	char *out; /* where the next word goes */
	struct err *err;
};

static int mistake(const struct parser *p, const char *what) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };

	strbuf_add_printable(&text, p->path->text, strlen(p->path->text));
	return err_set(p->err, PYSPYD_E_USAGE,
		"'%s': %s (as in registry:Registry._seen, app:queue.qsize, app:a['k'][0])", strbuf_str(&text), what);
}

static bool is_name_char(char c, bool first) {
	unsigned char u = (unsigned char)c;

	return u >= 0x80 || u == '_' || isalpha(u) || (!first && isdigit(u));
}

static void add_char(struct parser *p, char c) {
	*p->out++ = c;
}

/* Return: how many characters the name has. */
static size_t parse_name(struct parser *p) {
	size_t n = 0;

	while (is_name_char(p->at[n], !n))
		add_char(p, p->at[n++]);
	p->at += n;
	return n;
}

static int parse_module(struct parser *p) {
	p->path->module = p->out;
	while (parse_name(p)) {
		if (*p->at == ':') {
			p->at++;
			add_char(p, '\0');
			return 0;
		}
		if (*p->at != '.')
			break;
		add_char(p, *p->at++);
	}
	return mistake(p, "begin with a module and a colon");
}

static int parse_attribute(struct parser *p, struct py_step *step) {
	*step = (struct py_step){ .kind = PY_STEP_NAME, .text = p->out };
	if (!parse_name(p))
		return mistake(p, "a name is missing");
	add_char(p, '\0');
	return 0;
}

static int parse_key(struct parser *p, struct py_step *step) {
	char quote = *p->at++;

	*step = (struct py_step){ .kind = PY_STEP_KEY, .text = p->out };
	for (; *p->at && *p->at != quote; p->at++) {
		if (*p->at == '\\' && !strchr("\\'\"", *++p->at))
			return mistake(p, "a backslash goes before a quote or another one");
		if (!*p->at)
			break;
		add_char(p, *p->at);
	}
	if (!*p->at)
		return mistake(p, "a quote is missing");
	p->at++;
	add_char(p, '\0');
	return 0;
}

static int parse_index(struct parser *p, struct py_step *step) {
	bool negative = *p->at == '-';
	int64_t value = 0;
	int digits = 0;

	for (p->at += negative; isdigit((unsigned char)*p->at) && digits < INDEX_DIGITS_MAX; digits++)
		value = value * 10 + (*p->at++ - '0');
	if (!digits || isdigit((unsigned char)*p->at))
		return mistake(p, "between [ and ] stands a number or a key in quotes");
	*step = (struct py_step){ .kind = PY_STEP_INDEX, .index = negative ? -value : value };
	return 0;
}

static int parse_item(struct parser *p, struct py_step *step) {
	int r = *p->at == '\'' || *p->at == '"' ? parse_key(p, step) : parse_index(p, step);

	if (r)
		return r;
	return *p->at++ == ']' ? 0 : mistake(p, "a ] is missing");
}

/* What follows the colon, each step with what leads to it. */
static int parse_steps(struct parser *p) {
	struct py_path *path = p->path;
	char next = '.';
	int r;

	do {
		struct py_step *step = &path->steps[path->n];

		if (path->n == PY_PATH_STEPS)
			return mistake(p, "too many steps");
		r = next == '.' ? parse_attribute(p, step) : parse_item(p, step);
		if (r)
			return r;
		step->end = (size_t)(p->at - path->text);
		path->n++;
		next = *p->at;
		p->at += next != '\0';
	} while (next == '.' || next == '[');
	if (next == '(' && *p->at == ')' && !p->at[1] && path->steps[path->n - 1].kind == PY_STEP_NAME) {
		path->is_call = true;
		return 0;
	}
	return next == '(' ? mistake(p, "nothing is called in the program")
		: next     ? mistake(p, "only names, [number] and ['key'] can follow")
			   : 0;
}

int py_path_parse(const char *text, struct py_path *ret_path, struct err *err) {
	struct py_path path = { 0 };
	struct parser p = { .path = &path, .err = err };
	int r;

	if (strlen(text) >= PY_PATH_BYTES)
		return err_set(err, PYSPYD_E_USAGE, "the name of an object has at most %d bytes", PY_PATH_BYTES - 1);
	path.text = strdup(text);
	/* A word is followed by at least one character of the text, or by its end. */
	path.words = calloc(1, strlen(text) + 1);
	if (!path.text || !path.words) {
		py_path_deinit(&path);
		return -ENOMEM;
	}
	p.at = path.text;
	p.out = path.words;
	r = parse_module(&p);
	if (!r)
		r = parse_steps(&p);
	if (r)
		py_path_deinit(&path);
	else
		*ret_path = path;
	return r;
}

void py_path_deinit(struct py_path *path) {
	free(path->text);
	free(path->words);
	*path = (struct py_path){ 0 };
}

bool py_path_is_secret(const struct py_path *path) {
	for (size_t i = 0; i < path->n; i++)
		if (path->steps[i].text && py_local_is_secret(path->steps[i].text))
			return true;
	return false;
}
