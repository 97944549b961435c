/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_HEAP_H
#define PYSPYD_HEAP_H

#include "pyspyd/err.h"
#include "pyspyd/stack.h"

/* The objects of a process, counted by type while it runs, its largest containers and who keeps them; and what of that
 * grew between two counts. */

struct pyspyd_heap_type {
	char *type; /* "module.QualName" */
	uint64_t address;
	uint64_t count;                 /* objects */
	uint64_t bytes;                 /* that they take, with the tables of containers */
	int64_t grew_count, grew_bytes; /* since the count before; 0 where there was none */
	char *kept_by; /* the path that keeps most of its objects, of the new ones where it grew, as far as some of them
			  show; NULL not known, or not asked */
	double kept_share; /* of those looked at whose keeper is known, 0 to 1; of all where that is known of few */
};

struct pyspyd_heap_container {
	char *path; /* the shortest one from a root, as Python: "registry.Registry._seen", "app.CACHE['users']",
		       "app.load.<locals>.rows (in thread worker-1)"; NULL not known */
	char *type;
	uint64_t address;
	uint64_t length; /* items */
	uint64_t bytes;  /* with its table */
	int64_t grew; /* items since the count before; 0 where there was none, or it was not there or shorter than 64 */
	bool is_new;  /* it was not there, or shorter than 64 */
};

/* A line that allocated memory which is still in use, by the target's own tracemalloc. */
struct pyspyd_heap_line {
	char *file;
	int line;
	uint64_t count, bytes;
	int64_t grew_count, grew_bytes;
};

/* Memory of the process's own, by what the kernel says it is: "[heap]", "anonymous", "[stack]", a file's path. */
struct pyspyd_heap_mapping {
	char *name;
	uint64_t mappings, bytes; /* private and resident, or in swap */
	int64_t grew_mappings, grew_bytes;
};

struct pyspyd_heap {
	struct pyspyd_process process;
	struct pyspyd_heap_type *types;           /* those with most bytes first; of two counts, those that grew most */
	size_t types_n;                           /* as many as were asked for */
	size_t types_all;                         /* as many as there are */
	struct pyspyd_heap_container *containers; /* the longest first; of two counts, those that grew most */
	size_t containers_n;
	struct pyspyd_heap_line *lines; /* NULL: the target does not run tracemalloc. Ordered as the types */
	size_t lines_n;
	struct pyspyd_heap_mapping *mappings; /* likewise */
	size_t mappings_n;
	uint64_t private_bytes; /* of all mappings */
	int64_t grew_private;
	uint64_t objects, object_bytes; /* of all types */
	int64_t grew_objects, grew_bytes;
	uint64_t large;       /* objects of more than 512 bytes, which malloc keeps */
	uint64_t pool_bytes;  /* memory of the small-object allocator … */
	uint64_t blocks;      /* … blocks of it in use, as sys.getallocatedblocks() says */
	uint64_t other_bytes; /* … in use by what is no object: tables, buffers, objects kept for reuse */
	uint64_t free_bytes;  /* … kept free */
	int64_t grew_other, grew_free;
	uint64_t moved;      /* pools that changed while they were read */
	uint64_t cost_ns;    /* of the (last) count */
	uint64_t paths_ns;   /* of looking for who keeps what */
	uint64_t between_ns; /* two counts: from one to the other; 0 one count */
	bool incomplete;     /* a limit was met */
};

struct pyspyd_heap_options {
	struct pyspyd_core_source core; /* with a file: the process in it, and `pid` does not matter */
	size_t top;                     /* that many types and containers at most; 0: all types and 100 containers */
	uint64_t diff_ns;               /* counts twice, that far apart; 0 once */
	bool no_paths;                  /* do not look for who keeps what */
	/* Called now and then: how much of the heap was counted; 0 and 0 while there is nothing but to wait between two
	 * counts. true: enough (the wait ends, a count is given up with -ECANCELED). NULL: nobody asks. */
	bool (*progress)(void *userdata, uint64_t done_bytes, uint64_t all_bytes);
	void *userdata;
};

/* Counts. Return: 0; PYSPYD_E_GONE, _DENIED, _UNSUPPORTED, _STARTING; -ECANCELED; negative errno. *ret_heap is the
 * caller's. */
int pyspyd_heap_count(
	pid_t pid, const struct pyspyd_heap_options *options, struct pyspyd_heap **ret_heap, struct err *err);
void pyspyd_heap_free(struct pyspyd_heap *heap);

/* pyspyd.heap/1 in one line; tables for people. The caller's to free(); NULL when out of memory. */
char *pyspyd_heap_json(const struct pyspyd_heap *heap);
char *pyspyd_heap_text(const struct pyspyd_heap *heap, bool colour);

#endif
