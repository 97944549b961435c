/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_DOCUMENT_H
#define PYSPYD_FINDING_DOCUMENT_H

#include "pyspyd/err.h"
#include "pyspyd/stack.h"
#include <jansson.h>

/* A JSON document of our own schemas, read back by somebody who trusts nobody. The first thing that is wrong stays,
 * with its place in words ("pyspyd.dump/1: threads[3].stack[0]: \"function\" is missing"); after it every function
 * returns nothing and does nothing, so that a reader looks once, at the end. Members that nobody asks for do not
 * matter. */

#define DOCUMENT_BYTES_MAX ((size_t)128U << 20)
#define DOCUMENT_VALUES_MAX (16U << 20) /* each takes up to 100 bytes of memory while it is read */

struct document {
	const char *schema;
	json_t *root;
	int r;           /* 0; -EBADMSG: not what it should be; -EPROTO: of a newer schema; -ENOMEM */
	struct err *err; /* may be NULL */
	void *userdata;  /* the reader's */
	char path[200];
	size_t path_len;
	unsigned depth; /* of what is within itself */
};

/* Return: document->r. */
int document_open(struct document *document, const char *schema, const char *json, size_t len, struct err *err);
void document_close(struct document *document);

/* Says that a member is not what it should be: `"key" what`. Return: document->r. */
int document_fail(struct document *document, const char *key, const char *what);

/* Each member must be there. Strings are the caller's to free; NULL also after a failure. */
json_t *document_get(struct document *document, const json_t *object, const char *key);
json_t *document_object(struct document *document, const json_t *object, const char *key); /* NULL for null */
char *document_text(struct document *document, const json_t *object, const char *key);     /* NULL for null */
char *document_string(struct document *document, const json_t *object, const char *key);   /* "" for null */
const char *document_word(
	struct document *document, const json_t *object, const char *key); /* never freed; printable */
const char *document_keep(struct document *document, const char *word);    /* as document_word, of a key */
bool document_bool(struct document *document, const json_t *object, const char *key);
uint64_t document_count(struct document *document, const json_t *object, const char *key);   /* UINT64_MAX for null */
int64_t document_signed(struct document *document, const json_t *object, const char *key);   /* 0 for null */
double document_real(struct document *document, const json_t *object, const char *key);      /* -1 for null */
uint64_t document_address(struct document *document, const json_t *object, const char *key); /* 0 for null */
uint64_t document_time(struct document *document, const json_t *object, const char *key);    /* 0 for null */
char document_state(struct document *document, const json_t *object, const char *key);       /* 0 for null */

/* A number within bounds; `if_null` for null. */
int64_t document_number(
	struct document *document, const json_t *object, const char *key, int64_t min, int64_t max, int64_t if_null);

/* A number of units of `unit_ns` each; `if_null` for null. */
uint64_t document_ns(
	struct document *document, const json_t *object, const char *key, double unit_ns, uint64_t if_null);

/* One of some words. Return: its index; 0 after a failure. */
size_t document_choice(
	struct document *document, const json_t *object, const char *key, const char *const *words, size_t n);

/* An array of objects into an array of structs, zeroed before `read` fills each. *ret_n is set before the first one is
 * read, so that half of them can be freed like all. Return: the caller's, not NULL where the member is an array, be it
 * empty; NULL for null and after a failure. */
typedef void (*document_reader)(struct document *document, const json_t *object, void *item);
void *document_array(struct document *document, const json_t *object, const char *key, size_t item_size,
	document_reader read, size_t *ret_n);

/* Steps into array[index] of a member, for messages. Return: what document_leave wants. */
size_t document_enter(struct document *document, const char *key, size_t index);
void document_leave(struct document *document, size_t mark);

/* The bones that all schemas share (stack_json.h). */
void document_process(struct document *document, const json_t *object, struct pyspyd_process *process);
struct pyspyd_core *document_core(struct document *document, const json_t *object);
void document_frame(struct document *document, const json_t *object, void *frame); /* a struct pyspyd_frame */
void document_native(struct document *document, const json_t *object, struct pyspyd_thread *thread);
void document_exceptions(struct document *document, const json_t *object, struct pyspyd_thread *thread);
void document_thread(struct document *document, const json_t *object, void *thread);

#endif
