/* SPDX-License-Identifier: MIT */
/* sys.modules of an interpreter, and what its modules say of themselves: their namespaces' __file__ and __version__,
 * and the origin that their spec has. What a module computes when it is asked (__getattr__, properties of a replacement
 * object) is not had. */
#include "engine/cpython/imported.h"

#include "engine/base/limits.h"
#include "engine/base/strbuf.h"
#include "engine/cpython/objects.h"
#include <errno.h>
#include <string.h>

#define VERSION_CHARS 128

struct walk {
	const struct py_runtime *rt;
	py_imported_vec *imported;
};

static bool is_final(int r) {
	return r < 0 || r == MEM_E_GONE;
}

/* Return: 0 with NULL where there is no such text. */
static int read_text(const struct py_reader *py, raddr object, size_t max_chars, char **ret_text) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	int r = py_text_read(py, object, max_chars, &text);

	if (r)
		return is_final(r) ? r : 0;
	*ret_text = text.len ? strbuf_take(&text) : NULL;
	return text.failed ? -ENOMEM : 0;
}

static int read_attribute(
	const struct py_reader *py, raddr object, const char *name, size_t max_chars, char **ret_text) {
	raddr value;
	int r = py_attribute(py, object, name, &value);

	if (r)
		return is_final(r) ? r : 0;
	return read_text(py, value, max_chars, ret_text);
}

/* The first modules of an interpreter have, to 3.8, a spec without origin; their loader tells. */
static int read_loader(const struct py_reader *py, struct py_imported *module) {
	static const char *const origins[][2] = { { "BuiltinImporter", "built-in" }, { "FrozenImporter", "frozen" } };
	_cleanup_(strbuf_deinit) struct strbuf name = { 0 };
	raddr loader;
	int r = py_attribute(py, module->object, "__loader__", &loader);

	if (!r)
		r = py_type_describe_at(py, loader, &name);
	for (size_t i = 0; !r && i < ARRAY_SIZE(origins); i++) {
		const char *dot = strrchr(strbuf_str(&name), '.');

		if (strcmp(dot ? dot + 1 : strbuf_str(&name), origins[i][0]))
			continue;
		module->origin = strdup(origins[i][1]);
		return module->origin ? 0 : -ENOMEM;
	}
	return is_final(r) ? r : 0;
}

static int read_origin(const struct py_reader *py, struct py_imported *module) {
	raddr spec;
	int r = py_attribute(py, module->object, "__spec__", &spec);

	if (!r)
		r = read_attribute(py, spec, "origin", LIMIT_PATH_CHARS, &module->origin);
	if (is_final(r))
		return r;
	return module->file || module->origin ? 0 : read_loader(py, module);
}

static int read_module(const struct py_reader *py, struct py_imported *module) {
	int r = read_attribute(py, module->object, "__file__", LIMIT_PATH_CHARS, &module->file);

	if (!r)
		r = read_attribute(py, module->object, "__version__", VERSION_CHARS, &module->version);
	return r ? r : read_origin(py, module);
}

static void free_module(struct py_imported *module) {
	free(module->name);
	free(module->file);
	free(module->origin);
	free(module->version);
}

static bool is_none(const struct py_reader *py, raddr object) {
	char name[16];

	return !py_type_name(py, object, name, sizeof(name)) && !strcmp(name, "NoneType");
}

static int add_module(void *userdata, raddr key, raddr value) {
	struct walk *walk = userdata;
	const struct py_reader *py = &walk->rt->reader;
	struct py_imported module = { .object = value };
	int r;

	if (walk->imported->n >= IMPORTED_MAX)
		return PY_E_TRUNCATED;
	r = read_text(py, key, LIMIT_NAME_CHARS, &module.name);
	if (r || !module.name || is_none(py, value)) {
		free(module.name);
		return r;
	}
	r = read_module(py, &module);
	if (!r)
		r = vec_push(walk->imported, module);
	if (r)
		free_module(&module);
	return r;
}

int py_imported_read(const struct py_runtime *rt, raddr interp, py_imported_vec *imported) {
	struct walk walk = { .rt = rt, .imported = imported };
	raddr modules;
	int r = mem_read_u64(rt->reader.mem, interp + rt->reader.layout.interp_modules, &modules);

	if (r)
		return r;
	return modules ? py_dict_walk(&rt->reader, modules, add_module, &walk) : PY_E_TYPE;
}

void py_imported_free(py_imported_vec *imported) {
	vec_foreach (module, imported)
		free_module(module);
	vec_free(imported);
}
