/* SPDX-License-Identifier: MIT */
/* What a document says of the core file that it was made of. */
#include "engine/finding/document.h"

#include "engine/base/strbuf.h"
#include "engine/base/util.h"
#include "pyspyd/core.h"
#include "pyspyd/triage.h"
#include <errno.h>
#include <string.h>

#define REGISTERS_MAX 256

static char **read_paths(struct document *document, const json_t *object, const char *key, size_t *ret_n) {
	json_t *array = document_get(document, object, key);
	size_t n = json_array_size(array);
	char **paths;

	if (!document->r && !json_is_array(array))
		document_fail(document, key, "is no list");
	paths = document->r ? NULL : calloc(n + 1, sizeof(*paths));
	if (!document->r && !paths)
		document->r = -ENOMEM;
	for (size_t i = 0; i < n && !document->r; i++) {
		const char *path = json_string_value(json_array_get(array, i));

		paths[i] = path ? strdup(path) : NULL;
		*ret_n = i + 1;
		if (!path)
			document_fail(document, key, "is not all text");
		else if (!paths[i])
			document->r = -ENOMEM;
	}
	return paths;
}

/* The names are the keys, in their order. */
static void read_registers(struct document *document, const json_t *object, struct pyspyd_core *core) {
	json_t *from = document_object(document, object, "registers"), *value;
	const char *key;

	if (!document->r && (!from || json_object_size(from) > REGISTERS_MAX))
		document_fail(document, "registers", "is no short list");
	core->registers = document->r ? NULL : calloc(json_object_size(from) + 1, sizeof(*core->registers));
	if (!core->registers) {
		document->r = document->r ? document->r : -ENOMEM;
		return;
	}
	json_object_foreach(from, key, value) {
		struct pyspyd_register *reg = &core->registers[core->registers_n];

		reg->name = document_keep(document, key);
		reg->value = document_address(document, from, key);
		if (document->r)
			return;
		core->registers_n++;
	}
}

static char *read_signal(struct document *document, const json_t *object) {
	const char *word = document_word(document, object, "signal");
	char *name = word ? strdup(word) : NULL;

	if (word && !name)
		document->r = -ENOMEM;
	if (!word && json_integer_value(json_object_get(object, "signal_number")))
		document_fail(document, "signal", "is no word");
	return name;
}

/* Writers take it as it is. */
static char *read_sentence(struct document *document, const json_t *object) {
	_free_ char *text = document_string(document, object, "text");
	struct strbuf printable = { 0 };

	if (!text)
		return NULL;
	strbuf_add_printable(&printable, text, strlen(text));
	return strbuf_take(&printable);
}

static struct pyspyd_triage *read_triage(struct document *document, const json_t *object) {
	const json_t *from = document_object(document, object, "triage");
	json_t *array = from ? document_get(document, from, "statements") : NULL;
	struct pyspyd_triage *triage = array ? calloc(1, sizeof(*triage)) : NULL;

	if (array && !triage)
		document->r = -ENOMEM;
	if (array && json_array_size(array) > PYSPYD_TRIAGE_STATEMENTS_MAX)
		document_fail(document, "statements", "are too many");
	if (!triage)
		return NULL;
	triage->cause = document_word(document, from, "cause");
	if (!triage->cause)
		document_fail(document, "cause", "is no word");
	for (size_t i = 0; i < json_array_size(array) && !document->r; i++) {
		struct pyspyd_triage_statement *statement = &triage->statements[i];

		statement->text = read_sentence(document, json_array_get(array, i));
		statement->why = document_word(document, json_array_get(array, i), "why");
		triage->statements_n = i + 1;
		if (!statement->text && !document->r)
			document->r = -ENOMEM;
	}
	return triage;
}

struct pyspyd_core *document_core(struct document *document, const json_t *object) {
	const json_t *from = document_object(document, object, "core");
	struct pyspyd_core *core = document->r ? NULL : calloc(1, sizeof(*core));

	if (!core) {
		document->r = document->r ? document->r : -ENOMEM;
		return NULL;
	}
	core->path = document_string(document, from, "file");
	core->tid = (pid_t)document_number(document, from, "tid", 0, INT32_MAX, 0);
	core->signal_name = read_signal(document, from);
	core->signal = (int)document_number(document, from, "signal_number", 0, INT32_MAX, 0);
	core->code = (int)document_number(document, from, "code", INT32_MIN, INT32_MAX, 0);
	core->reason = document_word(document, from, "reason");
	core->has_address = json_is_string(json_object_get(from, "address"));
	core->address = document_address(document, from, "address");
	core->has_sender = json_is_integer(json_object_get(from, "sender"));
	core->sender = (pid_t)document_number(document, from, "sender", INT32_MIN, INT32_MAX, 0);
	core->sender_uid = (uid_t)document_number(document, from, "sender_uid", 0, UINT32_MAX, 0);
	read_registers(document, from, core);
	core->bytes = document_count(document, from, "bytes");
	core->expected_bytes = document_count(document, from, "expected_bytes");
	core->missing = read_paths(document, from, "missing", &core->missing_n);
	core->different = read_paths(document, from, "different", &core->different_n);
	core->unverified_n = (size_t)document_count(document, from, "unverified");
	core->triage = read_triage(document, from);
	return core;
}
