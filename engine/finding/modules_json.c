/* SPDX-License-Identifier: MIT */
/* pyspyd.modules/1: { schema, process, interpreters, modules[ { interpreter, name, file, kind, version, version_from,
 * distribution, also, expected } ], libraries[ { path, soname, build_id, address, deleted, same_as, other_version } ],
 * expected[ { name, version, line, state, pattern, found, file } ] (null where nothing was expected), incomplete }. */
#include "pyspyd/modules.h"

#include "engine/base/util.h"
#include "engine/finding/modules_words.h"
#include "engine/finding/stack_json.h"

const char *const modules_kinds[] = {
	[PYSPYD_MODULE_BUILTIN] = "builtin",
	[PYSPYD_MODULE_FROZEN] = "frozen",
	[PYSPYD_MODULE_STDLIB] = "stdlib",
	[PYSPYD_MODULE_FILE] = "file",
	[PYSPYD_MODULE_NONE] = "none",
};

const char *const modules_states[] = {
	[PYSPYD_EXPECTED_OK] = "ok",
	[PYSPYD_EXPECTED_OTHER] = "other",
	[PYSPYD_EXPECTED_UNKNOWN] = "unknown",
	[PYSPYD_EXPECTED_NOT_IMPORTED] = "not-imported",
};

static json_t *module_json(const struct pyspyd_module *module) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "interpreter", json_integer(module->interpreter));

	ok = json_put(ok, object, "name", json_text(module->name));
	ok = json_put(ok, object, "file", json_text(module->file[0] ? module->file : NULL));
	ok = json_put(ok, object, "kind", json_string(modules_kinds[module->kind]));
	ok = json_put(ok, object, "version", json_text(module->version));
	ok = json_put(ok, object, "version_from", json_text(module->version_from));
	ok = json_put(ok, object, "distribution", json_text(module->distribution));
	ok = json_put(ok, object, "also", json_text(module->also));
	ok = json_put(ok, object, "expected", json_text(module->expected));
	return json_done(ok, object);
}

static json_t *library_json(const struct pyspyd_library *library) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "path", json_text(library->path));

	ok = json_put(ok, object, "soname", json_text(library->soname));
	ok = json_put(ok, object, "build_id", json_text(library->build_id));
	ok = json_put(ok, object, "address", json_address(library->address));
	ok = json_put(ok, object, "deleted", json_boolean(library->deleted));
	ok = json_put(ok, object, "same_as", json_text(library->same_as));
	ok = json_put(ok, object, "other_version", json_text(library->other_version));
	return json_done(ok, object);
}

static json_t *expected_json(const struct pyspyd_expected *expected) {
	bool as_expected = expected->state == PYSPYD_EXPECTED_OK;
	json_t *object = json_object();
	bool ok = json_put(true, object, "name", json_text(expected->name));

	ok = json_put(ok, object, "version", json_text(expected->version));
	ok = json_put(ok, object, "line", json_count(expected->line));
	ok = json_put(ok, object, "state", json_string(modules_states[expected->state]));
	ok = json_put(ok, object, "pattern", json_text(as_expected ? NULL : "Not My Version"));
	ok = json_put(ok, object, "found", json_text(expected->found));
	ok = json_put(ok, object, "file", json_text(expected->file));
	return json_done(ok, object);
}

/* An array of what `make` makes of n items of some size. */
#define ARRAY_JSON(items, n, make) \
	({ \
		json_t *_array = json_array(); \
		bool _ok = _array != NULL; \
		for (size_t _i = 0; _ok && _i < (n); _i++) \
			_ok = !json_array_append_new(_array, make(&(items)[_i])); \
		json_done(_ok, _array); \
	})

char *pyspyd_modules_json(const struct pyspyd_modules *modules) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "schema", json_string("pyspyd.modules/1"));

	ok = json_put(ok, object, "process", stack_json_process(&modules->process));
	if (modules->process.core)
		ok = json_put(ok, object, "core", stack_json_core(modules->process.core));
	ok = json_put(ok, object, "interpreters", json_count(modules->interpreters));
	ok = json_put(ok, object, "modules", ARRAY_JSON(modules->modules, modules->modules_n, module_json));
	ok = json_put(ok, object, "libraries", ARRAY_JSON(modules->libraries, modules->libraries_n, library_json));
	ok = json_put(ok, object, "expected",
		modules->expects ? ARRAY_JSON(modules->expected, modules->expected_n, expected_json) : json_null());
	ok = json_put(ok, object, "incomplete", json_boolean(modules->incomplete));
	return json_line(json_done(ok, object));
}
