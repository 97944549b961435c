/* SPDX-License-Identifier: MIT */
/* The table of keys. A default is written as a user would write it and read as his value would be, so that there is one
 * way for a value to come about, and the table can be compared with the manual and the file that is installed. */
#include "daemon/config_keys.h"

#include "daemon/config_parse.h"
#include "pyspyd/parse.h"
#include "pyspyd/remote.h"
#include <errno.h>
#include <inttypes.h>
#include <regex.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int check_regex(const char *value, struct err *err) {
	char reason[128];
	regex_t regex;
	int r = regcomp(&regex, value, REG_EXTENDED | REG_NOSUB);

	if (!r) {
		regfree(&regex);
		return 0;
	}
	regerror(r, &regex, reason, sizeof(reason));
	return err_set(err, -EINVAL, "is no regular expression (POSIX extended): %s", reason);
}

#define AT(field) offsetof(struct config, field)
#define RULE(field) offsetof(struct config_rule, field)

const struct config_key config_keys[] = {
	{ "watch", "rate", CONFIG_NUMBER, AT(rate_hz), "20", "0.1", "1000", NULL, false },
	{ "watch", "interval", CONFIG_DURATION, AT(interval_ns), "1s", "100ms", "1m", NULL, false },
	{ "watch", "cpu-budget", CONFIG_PERCENT, AT(cpu_budget_percent), "1%", "0%", "6400%", NULL, false },
	{ "watch", "memory-budget", CONFIG_SIZE, AT(memory_budget_bytes), "64M", "0", "64G", NULL, false },
	{ "park", "sites", CONFIG_WORDS, AT(park), "", NULL, NULL, config_check_site, true },
	{ "recorder", "enabled", CONFIG_FLAG, AT(recorder), "yes", NULL, NULL, NULL, false },
	{ "recorder", "bucket", CONFIG_DURATION, AT(bucket_ns), "60s", "1s", "1h", NULL, false },
	{ "recorder", "keep", CONFIG_DURATION, AT(profile_age_ns), "1h", "1s", "365d", NULL, false },
	{ "store", "path", CONFIG_TEXT, AT(store_path), "/var/lib/pyspyd/pyspyd.db", NULL, NULL, config_check_path,
		false },
	{ "store", "max-size", CONFIG_SIZE, AT(store_max_bytes), "512M", "4M", "1024G", NULL, false },
	{ "store", "keep-findings", CONFIG_DURATION, AT(finding_age_ns), "30d", "1m", "3650d", NULL, false },
	{ "store", "keep-counters", CONFIG_DURATION, AT(counter_age_ns), "7d", "1m", "3650d", NULL, false },
	{ "journal", "enabled", CONFIG_FLAG, AT(journal), "yes", NULL, NULL, NULL, false },
	{ "syslog", "enabled", CONFIG_FLAG, AT(syslog.enabled), "no", NULL, NULL, NULL, false },
	{ "syslog", "transport", CONFIG_TRANSPORT, AT(syslog.transport), "local", NULL, NULL, NULL, false },
	{ "syslog", "address", CONFIG_TEXT, AT(syslog.address), "/dev/log", NULL, NULL, config_check_host, false },
	{ "syslog", "port", CONFIG_UNSIGNED, AT(syslog.port), "514", "1", "65535", NULL, false },
	{ "syslog", "facility", CONFIG_FACILITY, AT(syslog.facility), "daemon", NULL, NULL, NULL, false },
	{ "file", "enabled", CONFIG_FLAG, AT(file), "no", NULL, NULL, NULL, false },
	{ "file", "path", CONFIG_TEXT, AT(file_path), "/var/log/pyspyd/findings.jsonl", NULL, NULL, config_check_path,
		false },
	{ "otlp", "enabled", CONFIG_FLAG, AT(otlp.enabled), "no", NULL, NULL, NULL, false },
	{ "otlp", "url", CONFIG_TEXT, AT(otlp.url), "http://127.0.0.1:4318/v1/logs", NULL, NULL, config_check_url,
		false },
	{ "otlp", "timeout", CONFIG_DURATION, AT(otlp.timeout_ns), "10s", "100ms", "10m", NULL, false },
	{ "sinks", "rate", CONFIG_NUMBER, AT(sink_rate), "10", "0", "100000", NULL, false },
	{ "sinks", "burst", CONFIG_UNSIGNED, AT(sink_burst), "100", "1", "1000000", NULL, false },
	{ "sinks", "queue", CONFIG_COUNT, AT(sink_queue), "10000", "1", "100000000", NULL, false },
	{ "metrics", "enabled", CONFIG_FLAG, AT(metrics), "no", NULL, NULL, NULL, false },
	{ "metrics", "listen", CONFIG_TEXT, AT(metrics_listen), "127.0.0.1:9733", NULL, NULL, config_check_listen,
		false },
	{ "metrics", "processes", CONFIG_UNSIGNED, AT(metrics_processes), "500", "0", "100000", NULL, false },
	{ "crash", "folder", CONFIG_TEXT, AT(crash.folder), "/var/lib/pyspyd/crash", NULL, NULL, config_check_path,
		false },
	{ "crash", "max-core", CONFIG_SIZE, AT(crash.max_core), "4G", "1M", "1024G", NULL, false },
	{ "crash", "deadline", CONFIG_DURATION, AT(crash.deadline_ns), "30s", "1s", "10m", NULL, false },
	{ "crash", "keep", CONFIG_FLAG, AT(crash.keep), "no", NULL, NULL, NULL, false },
	{ "crash", "cores", CONFIG_TEXT, AT(crash.cores), "/var/lib/pyspyd/cores", NULL, NULL, config_check_path,
		false },
	{ "crash", "max-cores", CONFIG_COUNT, AT(crash.max_cores), "10", "1", "100000", NULL, false },
	{ "crash", "max-size", CONFIG_SIZE, AT(crash.max_size), "4G", "1M", "1024G", NULL, false },
	{ "crash", "forward", CONFIG_TEXT, AT(crash.forward), "", NULL, NULL, config_check_path, true },
	{ "crash", "systemd-coredump", CONFIG_FLAG, AT(crash.systemd_coredump), "yes", NULL, NULL, NULL, false },
	{ "socket", "path", CONFIG_TEXT, AT(socket_path), PYSPYD_SOCKET, NULL, NULL, config_check_socket, false },
	{ "socket", "group", CONFIG_TEXT, AT(socket_group), "pyspyd", NULL, NULL, config_check_account, true },
	{ "rule", "match-cmdline", CONFIG_TEXT, RULE(match_cmdline), NULL, NULL, NULL, check_regex, false },
	{ "rule", "match-unit", CONFIG_TEXT, RULE(match_unit), NULL, NULL, NULL, config_check_glob, false },
	{ "rule", "match-user", CONFIG_TEXT, RULE(match_user), NULL, NULL, NULL, config_check_account, false },
	{ "rule", "match-container", CONFIG_TEXT, RULE(match_container), NULL, NULL, NULL, config_check_glob, false },
	{ "rule", "exclude", CONFIG_FLAG, RULE(exclude), "no", NULL, NULL, NULL, false },
	{ "rule", "expect-busy", CONFIG_FLAG, RULE(expect_busy), "no", NULL, NULL, NULL, false },
};

const size_t config_keys_n = sizeof(config_keys) / sizeof(config_keys[0]);

/* Ten seconds are enough for somebody who watches; a service that speaks up by night takes a longer look. */
const char *const config_initial_settings[] = { "spiking-thread.for=30s", NULL };

const struct config_key *config_key_find(const char *section, const char *name) {
	for (size_t i = 0; i < config_keys_n; i++)
		if (!strcmp(config_keys[i].section, section) && !strcmp(config_keys[i].name, name))
			return &config_keys[i];
	return NULL;
}

bool config_section_exists(const char *section) {
	for (size_t i = 0; i < config_keys_n; i++)
		if (!strcmp(config_keys[i].section, section))
			return true;
	return false;
}

static const char *section_at(const void *userdata, size_t i) {
	(void)userdata;
	return config_keys[i].section;
}

static const char *name_at(const void *userdata, size_t i) {
	const struct config_key *first = userdata;

	return first[i].name;
}

const char *config_section_near(const char *section) {
	return config_nearest(section, section_at, NULL, config_keys_n);
}

const char *config_key_near(const char *section, const char *name) {
	size_t first = 0, n = 0;

	while (first < config_keys_n && strcmp(config_keys[first].section, section) != 0)
		first++;
	while (first + n < config_keys_n && !strcmp(config_keys[first + n].section, section))
		n++;
	return config_nearest(name, name_at, &config_keys[first], n);
}

/* What a value of each type looks like, for whoever wrote another. */
static const char *const expected[] = {
	[CONFIG_FLAG] = "yes or no",
	[CONFIG_NUMBER] = "a number",
	[CONFIG_PERCENT] = "a percentage (1%)",
	[CONFIG_DURATION] = "a duration (500ms, 10s, 5m, 1h, 30d)",
	[CONFIG_SIZE] = "a size (bytes, 64K, 512M, 1G)",
	[CONFIG_COUNT] = "a whole number",
	[CONFIG_UNSIGNED] = "a whole number",
	[CONFIG_TRANSPORT] = "local, udp or tcp",
	[CONFIG_FACILITY] = "a facility (daemon, user, local0 to local7, …)",
};

static int parse_transport(const char *s, unsigned *ret) {
	static const char *const names[] = { [SYSLOG_LOCAL] = "local", [SYSLOG_UDP] = "udp", [SYSLOG_TCP] = "tcp" };

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(s, names[i]) != 0)
			continue;
		*ret = i;
		return 0;
	}
	return -EINVAL;
}

/* What is no text, before it is stored. */
struct scalar {
	bool flag;
	double number;
	uint64_t count;
	unsigned small;
};

static int parse_scalar(enum config_type type, const char *s, struct scalar *ret) {
	switch (type) {
	case CONFIG_FLAG: return config_parse_flag(s, &ret->flag);
	case CONFIG_NUMBER: return parse_decimal(s, &ret->number);
	case CONFIG_PERCENT: return config_parse_percent(s, &ret->number);
	case CONFIG_DURATION: return config_parse_duration(s, &ret->count);
	case CONFIG_SIZE: return parse_size(s, &ret->count);
	case CONFIG_COUNT:
	case CONFIG_UNSIGNED: return parse_u64(s, &ret->count);
	case CONFIG_TRANSPORT: return parse_transport(s, &ret->small);
	case CONFIG_FACILITY: return config_parse_facility(s, &ret->small);
	case CONFIG_TEXT:
	case CONFIG_WORDS: break;
	}
	return -EINVAL;
}

/* Of one type, of which only one field is used. */
static bool is_less(const struct scalar *a, const struct scalar *b) {
	return a->number < b->number || a->count < b->count;
}

static bool is_within(const struct config_key *key, const struct scalar *value) {
	struct scalar least = { 0 }, most = { 0 };

	if (!key->least)
		return true;
	return !parse_scalar(key->type, key->least, &least) && !parse_scalar(key->type, key->most, &most) &&
		!is_less(value, &least) && !is_less(&most, value);
}

static void store_scalar(enum config_type type, void *at, const struct scalar *value) {
	switch (type) {
	case CONFIG_FLAG: *(bool *)at = value->flag; break;
	case CONFIG_NUMBER:
	case CONFIG_PERCENT: *(double *)at = value->number; break;
	case CONFIG_DURATION:
	case CONFIG_SIZE:
	case CONFIG_COUNT: *(uint64_t *)at = value->count; break;
	case CONFIG_UNSIGNED: *(unsigned *)at = (unsigned)value->count; break;
	case CONFIG_TRANSPORT: memcpy(at, &value->small, sizeof(((struct config_syslog *)0)->transport)); break;
	case CONFIG_FACILITY: *(unsigned *)at = value->small; break;
	case CONFIG_TEXT:
	case CONFIG_WORDS: break;
	}
}

_Static_assert(sizeof(((struct config_syslog *)0)->transport) == sizeof(unsigned), "stored by its bytes");

static int set_scalar(const struct config_key *key, void *at, const char *value, struct err *err) {
	struct scalar scalar = { 0 };

	if (parse_scalar(key->type, value, &scalar))
		return err_set(err, -EINVAL, "must be %s, not '%s'", expected[key->type], value);
	if (!is_within(key, &scalar))
		return err_set(err, -EINVAL, "must be from %s to %s, not '%s'", key->least, key->most, value);
	store_scalar(key->type, at, &scalar);
	return 0;
}

static int set_text(const struct config_key *key, char **at, const char *value, struct err *err) {
	struct err why = { 0 };
	char *copy;

	if (*value && key->check && key->check(value, &why))
		return err_set(err, -EINVAL, "'%s' %s", value, why.text);
	copy = strdup(value);
	if (!copy)
		return -ENOMEM;
	free(*at);
	*at = copy;
	return 0;
}

static int add_words(const struct config_key *key, char *words, string_array *array, struct err *err) {
	char *rest = NULL;

	for (char *word = strtok_r(words, " \t", &rest); word; word = strtok_r(NULL, " \t", &rest)) {
		int r = key->check ? key->check(word, err) : 0;

		r = r ? r : config_array_add(array, word);
		if (r)
			return r;
	}
	return 0;
}

static int set_words(const struct config_key *key, string_array *at, const char *value, struct err *err) {
	string_array array = calloc(1, sizeof(*array));
	char *words = strdup(value);
	int r = array && words ? add_words(key, words, &array, err) : -ENOMEM;

	free(words);
	if (r) {
		config_array_free(array);
		return r;
	}
	config_array_free(*at);
	*at = array;
	return 0;
}

int config_key_set(const struct config_key *key, void *base, const char *value, struct err *err) {
	void *at = (char *)base + key->offset;

	if (!*value && !key->may_be_empty)
		return err_set(err, -EINVAL, "has no value");
	switch (key->type) {
	case CONFIG_TEXT: return set_text(key, at, value, err);
	case CONFIG_WORDS: return set_words(key, at, value, err);
	default: return set_scalar(key, at, value, err);
	}
}

static size_t length(const char *const *array) {
	size_t n = 0;

	while (array && array[n])
		n++;
	return n;
}

/* Takes over the text, also where it fails. */
static int append(string_array *array, char *text) {
	size_t n = length((const char *const *)*array);
	char **grown = text ? realloc(*array, (n + 2) * sizeof(*grown)) : NULL;

	if (!grown) {
		free(text);
		return -ENOMEM;
	}
	grown[n] = text;
	grown[n + 1] = NULL;
	*array = grown;
	return 0;
}

int config_array_add(string_array *array, const char *text) {
	return append(array, strdup(text));
}

int config_array_put(string_array *array, const char *name, const char *separator, const char *value) {
	size_t n = strlen(name), behind = strlen(separator);
	char *text = malloc(n + behind + strlen(value) + 1);

	if (!text)
		return -ENOMEM;
	stpcpy(stpcpy(stpcpy(text, name), separator), value);
	for (char **item = *array; item && *item; item++) {
		if (strncasecmp(*item, text, n + behind) != 0)
			continue;
		free(*item);
		*item = text;
		return 0;
	}
	return append(array, text);
}

void config_array_free(string_array array) {
	for (size_t i = 0; array && array[i]; i++)
		free(array[i]);
	free(array);
}

void config_check_together(const struct config *config,
	void (*say)(void *userdata, const char *section, const char *name, const char *reason), void *userdata) {
	bool is_path = *config->syslog.address == '/';

	if (is_path && config->syslog.transport != SYSLOG_LOCAL)
		say(userdata, "syslog", "address", "is a socket's path, but the transport is udp or tcp");
	if (!is_path && config->syslog.transport == SYSLOG_LOCAL)
		say(userdata, "syslog", "address", "is no socket's path, but the transport is local");
	if (config->profile_age_ns < config->bucket_ns)
		say(userdata, "recorder", "keep", "is shorter than the bucket, so that nothing would be kept");
	if (config->memory_budget_bytes && config->memory_budget_bytes < (8U << 20))
		say(userdata, "watch", "memory-budget", "is less than 8M, which pyspyd cannot keep (0: no budget)");
	if (config->metrics && !strcmp(config->metrics_listen, config->socket_path))
		say(userdata, "metrics", "listen", "is the path of the service's own socket");
	if (config->file && !strcmp(config->file_path, config->store_path))
		say(userdata, "file", "path", "is the store's file");
}
