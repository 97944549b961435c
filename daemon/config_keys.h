/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_CONFIG_KEYS_H
#define PYSPYD_DAEMON_CONFIG_KEYS_H

#include "daemon/config.h"

/* Every key there is, as a table: where it stands, what it takes, what it is by default, and where it goes. */

enum config_type {
	CONFIG_FLAG,      /* bool */
	CONFIG_NUMBER,    /* double */
	CONFIG_PERCENT,   /* double */
	CONFIG_DURATION,  /* uint64_t, ns */
	CONFIG_SIZE,      /* uint64_t, bytes */
	CONFIG_COUNT,     /* uint64_t */
	CONFIG_UNSIGNED,  /* unsigned */
	CONFIG_TEXT,      /* char * */
	CONFIG_WORDS,     /* string_array */
	CONFIG_TRANSPORT, /* of syslog */
	CONFIG_FACILITY,  /* unsigned */
};

struct config_key {
	const char *section, *name;
	enum config_type type;
	size_t offset;            /* in struct config; of the section "rule": in struct config_rule */
	const char *initial;      /* as it would be written; NULL: nothing */
	const char *least, *most; /* numbers of all kinds, as they would be written; NULL: no bound */
	int (*check)(const char *value, struct err *err); /* texts and each of several words; NULL: anything but nothing
							   */
	bool may_be_empty;
};

extern const struct config_key config_keys[];
extern const size_t config_keys_n;

/* What is set by default besides: of detectors. Ends with NULL. */
extern const char *const config_initial_settings[];

/* The key of a section; NULL: there is none. */
const struct config_key *config_key_find(const char *section, const char *name);
bool config_section_exists(const char *section);

/* The name that is likely to be meant; NULL: none is near. */
const char *config_section_near(const char *section);
const char *config_key_near(const char *section, const char *name);

/* Writes a value to where the key says, in `base` (struct config, or struct config_rule); what was there is freed.
 * Return: 0; -EINVAL: the text says what was expected; -ENOMEM. */
int config_key_set(const struct config_key *key, void *base, const char *value, struct err *err);

/* Puts "NAME<separator>VALUE" in the place of what is there for that name, or at the end. Return: 0; -ENOMEM. */
int config_array_put(string_array *array, const char *name, const char *separator, const char *value);
int config_array_add(string_array *array, const char *text);
void config_array_free(string_array array);

/* What depends on several keys. `say` is told of each fault with the key that it is about, the value of which makes no
 * sense beside the others. */
void config_check_together(const struct config *config,
	void (*say)(void *userdata, const char *section, const char *name, const char *reason), void *userdata);

#endif
