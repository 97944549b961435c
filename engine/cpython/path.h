/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_PATH_H
#define PYSPYD_CPYTHON_PATH_H

#include "engine/cpython/runtime.h"

/* Objects named from outside, as "registry:Registry._seen", "app:queue.qsize" or "app:CONFIG['hosts'][0]": a module, a
 * colon, and what Python code would write in that module. */

#define PY_PATH_STEPS 32
#define PY_PATH_BYTES 512

struct py_step {
	enum { PY_STEP_NAME, PY_STEP_KEY, PY_STEP_INDEX } kind;
	const char *text; /* name or key */
	int64_t index;    /* negative ones count from the end */
	size_t end;       /* the path's text up to here, this step included */
};

struct py_path {
	char *text;         /* as it was given */
	char *words;        /* what module and the steps point into */
	const char *module; /* "package.module" */
	struct py_step steps[PY_PATH_STEPS];
	size_t n;     /* at least 1 */
	bool is_call; /* ends in "()", behind a name */
};

/* Pure. Return: 0; PYSPYD_E_USAGE with a sentence; -ENOMEM. */
int py_path_parse(const char *text, struct py_path *ret_path, struct err *err);
void py_path_deinit(struct py_path *path);

/* Pure: whether one of its names or keys is likely to lead to a secret. */
bool py_path_is_secret(const struct py_path *path);

/* What a path stands for: an object, or, where it ends in qsize or __len__, the number of items of one. */
struct py_path_value {
	raddr object; /* 0: a number of items */
	size_t items;
};

/* Follows a path in the interpreters' imported modules, the main interpreter's first; the script that is run goes by
 * its file's name too ("app" is __main__ of app.py). It goes over globals, attributes of classes (with their bases) and
 * of instances, slots, items of dicts by str and int, and of lists and tuples. What Python code would have to compute
 * (properties, methods, __getattr__) is not to be had, but for the number of items of what py_length_read knows.
 * Return: 0; with a sentence that says at which step: PY_E_TYPE: there is no such thing, or it takes code; MEM_E_FAULT,
 * PY_E_TORN, PY_E_TRUNCATED; without: MEM_E_GONE, negative errno. */
int py_path_evaluate(
	const struct py_runtime *rt, const struct py_path *path, struct py_path_value *ret_value, struct err *err);

#endif
