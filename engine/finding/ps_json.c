/* SPDX-License-Identifier: MIT */
/* pyspyd.ps/1: { schema, processes[ { process…, user, cpu_percent, rss_bytes, threads, fds, attachable, why_not,
 * findings_open } ] }. */
#include "pyspyd/ps.h"

#include "engine/finding/stack_json.h"

static json_t *row_json(const struct pyspyd_ps_row *row) {
	json_t *object = stack_json_process(&row->process);
	bool ok = json_put(true, object, "user", json_text(row->user));

	ok = json_put(ok, object, "cpu_percent", json_real_or_null(row->cpu_percent));
	ok = json_put(ok, object, "rss_bytes", json_count(row->rss_bytes));
	ok = json_put(ok, object, "threads", json_count(row->threads));
	ok = json_put(ok, object, "fds", json_count(row->fds));
	ok = json_put(ok, object, "attachable", json_boolean(row->attachable));
	ok = json_put(ok, object, "why_not", json_text(row->why_not ? row->why_not : ""));
	ok = json_put(ok, object, "findings_open", json_count(row->findings_open));
	return json_done(ok, object);
}

static json_t *rows_json(const struct pyspyd_ps_row *rows, size_t n) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < n; i++)
		ok = !json_array_append_new(array, row_json(&rows[i]));
	return json_done(ok, array);
}

char *pyspyd_ps_json(const struct pyspyd_ps_row *rows, size_t n) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "schema", json_string("pyspyd.ps/1"));

	ok = json_put(ok, object, "processes", rows_json(rows, n));
	return json_line(json_done(ok, object));
}
