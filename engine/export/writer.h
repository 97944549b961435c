/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_EXPORT_WRITER_H
#define PYSPYD_EXPORT_WRITER_H

#include "engine/base/strbuf.h"

/* Text that goes out in pieces, so that a file is never held whole. Append to `text`, call writer_pass now and then,
 * and look at errors once, at the end. */
struct writer {
	struct strbuf text;
	int fd;    /* the caller's */
	int error; /* the first one; nothing is written after it */
};

/* Writes what has gathered, if it is worth a system call. Return: 0, or the error that stands. */
int writer_pass(struct writer *writer);

/* Writes the rest and frees the text. Return: 0, -ENOMEM, or the first error of writing. */
int writer_finish(struct writer *writer);

/* Appends a string as a JSON string, quotes included, with what could steer a terminal spelt out. */
void writer_json(struct writer *writer, const char *s);

/* The same behind a key that needs no escapes: `"key":"…"`. */
void writer_json_member(struct writer *writer, const char *key, const struct strbuf *value);

/* Appends text that is printable already, escaped for XML and HTML, as content or in an attribute. */
void writer_markup(struct writer *writer, const char *s, size_t n);

#endif
