/* SPDX-License-Identifier: MIT */
/* An entry of systemd-coredump, field by field, from a table.
 *
 * Fields whose names begin with "_" are the journal's own account of the sender. The others are systemd-coredump's
 * word; what the process was called comes from its user, and may be anything. A sample:
 *
 *	_UID=1000
 *	_SYSTEMD_UNIT=systemd-coredump@3-4711-0.service
 *	COREDUMP_PID=4711
 *	COREDUMP_TIMESTAMP=1700000000000000
 *	COREDUMP_FILENAME=/var/lib/systemd/coredump/core.python3.1000.0123456789abcdef0123456789abcdef.4711.1700000000000000.zst
 */
#include "daemon/coredump_entry.h"

#include "pyspyd/parse.h"
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BOOT_ID_CHARS 32

enum kind { PID, ID, SIGNAL, TIME_US, TEXT, PATH, FLAG, UNIT };

static const struct {
	const char *name;
	enum kind kind;
	size_t offset;
	bool needed;
} fields[] = {
	{ "COREDUMP_PID", PID, offsetof(struct coredump_entry, pid), true },
	{ "COREDUMP_UID", ID, offsetof(struct coredump_entry, uid), true },
	{ "COREDUMP_GID", ID, offsetof(struct coredump_entry, gid), true },
	{ "COREDUMP_SIGNAL", SIGNAL, offsetof(struct coredump_entry, signal), true },
	{ "COREDUMP_TIMESTAMP", TIME_US, offsetof(struct coredump_entry, time_real_ns), true },
	{ "COREDUMP_EXE", TEXT, offsetof(struct coredump_entry, exe), false },
	{ "COREDUMP_COMM", TEXT, offsetof(struct coredump_entry, comm), false },
	{ "COREDUMP_CMDLINE", TEXT, offsetof(struct coredump_entry, cmdline), false },
	{ "COREDUMP_UNIT", TEXT, offsetof(struct coredump_entry, unit), false },
	{ "COREDUMP_CGROUP", TEXT, offsetof(struct coredump_entry, cgroup), false },
	{ "COREDUMP_FILENAME", PATH, offsetof(struct coredump_entry, file), false },
	{ "COREDUMP_TRUNCATED", FLAG, offsetof(struct coredump_entry, truncated), false },
	{ "_UID", ID, offsetof(struct coredump_entry, sender), true },
	{ "_SYSTEMD_UNIT", UNIT, offsetof(struct coredump_entry, by_unit), false },
};

#define FIELDS_N (sizeof(fields) / sizeof(fields[0]))

const char *coredump_entry_field(size_t i) {
	return i < FIELDS_N ? fields[i].name : NULL;
}

static bool is_coredumps_unit(const char *unit) {
	static const char prefix[] = "systemd-coredump@", suffix[] = ".service";
	size_t n = strlen(unit);

	return n >= sizeof(prefix) + sizeof(suffix) - 2 && !strncmp(unit, prefix, sizeof(prefix) - 1) &&
		!strcmp(unit + n - sizeof(suffix) + 1, suffix);
}

static int set_number(enum kind kind, void *at, const char *text) {
	static const uint64_t most[] = {
		[PID] = INT32_MAX, [ID] = UINT32_MAX, [SIGNAL] = 64, [TIME_US] = UINT64_MAX / 1000
	};
	uint64_t value;

	if (parse_u64(text, &value) || value > most[kind] || (kind == PID && !value))
		return -EINVAL;
	switch (kind) {
	case PID: *(pid_t *)at = (pid_t)value; break;
	case ID: *(uid_t *)at = (uid_t)value; break;
	case SIGNAL: *(int *)at = (int)value; break;
	default: *(uint64_t *)at = value * 1000;
	}
	return 0;
}

_Static_assert(sizeof(uid_t) == sizeof(gid_t), "one kind of field for both");

static int set_text(char **at, char *text) {
	free(*at);
	*at = strdup(text);
	return *at ? 0 : -ENOMEM;
}

static int set_value(enum kind kind, void *at, char *text) {
	switch (kind) {
	case TEXT: return set_text(at, text);
	case PATH: return *text == '/' ? set_text(at, text) : -EINVAL;
	case FLAG: *(bool *)at = !strcmp(text, "1") || !strcmp(text, "yes"); return 0;
	case UNIT: *(bool *)at = is_coredumps_unit(text); return 0;
	default: return set_number(kind, at, text);
	}
}

int coredump_entry_set(struct coredump_entry *entry, const char *field, size_t n) {
	const char *equals = memchr(field, '=', n);
	size_t name_n, i = 0;
	char *value;
	int r;

	if (!equals)
		return 0;
	name_n = (size_t)(equals - field);
	while (i < FIELDS_N && (strlen(fields[i].name) != name_n || memcmp(fields[i].name, field, name_n) != 0))
		i++;
	if (i == FIELDS_N || entry->found >> i & 1)
		return 0;
	n -= name_n + 1;
	if (n > COREDUMP_TEXT_MAX || memchr(equals + 1, '\0', n)) {
		if (fields[i].kind != TEXT)
			return -EINVAL;
		n = strnlen(equals + 1, n < COREDUMP_TEXT_MAX ? n : COREDUMP_TEXT_MAX);
	}
	value = strndup(equals + 1, n);
	r = value ? set_value(fields[i].kind, (char *)entry + fields[i].offset, value) : -ENOMEM;
	free(value);
	if (!r)
		entry->found |= 1ULL << i;
	return r;
}

void coredump_entry_deinit(struct coredump_entry *entry) {
	free(entry->exe);
	free(entry->comm);
	free(entry->cmdline);
	free(entry->unit);
	free(entry->cgroup);
	free(entry->file);
	*entry = (struct coredump_entry){ 0 };
}

bool coredump_entry_is_trusted(const struct coredump_entry *entry) {
	for (size_t i = 0; i < FIELDS_N; i++)
		if (fields[i].needed && !(entry->found >> i & 1))
			return false;
	return !entry->sender || entry->by_unit;
}

/* "/usr/bin/python3.11", "python3-dbg -c pass" */
static bool is_python(const char *text) {
	size_t n = text ? strcspn(text, " ") : 0;
	const char *name = text;

	for (size_t i = 0; i < n; i++)
		if (text[i] == '/')
			name = text + i + 1;
	return n && !strncmp(name, "python", strlen("python"));
}

bool coredump_entry_names_python(const struct coredump_entry *entry) {
	return is_python(entry->exe) || is_python(entry->cmdline);
}

/* The word before `end`, behind a dot. Return: its start; NULL: there is none. */
static const char *word_before(const char *start, const char *end) {
	const char *at = end;

	while (at > start && at[-1] != '.')
		at--;
	return at > start && at < end ? at : NULL;
}

static bool is_digits(const char *at, const char *end) {
	while (at < end && isdigit((unsigned char)*at))
		at++;
	return at == end;
}

static bool is_number(const char *at, const char *end, uint64_t number) {
	char text[24];
	size_t n = (size_t)snprintf(text, sizeof(text), "%llu", (unsigned long long)number);

	return (size_t)(end - at) == n && !memcmp(at, text, n);
}

bool coredump_entry_owns(const struct coredump_entry *entry, const char *path) {
	static const char prefix[] = COREDUMP_FOLDER "/core.";
	const char *name = path + sizeof(prefix) - 1, *end, *time, *pid = NULL, *boot = NULL, *uid = NULL;

	if (strncmp(path, prefix, sizeof(prefix) - 1) != 0 || strchr(name, '/'))
		return false;
	end = name + strlen(name);
	time = word_before(name, end);
	if (time && !is_digits(time, end)) { /* ".zst" */
		end = time - 1;
		time = word_before(name, end);
	}
	if (time && is_digits(time, end))
		pid = word_before(name, time - 1);
	if (pid && is_number(pid, time - 1, (uint64_t)entry->pid))
		boot = word_before(name, pid - 1);
	if (boot && pid - 1 - boot == BOOT_ID_CHARS)
		uid = word_before(name, boot - 1);
	return uid && is_number(uid, boot - 1, entry->uid);
}

bool coredump_quote(const char *path, char *ret, size_t size) {
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@,";
	const char *quote = path[strspn(path, plain)] ? "'" : "";
	int n;

	for (const char *c = path; *c; c++)
		if (iscntrl((unsigned char)*c) || *c == '\'' || (unsigned char)*c >= 0x7f)
			return false;
	n = snprintf(ret, size, "%s%s%s", quote, path, quote);
	return n >= 0 && (size_t)n < size;
}
