/* SPDX-License-Identifier: MIT */
/* What grew between two counts of a heap, and what of it is worth a name.
 *
 * Private memory of a process is its objects, what the allocator of small objects uses for other things and keeps free,
 * and native memory, which is the rest. The parts are compared with the whole; the counts are some moments apart from
 * what the kernel says, and so only large shares mean anything.
 *
 * Who has to mend it looks for a name of his own program: first the container that keeps the fastest growing type of
 * the program's own, else the container that grew most and whose path is known, else the type that grew most. Of dict,
 * str, list there are many of everybody's; they are named only where nothing else grew along. */
#include "engine/detect/heap_growth.h"

#include "engine/base/util.h"
#include "engine/detect/words.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

#define HALF 0.5
#define NATIVE_MOST 0.2   /* of the growth, that the Python heap makes of a native leak */
#define EXPECTED_MIN 0.25 /* of the growth expected: less is no growth */
#define TYPE_MIN 0.05     /* of all new objects or bytes, that make a type of the program's own worth a name */
#define ITEMS_MIN 0.01    /* of all new objects, that a container got … */
#define TABLE_MIN 0.1     /* … or of all new bytes, that its table takes */
#define MAPPING_MIN 0.1   /* of the growth, that make a second mapping worth a name */
#define OUTDOES 4.0       /* so many times the growth of the one that keeps the fastest growing type */
#define PATH_SHOWN 160    /* bytes */

/* Cause. */

static int64_t largest_type(const struct pyspyd_heap *heap) {
	int64_t largest = 0;

	for (size_t i = 0; i < heap->types_n; i++)
		largest = max_of(largest, heap->types[i].grew_bytes);
	return largest;
}

enum heap_cause heap_growth_cause(const struct pyspyd_heap *heap, double expected_bytes) {
	double grew = (double)heap->grew_private;
	double python = fmax((double)heap->grew_bytes + (double)heap->grew_other, (double)largest_type(heap));

	if (grew <= 0 || grew < EXPECTED_MIN * expected_bytes)
		return HEAP_UNCONFIRMED;
	if (python >= HALF * grew)
		return HEAP_PYTHON;
	if ((double)heap->grew_free >= HALF * grew || grew < HALF * expected_bytes)
		return HEAP_UNCONFIRMED;
	return python < NATIVE_MOST * grew ? HEAP_NATIVE : HEAP_MIXED;
}

const char *heap_cause_name(enum heap_cause cause) {
	static const char *const names[] = {
		[HEAP_UNCONFIRMED] = NULL,
		[HEAP_PYTHON] = "python",
		[HEAP_NATIVE] = "native",
		[HEAP_MIXED] = "mixed",
		[HEAP_UNKNOWN] = "unknown",
	};

	return names[cause];
}

/* Names. */

static double share(double part, double whole) {
	return whole > 0 ? fmax(part, 0) / whole : 0;
}

static bool is_own(const struct pyspyd_heap_type *type) {
	return strchr(type->type, '.') && strncmp(type->type, "collections.", strlen("collections.")) != 0;
}

static bool is_worth_a_name(const struct pyspyd_heap *heap, const struct pyspyd_heap_type *type) {
	return share((double)type->grew_count, (double)heap->grew_objects) >= TYPE_MIN ||
		share((double)type->grew_bytes, (double)heap->grew_bytes) >= TYPE_MIN;
}

/* A path's length without what says in which thread it begins: " (in thread MainThread)". */
static size_t length_of(const char *path) {
	const char *thread = strstr(path, " (in thread ");

	return thread ? (size_t)(thread - path) : strlen(path);
}

/* Whether one path is the other, or leads to it. */
static bool on_one_way(const char *a, const char *b) {
	size_t a_len = length_of(a), b_len = length_of(b), n = min_of(a_len, b_len);
	char next = a_len > n ? a[n] : b_len > n ? b[n] : '\0';

	return !strncmp(a, b, n) && !strcmp(a + a_len, b + b_len) && (!next || strchr(".[ (", next));
}

static bool keeps(const struct pyspyd_heap_container *container, const struct pyspyd_heap_type *type) {
	return container->path && type && type->kept_by && on_one_way(container->path, type->kept_by);
}

/* The type that grew most, those of the program's own first; `container`: of those that it keeps; NULL: of all. */
static const struct pyspyd_heap_type *grown_type(
	const struct pyspyd_heap *heap, const struct pyspyd_heap_container *container) {
	const struct pyspyd_heap_type *best = NULL;

	for (size_t i = 0; i < heap->types_n; i++) {
		const struct pyspyd_heap_type *type = &heap->types[i];
		bool own = is_own(type);

		if (type->grew_count <= 0 || type->grew_bytes <= 0 || (container && !keeps(container, type)) ||
			(own && !is_worth_a_name(heap, type)))
			continue;
		if (!best || own > is_own(best) || (own == is_own(best) && type->grew_bytes > best->grew_bytes))
			best = type;
	}
	return best;
}

static double new_items(const struct pyspyd_heap_container *container) {
	return container->is_new ? (double)container->length : fmax((double)container->grew, 0);
}

/* How much of the growth a container is, by its items or by its table. */
static double weight_of(const struct pyspyd_heap *heap, const struct pyspyd_heap_container *container) {
	double items = new_items(container);
	double table = container->length ? items / (double)container->length * (double)container->bytes : 0;

	return fmax(share(items, (double)heap->grew_objects) / ITEMS_MIN,
		share(table, (double)heap->grew_bytes) / TABLE_MIN);
}

enum which { KEEPING, WITH_PATH, WITHOUT_PATH };

static const struct pyspyd_heap_container *grown_container(
	const struct pyspyd_heap *heap, enum which which, const struct pyspyd_heap_type *type) {
	const struct pyspyd_heap_container *best = NULL;

	for (size_t i = 0; i < heap->containers_n; i++) {
		const struct pyspyd_heap_container *container = &heap->containers[i];

		if ((which == WITHOUT_PATH) == !!container->path || (which == KEEPING && !keeps(container, type)) ||
			new_items(container) <= 0 || (which != KEEPING && weight_of(heap, container) < 1))
			continue;
		if (!best || weight_of(heap, container) > weight_of(heap, best))
			best = container;
	}
	return best;
}

static void find_mappings(const struct pyspyd_heap *heap, struct heap_names *names) {
	for (size_t i = 0; i < heap->mappings_n; i++) {
		const struct pyspyd_heap_mapping *mapping = &heap->mappings[i];

		if (mapping->grew_bytes <= 0)
			continue;
		if (!names->mapping || mapping->grew_bytes > names->mapping->grew_bytes) {
			names->second_mapping = names->mapping;
			names->mapping = mapping;
		} else if (!names->second_mapping || mapping->grew_bytes > names->second_mapping->grew_bytes) {
			names->second_mapping = mapping;
		}
	}
	if (names->second_mapping &&
		share((double)names->second_mapping->grew_bytes, (double)heap->grew_private) < MAPPING_MIN)
		names->second_mapping = NULL;
}

static const struct pyspyd_heap_line *grown_line(const struct pyspyd_heap *heap) {
	const struct pyspyd_heap_line *best = NULL;

	for (size_t i = 0; i < heap->lines_n; i++)
		if (heap->lines[i].grew_bytes > (best ? best->grew_bytes : 0))
			best = &heap->lines[i];
	return best;
}

static void find_objects(const struct pyspyd_heap *heap, struct heap_names *names) {
	const struct pyspyd_heap_container *largest = grown_container(heap, WITH_PATH, NULL);
	const struct pyspyd_heap_type *kept;

	names->line = grown_line(heap);
	names->type = grown_type(heap, NULL);
	names->container = grown_container(heap, KEEPING, names->type);
	if (!names->container || (largest && weight_of(heap, largest) >= OUTDOES * weight_of(heap, names->container)))
		names->container = largest ? largest : names->container;
	if (!names->container && !(names->type && names->type->kept_by))
		names->container = grown_container(heap, WITHOUT_PATH, NULL);
	if (!names->container || keeps(names->container, names->type))
		return;
	kept = grown_type(heap, names->container);
	names->type = kept ? kept : names->type;
}

struct heap_names heap_growth_names(const struct pyspyd_heap *heap, enum heap_cause cause) {
	struct heap_names names = { 0 };

	if (cause != HEAP_NATIVE)
		find_objects(heap, &names);
	if (cause != HEAP_PYTHON)
		find_mappings(heap, &names);
	return names;
}

/* Words. */

static void add_grown(struct strbuf *sb, double bytes) {
	strbuf_adds(sb, bytes < 0 ? "" : "+");
	detect_add_bytes(sb, bytes);
}

static void add_container(
	struct strbuf *sb, const struct pyspyd_heap *heap, const struct pyspyd_heap_container *container) {
	char duration[32];

	detect_duration_text(heap->between_ns, duration, sizeof(duration));
	if (container->path) {
		detect_add_text(sb, container->path, PATH_SHOWN);
		strbuf_adds(sb, ": ");
		detect_add_name(sb, container->type);
	} else {
		strbuf_adds(sb, "a ");
		detect_add_name(sb, container->type);
		strbuf_addf(sb, " at 0x%" PRIx64 " with no path known", container->address);
	}
	strbuf_adds(sb, ", ");
	if (!container->is_new) {
		detect_add_count(sb, (double)container->length - (double)container->grew);
		strbuf_adds(sb, " → ");
	}
	detect_add_count(sb, (double)container->length);
	strbuf_addf(sb, container->is_new ? " items, new in %s" : " items in %s", duration);
}

static void add_type(struct strbuf *sb, const struct pyspyd_heap_type *type) {
	detect_add_name(sb, type->type);
	strbuf_adds(sb, " +");
	detect_add_count(sb, (double)type->grew_count);
	strbuf_adds(sb, type->grew_count == 1 ? " object (" : " objects (");
	add_grown(sb, (double)type->grew_bytes);
	strbuf_adds(sb, ")");
	if (!type->kept_by)
		return;
	strbuf_addf(sb, ", %.0f %% of them in ", 100 * type->kept_share);
	detect_add_text(sb, type->kept_by, PATH_SHOWN);
}

void heap_growth_add_line(struct strbuf *sb, const struct pyspyd_heap_line *line) {
	const char *slash = strrchr(line->file, '/');

	detect_add_name(sb, slash && slash[1] ? slash + 1 : line->file);
	strbuf_addf(sb, ":%d", line->line);
}

static void add_python(struct strbuf *sb, const struct pyspyd_heap *heap, const struct heap_names *names) {
	size_t before = sb->len;

	if (names->container)
		add_container(sb, heap, names->container);
	if (names->type) {
		strbuf_adds(sb, sb->len > before ? "; " : "");
		add_type(sb, names->type);
	}
	if (names->line) {
		strbuf_adds(sb, sb->len > before ? "; allocated at " : "allocated at ");
		heap_growth_add_line(sb, names->line);
		strbuf_adds(sb, " (");
		add_grown(sb, (double)names->line->grew_bytes);
		strbuf_adds(sb, ")");
	}
}

static void add_mapping(struct strbuf *sb, const struct pyspyd_heap_mapping *mapping) {
	detect_add_text(sb, mapping->name, PATH_SHOWN);
	strbuf_adds(sb, " ");
	add_grown(sb, (double)mapping->grew_bytes);
}

static void add_native(struct strbuf *sb, const struct pyspyd_heap *heap, const struct heap_names *names) {
	strbuf_adds(sb, "native memory");
	if (names->mapping) {
		strbuf_adds(sb, ": ");
		add_mapping(sb, names->mapping);
	}
	if (names->second_mapping) {
		strbuf_adds(sb, ", ");
		add_mapping(sb, names->second_mapping);
	}
	strbuf_adds(sb, "; the Python heap ");
	add_grown(sb, (double)heap->grew_bytes + (double)heap->grew_other);
}

void heap_growth_add(
	struct strbuf *sb, const struct pyspyd_heap *heap, const struct heap_names *names, enum heap_cause cause) {
	size_t before = sb->len;

	if (cause != HEAP_NATIVE)
		add_python(sb, heap, names);
	if (cause == HEAP_PYTHON)
		return;
	strbuf_adds(sb, sb->len > before ? "; " : "");
	add_native(sb, heap, names);
}
