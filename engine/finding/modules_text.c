/* SPDX-License-Identifier: MIT */
/* Modules and libraries, for people:
 *
 *   Process 4711: python3 app.py (Python 3.13.1)
 *
 *   Not My Version: 2 of 12 are not as expected
 *     requests                  2.28.1, expected 2.31.0  /usr/lib/python3/dist-packages/requests/__init__.py
 *     urllib3                   not imported, expected 2.0.7
 *
 *   Modules: 312 (40 builtin, 181 standard library, 91 others)
 *     requests                  2.28.1        /usr/lib/python3/dist-packages/requests/__init__.py
 *       expected 2.31.0
 *
 *   Native libraries: 31
 *     libssl.so.3                   1ab4…      /usr/lib/x86_64-linux-gnu/libssl.so.3
 *       another version is loaded too: /opt/x/libssl.so.1.1
 *
 * Without `all` the modules of packages, of the standard library and of the interpreter are counted only, but for those
 * with something to say. */
#include "pyspyd/modules.h"

#include "engine/finding/stack_text.h"
#include <stdio.h>
#include <string.h>

#define NAME_WIDTH 25
#define VERSION_WIDTH 13
#define BUILD_ID_SHOWN 12

static void add_padded(struct strbuf *sb, const char *s, size_t width) {
	size_t before = sb->len;

	text_add(sb, s, TEXT_NAME_MAX);
	strbuf_addf(sb, "%*s", sb->len - before < width ? (int)(width - (sb->len - before)) : 0, "");
}

static void add_heading(struct strbuf *sb, const char *words, bool colour) {
	strbuf_adds(sb, "\n");
	text_style(sb, colour, TEXT_BOLD);
	strbuf_adds(sb, words);
	text_style(sb, colour, TEXT_PLAIN);
}

static void add_mark(struct strbuf *sb, const char *words, const char *name, bool colour) {
	if (!name)
		return;
	strbuf_adds(sb, "    ");
	text_style(sb, colour, TEXT_RED);
	strbuf_addf(sb, "%s ", words);
	text_add(sb, name, TEXT_PATH_MAX);
	text_style(sb, colour, TEXT_PLAIN);
	strbuf_adds(sb, "\n");
}

static void add_expected_line(struct strbuf *sb, const struct pyspyd_expected *expected) {
	strbuf_adds(sb, "  ");
	add_padded(sb, expected->name, NAME_WIDTH);
	if (expected->state == PYSPYD_EXPECTED_NOT_IMPORTED)
		strbuf_adds(sb, " not imported");
	else if (expected->state == PYSPYD_EXPECTED_UNKNOWN)
		strbuf_adds(sb, " version not known");
	else {
		strbuf_adds(sb, " ");
		text_add(sb, expected->found, TEXT_NAME_MAX);
	}
	strbuf_adds(sb, ", expected ");
	text_add(sb, expected->version, TEXT_NAME_MAX);
	if (expected->file) {
		strbuf_adds(sb, "  ");
		text_add(sb, expected->file, TEXT_PATH_MAX);
	}
	strbuf_adds(sb, "\n");
}

static void add_expected(struct strbuf *sb, const struct pyspyd_modules *modules, bool colour) {
	size_t wrong = 0;

	for (size_t i = 0; i < modules->expected_n; i++)
		wrong += modules->expected[i].state != PYSPYD_EXPECTED_OK;
	add_heading(sb, wrong ? "Not My Version:" : "As expected:", colour);
	if (wrong)
		strbuf_addf(
			sb, " %zu of %zu %s not as expected\n", wrong, modules->expected_n, wrong == 1 ? "is" : "are");
	else
		strbuf_addf(sb, " %zu\n", modules->expected_n);
	for (size_t i = 0; i < modules->expected_n; i++)
		if (modules->expected[i].state != PYSPYD_EXPECTED_OK)
			add_expected_line(sb, &modules->expected[i]);
}

static const char *place_of(const struct pyspyd_module *module) {
	static const char *const words[] = {
		[PYSPYD_MODULE_BUILTIN] = "built in",
		[PYSPYD_MODULE_FROZEN] = "frozen",
		[PYSPYD_MODULE_NONE] = "no file",
	};

	return module->file[0] || module->kind == PYSPYD_MODULE_FILE ? module->file : words[module->kind];
}

static void add_module(
	struct strbuf *sb, const struct pyspyd_modules *modules, const struct pyspyd_module *module, bool colour) {
	strbuf_adds(sb, "  ");
	add_padded(sb, module->name, NAME_WIDTH);
	strbuf_adds(sb, " ");
	add_padded(sb, module->version ? module->version : "-", VERSION_WIDTH);
	strbuf_adds(sb, " ");
	text_add(sb, place_of(module), TEXT_PATH_MAX);
	if (modules->interpreters > 1)
		strbuf_addf(sb, "  (interpreter %lld)", (long long)module->interpreter);
	strbuf_adds(sb, "\n");
	add_mark(sb, "expected", module->expected, colour);
	add_mark(sb, "the same file is loaded as", module->also, colour);
}

static bool is_shown(const struct pyspyd_module *module, bool all) {
	bool own = module->kind >= PYSPYD_MODULE_FILE && !strchr(module->name, '.');

	return all || own || module->also || (module->expected && own);
}

static void add_modules(struct strbuf *sb, const struct pyspyd_modules *modules, bool all, bool colour) {
	size_t kinds[PYSPYD_MODULE_NONE + 1] = { 0 };

	for (size_t i = 0; i < modules->modules_n; i++)
		kinds[modules->modules[i].kind]++;
	add_heading(sb, "Modules:", colour);
	strbuf_addf(sb, " %zu (%zu of the interpreter, %zu of the standard library, %zu others)", modules->modules_n,
		kinds[PYSPYD_MODULE_BUILTIN] + kinds[PYSPYD_MODULE_FROZEN], kinds[PYSPYD_MODULE_STDLIB],
		kinds[PYSPYD_MODULE_FILE] + kinds[PYSPYD_MODULE_NONE]);
	if (modules->interpreters > 1)
		strbuf_addf(sb, " in %zu interpreters", modules->interpreters);
	strbuf_adds(sb, "\n");
	for (size_t i = 0; i < modules->modules_n; i++)
		if (is_shown(&modules->modules[i], all))
			add_module(sb, modules, &modules->modules[i], colour);
}

static void add_library(struct strbuf *sb, const struct pyspyd_library *library, bool colour) {
	char id[BUILD_ID_SHOWN + 1] = "-";

	if (library->build_id)
		snprintf(id, sizeof(id), "%s", library->build_id);
	strbuf_adds(sb, "  ");
	add_padded(sb, library->soname ? library->soname : "-", NAME_WIDTH);
	strbuf_addf(sb, " %-*s ", BUILD_ID_SHOWN + 1, id);
	text_add(sb, library->path, TEXT_PATH_MAX);
	if (library->deleted) {
		text_style(sb, colour, TEXT_YELLOW);
		strbuf_adds(sb, " (deleted)");
		text_style(sb, colour, TEXT_PLAIN);
	}
	strbuf_adds(sb, "\n");
	add_mark(sb, "the same library is mapped from", library->same_as, colour);
	add_mark(sb, "another version is loaded too:", library->other_version, colour);
}

char *pyspyd_modules_text(const struct pyspyd_modules *modules, bool all, bool colour) {
	struct strbuf sb = { 0 };

	text_process(&sb, &modules->process, colour);
	if (modules->expects)
		add_expected(&sb, modules, colour);
	add_modules(&sb, modules, all, colour);
	add_heading(&sb, "Native libraries:", colour);
	strbuf_addf(&sb, " %zu\n", modules->libraries_n);
	for (size_t i = 0; i < modules->libraries_n; i++)
		add_library(&sb, &modules->libraries[i], colour);
	if (modules->incomplete)
		strbuf_adds(&sb, "\n… incomplete: a limit was met, or something could not be read\n");
	return strbuf_take(&sb);
}
