/* SPDX-License-Identifier: MIT */
/* The paragraph that says what a process died of, for people and for machines. */
#include "engine/finding/triage_text.h"

#include "engine/finding/stack_json.h"
#include "engine/finding/stack_text.h"

void triage_text(struct strbuf *sb, const struct pyspyd_triage *triage, bool colour) {
	if (!triage)
		return;
	text_style(sb, colour, TEXT_BOLD);
	strbuf_addf(sb, "Triage: %s.", triage->cause);
	text_style(sb, colour, TEXT_PLAIN);
	for (size_t i = 0; i < triage->statements_n; i++) {
		const struct pyspyd_triage_statement *statement = &triage->statements[i];

		strbuf_addf(sb, " %s ", statement->text);
		if (statement->why)
			strbuf_addf(sb, "(inferred: %s).", statement->why);
		else
			strbuf_adds(sb, "(read).");
	}
	strbuf_adds(sb, "\n");
}

static json_t *statement_json(const struct pyspyd_triage_statement *statement) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "text", json_text(statement->text));

	ok = json_put(ok, object, "certainty", json_string(statement->why ? "inferred" : "read"));
	ok = json_put(ok, object, "why", json_text(statement->why));
	return json_done(ok, object);
}

json_t *triage_json(const struct pyspyd_triage *triage) {
	json_t *object, *statements;
	bool ok;

	if (!triage)
		return json_null();
	object = json_object();
	statements = json_array();
	ok = json_put(true, object, "cause", json_text(triage->cause));
	for (size_t i = 0; i < triage->statements_n; i++)
		ok = !json_array_append_new(statements, statement_json(&triage->statements[i])) && ok;
	ok = json_put(ok, object, "statements", statements);
	return json_done(ok, object);
}
