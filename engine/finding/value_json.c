/* SPDX-License-Identifier: MIT */
/* pyspyd.value/1: { schema, time, process, name, type, length, value, masked, error }. */
#include "pyspyd/value.h"

#include "engine/finding/stack_json.h"

char *pyspyd_value_json(const struct pyspyd_value *value) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "schema", json_string("pyspyd.value/1"));

	ok = json_put(ok, object, "time", json_time(value->time_real_ns));
	ok = json_put(ok, object, "process", stack_json_process(value->process));
	ok = json_put(ok, object, "name", json_text(value->name));
	ok = json_put(ok, object, "type", json_text(value->type));
	ok = json_put(ok, object, "length", json_count(value->length));
	ok = json_put(ok, object, "value", json_text(value->value));
	ok = json_put(ok, object, "masked", json_boolean(value->masked));
	ok = json_put(ok, object, "error", json_text(value->error));
	return json_line(json_done(ok, object));
}
