/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_CONFIG_PARSE_H
#define PYSPYD_DAEMON_CONFIG_PARSE_H

#include "pyspyd/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The grammar of the configuration: lines into words, words into values. Pure. Results are untouched on failure. */

#define CONFIG_FILE_MAX (1U << 20) /* bytes */
#define CONFIG_LINE_MAX 4096       /* bytes, the newline not counted */
#define CONFIG_NAME_MAX 64         /* bytes of a rule's name */

enum config_line_kind {
	CONFIG_EMPTY,   /* nothing, or a comment: # or ; as the first character */
	CONFIG_SECTION, /* "[section]", "[rule NAME]" */
	CONFIG_ENTRY,   /* "key = value"; the value may be empty */
	CONFIG_BAD,
};

struct config_line {
	const char *section, *name; /* name: "" where there is none */
	const char *key, *value;    /* without the spaces around them */
	const char *reason;         /* CONFIG_BAD: what is wrong with it */
};

/* Cuts a line (without its newline) up in place; what is handed back points into it. */
enum config_line_kind config_line_cut(char *line, struct config_line *ret_line);

/* Of n names, the one that somebody who wrote `word` is likely to have meant; NULL: none is near. `next` gives the i-th
 * name. */
const char *config_nearest(
	const char *word, const char *(*next)(const void *userdata, size_t i), const void *userdata, size_t n);

/* Values. Each: 0; -EINVAL, with no text where the caller knows what was expected. */
int config_parse_flag(const char *s, bool *ret);            /* yes no on off true false */
int config_parse_percent(const char *s, double *ret);       /* "1%", "0.5"; of 100 */
int config_parse_duration(const char *s, uint64_t *ret_ns); /* parse_duration's units, and "30d" */

/* The facility of a syslog message by name or number ("daemon", "3"), RFC 5424 6.2.1. */
int config_parse_facility(const char *s, unsigned *ret);

/* Forms that are kept as they are written. Return: 0; -EINVAL with a text that says what the form is. */
int config_check_path(const char *s, struct err *err);    /* absolute, not a folder's */
int config_check_socket(const char *s, struct err *err);  /* and no longer than an address holds */
int config_check_listen(const char *s, struct err *err);  /* "127.0.0.1:9733", "[::1]:9733", a socket's path */
int config_check_url(const char *s, struct err *err);     /* http or https, a host, no user */
int config_check_host(const char *s, struct err *err);    /* a host's name or address, or a path */
int config_check_glob(const char *s, struct err *err);    /* brackets are closed, nothing ends in a backslash */
int config_check_account(const char *s, struct err *err); /* the name or the number of a user or group */
int config_check_site(const char *s, struct err *err);    /* MODULE:QUALNAME */
int config_check_header(const char *name, const char *value, struct err *err); /* of HTTP */

#endif
