/* SPDX-License-Identifier: MIT */
/* Objects as a tree below the variable that leads to them:
 *
 *	order: Order = <app.Order object at 0x7f21c4a3b2d0>
 *	  .customer: Customer = <app.Customer object at 0x7f21c4a3b310>
 *	    .name: str = 'Ada'
 *	  .lines: list = ['tea', 'milk']
 *
 * Each object is shown where it is met first, later ones say "(above)"; what the value of a list or a dict says already
 * is not said again. Bounded in steps and lines: the whole is in the file. */
#include "engine/finding/objects_text.h"

#include "engine/base/util.h"
#include "engine/finding/stack_text.h"
#include <stdlib.h>
#include <string.h>

#define STEPS_MAX 3
#define VARIABLE_LINES_MAX 16
#define INDENT 4

void objects_text_init(struct objects_text *text, const struct pyspyd_objects *objects, bool colour) {
	*text = (struct objects_text){ .objects = objects, .colour = colour };
	if (objects)
		text->told = calloc(objects->objects_n + 1, sizeof(*text->told));
}

void objects_text_deinit(struct objects_text *text) {
	free(text->told);
}

static bool same_stack(const struct pyspyd_object_thread *seen, const struct pyspyd_thread *thread) {
	size_t n = 0;

	for (size_t i = 0; i < thread->frames_n; i++) {
		if (thread->frames[i].lang != PYSPYD_PYTHON)
			continue;
		if (n == seen->frames_n)
			return n > 0; /* fewer are looked at than there are */
		if (strcmp(seen->frames[n++].function, thread->frames[i].qualname) != 0)
			return false;
	}
	return n == seen->frames_n;
}

const struct pyspyd_object_thread *objects_text_thread(
	const struct objects_text *text, const struct pyspyd_thread *thread) {
	for (size_t i = 0; text->told && i < text->objects->threads_n; i++)
		if (text->objects->threads[i].tid == thread->tid)
			return same_stack(&text->objects->threads[i], thread) ? &text->objects->threads[i] : NULL;
	return NULL;
}

static size_t find(const struct pyspyd_objects *objects, uint64_t address) {
	size_t low = 0, high = objects->objects_n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (objects->objects[middle].address < address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < objects->objects_n && objects->objects[low].address == address ? low : SIZE_MAX;
}

/* One variable's tree on its way. */
struct tree {
	struct objects_text *text;
	struct strbuf *sb;
	size_t lines;
};

static bool begin_line(struct tree *tree, unsigned step) {
	if (!tree->lines)
		return false;
	tree->lines--;
	strbuf_addf(tree->sb, "%*s", (int)(INDENT + 2 * step), "");
	return true;
}

/* Return: whether it is the last line that there is room for. */
static bool is_cut(struct tree *tree, unsigned step) {
	if (tree->lines != 1)
		return !tree->lines;
	begin_line(tree, step);
	strbuf_adds(tree->sb, "…\n");
	return true;
}

static bool has_content(const struct objects_text *text, size_t object) {
	return object != SIZE_MAX &&
		text->objects->objects[object].attributes_n + text->objects->objects[object].items_n;
}

/* Return: the object that it leads on to; SIZE_MAX: none, or one that was told of. */
static size_t add_entry(
	struct tree *tree, const struct pyspyd_object_entry *entry, const char *before, const char *after) {
	struct strbuf *sb = tree->sb;
	size_t object = entry->object ? find(tree->text->objects, entry->object) : SIZE_MAX;
	bool told = has_content(tree->text, object) && tree->text->told[object];

	text_style(sb, tree->text->colour, TEXT_CYAN);
	strbuf_adds(sb, before);
	text_add(sb, entry->name, TEXT_NAME_MAX);
	strbuf_adds(sb, after);
	text_style(sb, tree->text->colour, TEXT_PLAIN);
	strbuf_adds(sb, ": ");
	text_add(sb, entry->type, TEXT_NAME_MAX);
	strbuf_adds(sb, " = ");
	text_add(sb, entry->value, TEXT_PATH_MAX);
	strbuf_adds(sb, told ? " (above)\n" : "\n");
	return told ? SIZE_MAX : object;
}

static bool leads_on(const struct pyspyd_object_entry *entries, size_t n) {
	for (size_t i = 0; i < n; i++)
		if (entries[i].object)
			return true;
	return false;
}

static void add_object(struct tree *tree, size_t index, unsigned step);

static void add_entries(struct tree *tree, const struct pyspyd_object_entry *entries, size_t n, unsigned step,
	const char *before, const char *after) {
	for (size_t i = 0; i < n && !is_cut(tree, step); i++) {
		size_t object;

		begin_line(tree, step);
		object = add_entry(tree, &entries[i], before, after);
		if (object != SIZE_MAX && step < STEPS_MAX)
			add_object(tree, object, step + 1);
	}
}

static void add_object(struct tree *tree, size_t index, unsigned step) {
	const struct pyspyd_object *object = &tree->text->objects->objects[index];

	tree->text->told[index] = true;
	add_entries(tree, object->attributes, object->attributes_n, step, ".", "");
	/* plain items stand in the value of what holds them */
	if (leads_on(object->items, object->items_n) || object->attributes_n)
		add_entries(tree, object->items, object->items_n, step, "[", "]");
	if (object->more && begin_line(tree, step))
		strbuf_adds(tree->sb, "…\n");
}

void objects_text_add(struct objects_text *text, struct strbuf *sb, const struct pyspyd_object_frame *frame,
	const char *name, size_t *lines_left) {
	struct tree tree = { .text = text, .sb = sb, .lines = min_of(*lines_left, (size_t)VARIABLE_LINES_MAX) };
	size_t room = tree.lines;

	for (size_t i = 0; i < frame->variables_n; i++) {
		size_t object;

		if (strcmp(frame->variables[i].name, name) != 0 || !frame->variables[i].object)
			continue;
		object = find(text->objects, frame->variables[i].object);
		if (object != SIZE_MAX && !text->told[object])
			add_object(&tree, object, 1);
		break;
	}
	*lines_left -= room - tree.lines;
}
