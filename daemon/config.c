/* SPDX-License-Identifier: MIT */
/* The configuration out of its files: which files, in which order, and what a line does to what was there. Reading goes
 * on behind a fault, so that all of them are seen at once; nothing of a configuration with faults is handed out.
 *
 * A key with a dot is a detector's setting ([watch], [rule …]) or a header ([otlp]); all others stand in the table of
 * config_keys.c. Rules are added up by name. What is read is root's and trusted; it is bounded all the same. */
#include "daemon/config.h"

#include "daemon/config_keys.h"
#include "daemon/config_parse.h"
#include "pyspyd/text.h"
#include "pyspyd/watch.h"
#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAULTS_MAX 100
#define RULES_MAX 256
#define DROP_INS_MAX 1000
#define CMDLINE_MAX 8192 /* so much of a command line is matched */
#define HEADER "header."

/* Where something stood: a key in this file (to see that it comes once), or a value that was taken. */
struct place {
	char *what; /* "section\nname\nkey" */
	char *file;
	unsigned line;
};

struct reader {
	struct config *config;
	FILE *faults;
	size_t faults_n;
	const char *file;
	unsigned line;
	char *section; /* that the line is in; NULL: none */
	char *name;    /* of the rule */
	bool passing;  /* over the lines of a section that there is not: one fault is enough */
	struct place *places;
	size_t places_n, places_cap;
	int r; /* out of memory */
};

static void fault_at(struct reader *reader, const char *file, unsigned line, const char *text) {
	char *shown = pyspyd_printable(text);

	reader->faults_n++;
	if (!shown)
		reader->r = -ENOMEM;
	else if (reader->faults_n <= FAULTS_MAX && line)
		fprintf(reader->faults, "%s:%u: %s\n", file, line, shown);
	else if (reader->faults_n <= FAULTS_MAX)
		fprintf(reader->faults, "%s: %s\n", file, shown);
	else if (reader->faults_n == FAULTS_MAX + 1)
		fprintf(reader->faults, "%s: there are more faults\n", file);
	free(shown);
}

static void fault(struct reader *reader, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void fault(struct reader *reader, const char *format, ...) {
	char text[ERR_TEXT_MAX + CONFIG_LINE_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fault_at(reader, reader->file, reader->line, text);
}

/* Places */

static struct place *place_find(const struct reader *reader, const char *what) {
	for (size_t i = 0; i < reader->places_n; i++)
		if (!strcmp(reader->places[i].what, what))
			return &reader->places[i];
	return NULL;
}

/* Takes over `what`. */
static int place_add(struct reader *reader, char *what) {
	char *file = strdup(reader->file);

	if (reader->places_n == reader->places_cap) {
		size_t cap = reader->places_cap ? reader->places_cap * 2 : 64;
		struct place *grown = realloc(reader->places, cap * sizeof(*grown));

		if (grown) {
			reader->places = grown;
			reader->places_cap = cap;
		}
	}
	if (!file || reader->places_n == reader->places_cap) {
		free(what);
		free(file);
		return -ENOMEM;
	}
	reader->places[reader->places_n++] = (struct place){ what, file, reader->line };
	return 0;
}

static void places_free(struct reader *reader) {
	for (size_t i = 0; i < reader->places_n; i++) {
		free(reader->places[i].what);
		free(reader->places[i].file);
	}
	free(reader->places);
}

/* Return: 0; -EEXIST: this file had the key before, which was said; -ENOMEM. */
static int note_place(struct reader *reader, const char *key) {
	struct place *place;
	char *what, *file;

	if (asprintf(&what, "%s\n%s\n%s", reader->section, reader->name, key) < 0)
		return -ENOMEM;
	place = place_find(reader, what);
	if (!place)
		return place_add(reader, what);
	free(what);
	if (!strcmp(place->file, reader->file)) {
		fault(reader, "%s was given already, in line %u", *key ? key : "the rule", place->line);
		return -EEXIST;
	}
	file = strdup(reader->file);
	if (!file)
		return -ENOMEM;
	free(place->file);
	place->file = file;
	place->line = reader->line;
	return 0;
}

/* Rules */

static void rule_deinit(struct config_rule *rule) {
	free(rule->name);
	free(rule->match_cmdline);
	free(rule->match_unit);
	free(rule->match_user);
	free(rule->match_container);
	if (rule->cmdline_regex)
		regfree(rule->cmdline_regex);
	free(rule->cmdline_regex);
	config_array_free(rule->settings);
}

static struct config_rule *rule_named(const struct config *config, const char *name) {
	for (size_t i = 0; i < config->rules_n; i++)
		if (!strcmp(config->rules[i].name, name))
			return &config->rules[i];
	return NULL;
}

static int rule_add(struct config *config, const char *name) {
	struct config_rule *grown, rule = { .name = strdup(name), .settings = calloc(1, sizeof(*rule.settings)) };

	grown = rule.name && rule.settings ? realloc(config->rules, (config->rules_n + 1) * sizeof(*grown)) : NULL;
	if (!grown) {
		rule_deinit(&rule);
		return -ENOMEM;
	}
	config->rules = grown;
	config->rules[config->rules_n++] = rule;
	return 0;
}

static int rule_compile(struct config_rule *rule) {
	int r;

	if (!rule->match_cmdline)
		return 0;
	rule->cmdline_regex = malloc(sizeof(*rule->cmdline_regex));
	r = rule->cmdline_regex ? regcomp(rule->cmdline_regex, rule->match_cmdline, REG_EXTENDED | REG_NOSUB)
				: REG_ESPACE;
	if (!r)
		return 0;
	free(rule->cmdline_regex);
	rule->cmdline_regex = NULL;
	return -ENOMEM; /* it was compiled once, when it was read */
}

/* Lines */

static void leave_section(struct reader *reader, bool passing) {
	free(reader->section);
	free(reader->name);
	reader->section = reader->name = NULL;
	reader->passing = passing;
}

static int set_section(struct reader *reader, const char *section, const char *name) {
	leave_section(reader, false);
	reader->section = strdup(section);
	reader->name = strdup(name);
	return reader->section && reader->name ? 0 : -ENOMEM;
}

static int read_rule_section(struct reader *reader, const char *name) {
	int r;

	if (!*name) {
		fault(reader, "a rule needs a name: [rule NAME]");
		leave_section(reader, true);
		return 0;
	}
	if (!rule_named(reader->config, name)) {
		if (reader->config->rules_n == RULES_MAX) {
			fault(reader, "more than %d rules", RULES_MAX);
			leave_section(reader, true);
			return 0;
		}
		r = rule_add(reader->config, name);
		if (r)
			return r;
	}
	r = set_section(reader, "rule", name);
	return r ? r : note_place(reader, "") == -ENOMEM ? -ENOMEM : 0;
}

static int read_section(struct reader *reader, const char *section, const char *name) {
	const char *near;

	if (!config_section_exists(section)) {
		near = config_section_near(section);
		fault(reader, "unknown section [%s]%s%s%s", section, near ? "; did you mean [" : "", near ? near : "",
			near ? "]?" : "");
		leave_section(reader, true);
		return 0;
	}
	if (!strcmp(section, "rule"))
		return read_rule_section(reader, name);
	if (*name) {
		fault(reader, "section [%s] takes no name", section);
		leave_section(reader, true);
		return 0;
	}
	return set_section(reader, section, name);
}

static int set_detector(struct reader *reader, const char *key, const char *value, string_array *settings) {
	char setting[CONFIG_LINE_MAX + 2];
	struct err err = { 0 };

	snprintf(setting, sizeof(setting), "%s=%s", key, value);
	if (!pyspyd_watch_check_setting(setting, &err))
		return config_array_put(settings, key, "=", value);
	fault(reader, "%s", err.text);
	return 0;
}

static int set_header(struct reader *reader, const char *name, const char *value) {
	struct err err = { 0 };

	if (!config_check_header(name, value, &err))
		return config_array_put(&reader->config->otlp.headers, name, ": ", value);
	fault(reader, "%s", err.text);
	return 0;
}

/* [watch] rate, and the like. */
static int set_key(struct reader *reader, const struct config_key *key, const char *value) {
	void *base = reader->config;
	struct err err = { 0 };
	int r;

	if (!strcmp(reader->section, "rule"))
		base = rule_named(reader->config, reader->name);
	r = config_key_set(key, base, value, &err);
	if (r != -EINVAL)
		return r;
	fault(reader, "%s %s", key->name, err.text);
	return 0;
}

/* Where else there is such a key; NULL: nowhere. */
static const char *section_with(const char *name) {
	for (size_t i = 0; i < config_keys_n; i++)
		if (!strcmp(config_keys[i].name, name))
			return config_keys[i].section;
	return NULL;
}

static void unknown_key(struct reader *reader, const char *key) {
	const char *near = config_key_near(reader->section, key), *section = section_with(key);

	if (section)
		fault(reader, "unknown key %s in [%s]; there is one in [%s]", key, reader->section, section);
	else if (near)
		fault(reader, "unknown key %s in [%s]; did you mean %s?", key, reader->section, near);
	else
		fault(reader, "unknown key %s in [%s]", key, reader->section);
}

static int read_entry(struct reader *reader, const char *key, const char *value) {
	const struct config_key *known = config_key_find(reader->section, key);
	bool is_watch = !strcmp(reader->section, "watch"), is_rule = !strcmp(reader->section, "rule");
	bool is_header = !strcmp(reader->section, "otlp") && !strncmp(key, HEADER, strlen(HEADER));
	bool is_setting = (is_watch || is_rule) && strchr(key, '.');
	int r;

	if (!known && !is_header && !is_setting) {
		unknown_key(reader, key);
		return 0;
	}
	r = note_place(reader, key);
	if (r)
		return r == -EEXIST ? 0 : r;
	if (is_header)
		return set_header(reader, key + strlen(HEADER), value);
	if (is_watch && is_setting)
		return set_detector(reader, key, value, &reader->config->settings);
	if (is_setting)
		return set_detector(reader, key, value, &rule_named(reader->config, reader->name)->settings);
	return set_key(reader, known, value);
}

static int read_line(struct reader *reader, char *text) {
	struct config_line line;

	switch (config_line_cut(text, &line)) {
	case CONFIG_EMPTY: return 0;
	case CONFIG_SECTION: return read_section(reader, line.section, line.name);
	case CONFIG_BAD: fault(reader, "%s", line.reason); return 0;
	case CONFIG_ENTRY: break;
	}
	if (reader->section)
		return read_entry(reader, line.key, line.value);
	if (!reader->passing)
		fault(reader, "%s stands in no section", line.key);
	return 0;
}

/* Files */

static int read_text(struct reader *reader, char *text, size_t len) {
	int r = 0;

	leave_section(reader, false);
	reader->line = 0;
	for (char *line = text, *end; !r && line < text + len && reader->faults_n <= FAULTS_MAX; line = end + 1) {
		end = memchr(line, '\n', (size_t)(text + len - line));
		if (!end)
			end = text + len;
		*end = '\0';
		reader->line++;
		if (strlen(line) != (size_t)(end - line))
			fault(reader, "a NUL byte");
		else if (end - line > CONFIG_LINE_MAX)
			fault(reader, "a line of more than %d bytes", CONFIG_LINE_MAX);
		else
			r = read_line(reader, line);
	}
	reader->line = 0;
	return r;
}

static void say_unreadable(struct reader *reader, int error) {
	if (error == EACCES)
		fault(reader,
			"cannot be read by uid %u: Permission denied; the service does not run as root: chgrp pyspyd "
			"FILE, chmod 640 FILE",
			(unsigned)geteuid());
	else
		fault(reader, "cannot be read: %s", strerror(error));
}

static int read_file(struct reader *reader, const char *file, bool may_be_absent) {
	char *text = malloc(CONFIG_FILE_MAX + 2);
	FILE *in = fopen(file, "re");
	int error = errno, r = 0;
	size_t len;

	reader->file = file;
	if (!text) {
		r = -ENOMEM;
	} else if (!in) {
		if (error != ENOENT || !may_be_absent)
			say_unreadable(reader, error);
	} else {
		errno = 0;
		len = fread(text, 1, CONFIG_FILE_MAX + 1, in);
		if (ferror(in))
			say_unreadable(reader, errno);
		else if (len > CONFIG_FILE_MAX)
			fault(reader, "is larger than 1 MiB");
		else
			r = read_text(reader, text, len);
	}
	if (in)
		fclose(in);
	free(text);
	return r;
}

static int is_drop_in(const struct dirent *entry) {
	size_t n = strlen(entry->d_name);

	return entry->d_name[0] != '.' && n > 5 && !strcmp(entry->d_name + n - 5, ".conf");
}

/* By bytes: the order must not depend on a locale. */
static int by_name(const struct dirent **a, const struct dirent **b) {
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int read_named(struct reader *reader, const char *folder, const char *name) {
	char *file;
	int r;

	if (asprintf(&file, "%s/%s", folder, name) < 0)
		return -ENOMEM;
	r = read_file(reader, file, false);
	reader->file = folder;
	free(file);
	return r;
}

static int read_drop_ins(struct reader *reader, const char *folder) {
	struct dirent **entries = NULL;
	int n = scandir(folder, &entries, is_drop_in, by_name), r = 0;

	reader->file = folder;
	if (n < 0 && errno != ENOENT)
		say_unreadable(reader, errno);
	if (n > DROP_INS_MAX)
		fault(reader, "more than %d files", DROP_INS_MAX);
	for (int i = 0; i < n; i++) {
		if (!r && n <= DROP_INS_MAX)
			r = read_named(reader, folder, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	return r;
}

/* What comes of the lines together */

static void say_together(void *userdata, const char *section, const char *name, const char *reason) {
	struct reader *reader = userdata;
	struct place *place = NULL;
	char *what, *text;

	if (asprintf(&what, "%s\n\n%s", section, name) >= 0) {
		place = place_find(reader, what);
		free(what);
	}
	if (asprintf(&text, "[%s] %s %s", section, name, reason) < 0) {
		reader->r = -ENOMEM;
		return;
	}
	fault_at(reader, place ? place->file : reader->file, place ? place->line : 0, text);
	free(text);
}

static struct place *place_in_rule(const struct reader *reader, const char *rule, const char *key) {
	struct place *place;
	char *what;

	if (asprintf(&what, "rule\n%s\n%s", rule, key) < 0)
		return NULL;
	place = place_find(reader, what);
	free(what);
	return place;
}

/* One whose value is wrong was said to be, which is enough. */
static void check_conditions(struct reader *reader, const struct config_rule *rule) {
	static const char *const conditions[] = { "match-cmdline", "match-unit", "match-user", "match-container" };
	struct place *place;

	for (size_t i = 0; i < sizeof(conditions) / sizeof(conditions[0]); i++)
		if (place_in_rule(reader, rule->name, conditions[i]))
			return;
	place = place_in_rule(reader, rule->name, "");
	fault_at(reader, place ? place->file : reader->file, place ? place->line : 0,
		"a rule without match-cmdline, match-unit, match-user or match-container; match-cmdline = . is every "
		"process");
}

static int finish(struct reader *reader) {
	struct config *config = reader->config;
	int r = 0;

	for (size_t i = 0; i < config->rules_n; i++)
		check_conditions(reader, &config->rules[i]);
	config_check_together(config, say_together, reader);
	for (size_t i = 0; !r && i < config->rules_n; i++)
		r = rule_compile(&config->rules[i]);
	if (r || reader->r)
		return -ENOMEM;
	return reader->faults_n ? -EINVAL : 0;
}

/* Return: a configuration of defaults; NULL: out of memory. */
static struct config *defaults(void) {
	struct config *config = calloc(1, sizeof(*config));
	bool ok = config;

	for (size_t i = 0; ok && i < config_keys_n; i++)
		if (config_keys[i].initial && strcmp(config_keys[i].section, "rule") != 0)
			ok = !config_key_set(&config_keys[i], config, config_keys[i].initial, NULL);
	if (ok) {
		config->settings = calloc(1, sizeof(*config->settings));
		config->otlp.headers = calloc(1, sizeof(*config->otlp.headers));
		ok = config->settings && config->otlp.headers;
	}
	for (const char *const *setting = config_initial_settings; ok && *setting; setting++)
		ok = !config_array_add(&config->settings, *setting);
	if (ok)
		return config;
	config_free(config);
	return NULL;
}

static int read_all(struct reader *reader, const char *file) {
	const char *main_file = file ? file : CONFIG_FILE;
	char *folder;
	int r;

	if (asprintf(&folder, "%s.d", main_file) < 0)
		return -ENOMEM;
	r = read_file(reader, main_file, !file);
	if (!r)
		r = read_drop_ins(reader, folder);
	reader->file = main_file;
	if (!r)
		r = finish(reader);
	free(folder);
	return r;
}

int config_read(const char *file, FILE *faults, struct config **ret_config) {
	struct reader reader = { .faults = faults, .config = defaults() };
	int r = reader.config ? read_all(&reader, file) : -ENOMEM;

	leave_section(&reader, false);
	places_free(&reader);
	if (r)
		config_free(reader.config);
	else
		*ret_config = reader.config;
	return r;
}

void config_free(struct config *config) {
	if (!config)
		return;
	for (size_t i = 0; i < config->rules_n; i++)
		rule_deinit(&config->rules[i]);
	free(config->rules);
	config_array_free(config->settings);
	config_array_free(config->park);
	config_array_free(config->otlp.headers);
	free(config->store_path);
	free(config->syslog.address);
	free(config->file_path);
	free(config->otlp.url);
	free(config->metrics_listen);
	free(config->crash.folder);
	free(config->crash.cores);
	free(config->crash.forward);
	free(config->socket_path);
	free(config->socket_group);
	free(config);
}

/* Which rule is for whom */

/* The words with spaces between, as far as they fit. */
static void join(char *const *words, char *out, size_t size) {
	size_t n = 0;

	*out = '\0';
	for (; words && *words && n + 1 < size; words++) {
		size_t len = strnlen(*words, size - n - 2);

		if (n)
			out[n++] = ' ';
		memcpy(out + n, *words, len);
		n += len;
		out[n] = '\0';
	}
}

static bool cmdline_holds(const struct config_rule *rule, const char *cmdline) {
	return !rule->match_cmdline || (rule->cmdline_regex && !regexec(rule->cmdline_regex, cmdline, 0, NULL, 0));
}

static bool glob_holds(const char *glob, const char *text) {
	return !glob || (text && !fnmatch(glob, text, 0));
}

static bool user_holds(const char *match, uid_t uid, const char *user) {
	char number[16];

	if (!match || (user && !strcmp(match, user)))
		return true;
	snprintf(number, sizeof(number), "%u", (unsigned)uid);
	return !strcmp(match, number);
}

const struct config_rule *config_rule_for(
	const struct config *config, const struct pyspyd_process *process, const char *user) {
	char cmdline[CMDLINE_MAX];

	if (!config->rules_n)
		return NULL;
	join(process->cmdline, cmdline, sizeof(cmdline));
	for (size_t i = 0; i < config->rules_n; i++) {
		const struct config_rule *rule = &config->rules[i];

		if (glob_holds(rule->match_unit, process->unit) &&
			glob_holds(rule->match_container, process->container) &&
			user_holds(rule->match_user, process->uid, user) && cmdline_holds(rule, cmdline))
			return rule;
	}
	return NULL;
}
