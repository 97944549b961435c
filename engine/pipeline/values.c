/* SPDX-License-Identifier: MIT */
/* Named objects, interval after interval: found anew each time, since any step of a path may have been given another
 * object meanwhile. The program runs on, so that a look may come upon what is just being changed: such a look, and one
 * that found nothing, is repeated a few times before its failure is told as the value's. */
#include "engine/pipeline/values.h"

#include "engine/base/clock.h"
#include "engine/base/limits.h"
#include "engine/cpython/length.h"
#include "engine/cpython/objects.h"
#include "engine/cpython/path.h"
#include <errno.h>
#include <string.h>

#define LOOKS 3

struct values {
	const struct pyspyd_watch_options *options;
	VEC(struct py_path) paths;
};

void values_free(struct values *values) {
	if (!values)
		return;
	vec_foreach (path, &values->paths)
		py_path_deinit(path);
	vec_free(&values->paths);
	free(values);
}

static int add_path(struct values *values, const char *text, struct err *err) {
	struct py_path path;
	int r = py_path_parse(text, &path, err);

	if (r)
		return r == PYSPYD_E_USAGE ? err_wrap(err, r, "--var") : r;
	r = vec_push(&values->paths, path);
	if (r)
		py_path_deinit(&path);
	return r;
}

int values_new(const struct pyspyd_watch_options *options, struct values **ret_values, struct err *err) {
	struct values *values;
	int r = 0;

	if (!options->vars || !options->vars[0] || !options->on_value) {
		*ret_values = NULL;
		return 0;
	}
	values = calloc(1, sizeof(*values));
	if (!values)
		return -ENOMEM;
	values->options = options;
	for (const char *const *text = options->vars; !r && *text; text++)
		r = add_path(values, *text, err);
	if (r)
		values_free(values);
	else
		*ret_values = values;
	return r;
}

static void value_deinit(struct pyspyd_value *value) {
	free(value->type);
	free(value->value);
	free(value->error);
}

/* How long a secret text is would tell of it. */
static bool tells_secret(const char *type) {
	return !strcmp(type, "str") || !strcmp(type, "bytes") || !strcmp(type, "bytearray");
}

/* Return: 0; -ENOMEM. */
static int describe_object(const struct py_reader *py, raddr object, bool unmask, struct pyspyd_value *value) {
	_cleanup_(strbuf_deinit) struct strbuf type = { 0 };
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	size_t n;

	if (py_type_describe(py, object, &type))
		strbuf_adds(&type, "?");
	if (!py_length_read(py, object, &n))
		value->length = n;
	if (value->masked)
		strbuf_adds(&text, "***");
	else
		(unmask ? py_value_describe : py_value_describe_masked)(py, object, LIMIT_VALUE_CHARS, &text);
	if (value->masked && tells_secret(strbuf_str(&type)))
		value->length = UINT64_MAX;
	value->type = strbuf_take(&type);
	value->value = strbuf_take(&text);
	return value->type && value->value ? 0 : -ENOMEM;
}

static int describe_items(size_t n, struct pyspyd_value *value) {
	value->length = n;
	value->type = strdup("int");
	if (asprintf(&value->value, "%zu", n) < 0)
		value->value = NULL;
	return value->type && value->value ? 0 : -ENOMEM;
}

static int describe_value(
	const struct py_reader *py, const struct py_path_value *found, bool unmask, struct pyspyd_value *value) {
	return found->object ? describe_object(py, found->object, unmask, value) : describe_items(found->items, value);
}

/* Return: 0, also with the value's error; MEM_E_GONE; -ENOMEM. */
static int read_value(
	const struct py_runtime *rt, const struct py_path *path, bool unmask, struct pyspyd_value *value) {
	struct py_path_value found = { 0 };
	struct err err = { 0 };
	int r = 0;

	for (int look = 0; look < LOOKS; look++) {
		r = py_path_evaluate(rt, path, &found, &err);
		if (r <= 0 || r == MEM_E_GONE)
			break;
	}
	if (!r)
		return describe_value(&rt->reader, &found, unmask, value);
	if (r == -ENOMEM || r == MEM_E_GONE)
		return r;
	value->masked = false;
	value->error = strdup(r < 0 ? strerror(-r) : err.text);
	return value->error ? 0 : -ENOMEM;
}

static int tell_value(const struct values *values, const struct watched *watched, const struct py_path *path) {
	struct pyspyd_value value = {
		.process = &watched->process,
		.time_real_ns = clock_real_ns(),
		.name = path->text,
		.length = UINT64_MAX,
		.masked = !values->options->unmask && py_path_is_secret(path),
	};
	int r = read_value(&watched->target->rt, path, values->options->unmask, &value);

	if (!r)
		r = values->options->on_value(values->options->userdata, &value);
	else if (r == MEM_E_GONE)
		r = 0; /* which is told elsewhere */
	value_deinit(&value);
	return r;
}

int values_interval(const struct values *values, struct watched *const *watched, size_t n) {
	int r = 0;

	for (size_t i = 0; values && !r && i < n; i++) {
		if (watched[i]->ended)
			continue;
		vec_foreach (path, &values->paths) {
			if (r)
				break;
			r = tell_value(values, watched[i], path);
		}
	}
	return r;
}
