/* SPDX-License-Identifier: MIT */
/* pyspyd.modules/1 back into modules. */
#include "engine/finding/document.h"

#include "engine/base/util.h"
#include "engine/finding/modules_words.h"
#include "pyspyd/snapshot.h"
#include <errno.h>
#include <string.h>

static void read_module(struct document *document, const json_t *object, void *item) {
	struct pyspyd_module *module = item;

	module->interpreter = document_signed(document, object, "interpreter");
	module->name = document_string(document, object, "name");
	module->file = document_string(document, object, "file");
	module->kind = (enum pyspyd_module_kind)document_choice(
		document, object, "kind", modules_kinds, ARRAY_SIZE(modules_kinds));
	module->version = document_text(document, object, "version");
	module->version_from = document_word(document, object, "version_from");
	module->distribution = document_text(document, object, "distribution");
	module->also = document_text(document, object, "also");
	module->expected = document_text(document, object, "expected");
}

/* Writers take it as it is. */
static char *read_build_id(struct document *document, const json_t *object) {
	char *id = document_text(document, object, "build_id");

	if (id && id[strspn(id, "0123456789abcdef")])
		document_fail(document, "build_id", "is no hexadecimal number");
	return id;
}

static void read_library(struct document *document, const json_t *object, void *item) {
	struct pyspyd_library *library = item;

	library->path = document_string(document, object, "path");
	library->soname = document_text(document, object, "soname");
	library->build_id = read_build_id(document, object);
	library->address = document_address(document, object, "address");
	library->deleted = document_bool(document, object, "deleted");
	library->same_as = document_text(document, object, "same_as");
	library->other_version = document_text(document, object, "other_version");
}

static void read_expected(struct document *document, const json_t *object, void *item) {
	struct pyspyd_expected *expected = item;

	expected->name = document_string(document, object, "name");
	expected->version = document_string(document, object, "version");
	expected->line = (unsigned)document_number(document, object, "line", 0, INT32_MAX, 0);
	expected->state = (enum pyspyd_expected_state)document_choice(
		document, object, "state", modules_states, ARRAY_SIZE(modules_states));
	expected->found = document_text(document, object, "found");
	expected->file = document_text(document, object, "file");
}

static void read_modules(struct document *document, struct pyspyd_modules *modules) {
	const json_t *root = document->root;

	document_process(document, root, &modules->process);
	modules->interpreters = (size_t)document_count(document, root, "interpreters");
	modules->modules =
		document_array(document, root, "modules", sizeof(*modules->modules), read_module, &modules->modules_n);
	modules->libraries = document_array(
		document, root, "libraries", sizeof(*modules->libraries), read_library, &modules->libraries_n);
	modules->expected = document_array(
		document, root, "expected", sizeof(*modules->expected), read_expected, &modules->expected_n);
	modules->expects = modules->expected;
	modules->incomplete = document_bool(document, root, "incomplete");
}

int pyspyd_modules_of_json(const char *json, size_t len, struct pyspyd_modules **ret_modules, struct err *err) {
	struct pyspyd_modules *modules = calloc(1, sizeof(*modules));
	struct document document;
	int r;

	if (!modules)
		return -ENOMEM;
	document_open(&document, "pyspyd.modules/1", json, len, err);
	read_modules(&document, modules);
	r = document.r;
	document_close(&document);
	if (r)
		pyspyd_modules_free(modules);
	else
		*ret_modules = modules;
	return r;
}
