/* SPDX-License-Identifier: MIT */
/*   grew in 10 min 0 s:
 *     registry.Registry._seen: dict, 41,200 → 58,900 items
 *     app.Session: +17,700 objects, +9.3 MiB, 97 % of them in app.sessions
 *     app.py:12: +5.2 MiB allocated
 *     [heap]: +12.0 MiB of memory
 */
#include "engine/finding/growth_text.h"

#include "engine/base/util.h"
#include "engine/detect/words.h"
#include "engine/finding/stack_text.h"

#define SHOWN 5 /* of each kind */

static double number(const json_t *row, const char *key) {
	return json_number_value(json_object_get(row, key));
}

static const char *text(const json_t *row, const char *key) {
	return json_string_value(json_object_get(row, key));
}

static void add_container(struct strbuf *sb, const json_t *row) {
	double length = number(row, "length"), grew = number(row, "grew");

	text_add(sb, text(row, "path") ? text(row, "path") : text(row, "address"), TEXT_NAME_MAX);
	strbuf_adds(sb, ": ");
	text_add(sb, text(row, "type"), TEXT_NAME_MAX);
	strbuf_adds(sb, ", ");
	if (!json_is_true(json_object_get(row, "new"))) {
		detect_add_count(sb, length - grew);
		strbuf_adds(sb, " → ");
	}
	detect_add_count(sb, length);
	strbuf_adds(sb, " items");
}

static void add_type(struct strbuf *sb, const json_t *row) {
	const char *kept_by = text(row, "kept_by");

	text_add(sb, text(row, "type"), TEXT_NAME_MAX);
	strbuf_adds(sb, ": +");
	detect_add_count(sb, number(row, "grew_count"));
	strbuf_adds(sb, " objects, +");
	detect_add_bytes(sb, number(row, "grew_bytes"));
	if (!kept_by)
		return;
	strbuf_addf(sb, ", %.0f %% of them in ", 100 * number(row, "kept_share"));
	text_add(sb, kept_by, TEXT_NAME_MAX);
}

static void add_line(struct strbuf *sb, const json_t *row) {
	text_add(sb, text(row, "file"), TEXT_PATH_MAX);
	strbuf_addf(sb, ":%.0f: +", number(row, "line"));
	detect_add_bytes(sb, number(row, "grew_bytes"));
	strbuf_adds(sb, " allocated");
}

static void add_mapping(struct strbuf *sb, const json_t *row) {
	text_add(sb, text(row, "name"), TEXT_PATH_MAX);
	strbuf_adds(sb, ": +");
	detect_add_bytes(sb, number(row, "grew_bytes"));
	strbuf_adds(sb, " of memory");
}

static void add_group(struct strbuf *sb, const json_t *row) {
	text_add(sb, text(row, "kind"), TEXT_NAME_MAX);
	strbuf_adds(sb, " ");
	text_add(sb, text(row, "target"), TEXT_PATH_MAX);
	strbuf_adds(sb, ": ");
	detect_add_count(sb, number(row, "count"));
	strbuf_adds(sb, " open, +");
	detect_add_count(sb, number(row, "grew"));
}

static const struct {
	const char *rows, *grew, *is_new;
	void (*add)(struct strbuf *sb, const json_t *row);
} tables[] = {
	{ "containers", "grew", "new", add_container },
	{ "types", "grew_bytes", NULL, add_type },
	{ "lines", "grew_bytes", NULL, add_line },
	{ "mappings", "grew_bytes", NULL, add_mapping },
};

static void add_rows(struct strbuf *sb, const json_t *rows, const char *grew, const char *is_new,
	void (*add)(struct strbuf *sb, const json_t *row)) {
	size_t shown = 0, i;
	json_t *row;

	json_array_foreach((json_t *)(uintptr_t)rows, i, row) {
		if (shown == SHOWN ||
			(number(row, grew) <= 0 && !(is_new && json_is_true(json_object_get(row, is_new)))))
			continue;
		strbuf_adds(sb, "    ");
		add(sb, row);
		strbuf_adds(sb, "\n");
		shown++;
	}
}

void growth_text(struct strbuf *sb, const json_t *evidence) {
	const json_t *heap = json_object_get(evidence, "heap"), *handles = json_object_get(evidence, "handles");
	char duration[32];

	if (heap) {
		detect_duration_text((uint64_t)(number(heap, "between_s") * 1e9), duration, sizeof(duration));
		strbuf_addf(sb, "  grew in %s:\n", duration);
		for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
			add_rows(sb, json_object_get(heap, tables[i].rows), tables[i].grew, tables[i].is_new,
				tables[i].add);
	}
	if (handles) {
		strbuf_adds(sb, "  descriptors that became more:\n");
		add_rows(sb, handles, "grew", NULL, add_group);
	}
}
