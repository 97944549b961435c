/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DETECT_HEAP_GROWTH_H
#define PYSPYD_DETECT_HEAP_GROWTH_H

#include "engine/base/strbuf.h"
#include "pyspyd/heap.h"

/* What two counts of a heap say of memory that grows: whether it is Python's, and by what name. Pure. */

enum heap_cause {
	HEAP_UNCONFIRMED, /* it did not grow between the counts, or only by what the allocator keeps free */
	HEAP_PYTHON,
	HEAP_NATIVE, /* the Python heap did not grow along */
	HEAP_MIXED,
	HEAP_UNKNOWN, /* for detectors: there can be no count */
};

const char *heap_cause_name(enum heap_cause cause); /* "python"; NULL of HEAP_UNCONFIRMED */

/* `expected_bytes`: by how much memory should have grown between the counts if it grows as it did before. */
enum heap_cause heap_growth_cause(const struct pyspyd_heap *heap, double expected_bytes);

/* What has to be looked at: objects of memory that is Python's, mappings of what is native. NULL: there is none. All
 * are the heap's. */
struct heap_names {
	const struct pyspyd_heap_container *container;
	const struct pyspyd_heap_type *type;
	const struct pyspyd_heap_line *line;
	const struct pyspyd_heap_mapping *mapping, *second_mapping;
};

struct heap_names heap_growth_names(const struct pyspyd_heap *heap, enum heap_cause cause);

/* "registry.Registry._seen: dict, 41,200 → 58,900 items in 10 min 0 s; app.Session +17,700 objects (+9.3 MiB), 97 % of
 * them in app.sessions", "native memory: [heap] +80.0 MiB, …". Nothing where nothing is named. Printable. */
void heap_growth_add(
	struct strbuf *sb, const struct pyspyd_heap *heap, const struct heap_names *names, enum heap_cause cause);

/* "app.py:12" */
void heap_growth_add_line(struct strbuf *sb, const struct pyspyd_heap_line *line);

#endif
