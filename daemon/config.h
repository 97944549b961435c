/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_CONFIG_H
#define PYSPYD_DAEMON_CONFIG_H

#include "pyspyd/err.h"
#include "pyspyd/stack.h"
#include <regex.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* /etc/pyspyd/pyspyd.conf and pyspyd.conf.d/NAME.conf in the order of their names: sections of KEY = VALUE. A later
 * file's value of the same key takes the place of an earlier one, in rules of the same name too; other rules add up, in
 * the order in which they are read, and the first that matches counts. Nothing is guessed: an unknown section or key, a
 * bad value, or a key given twice in one section of one file is an error with file and line. */

#define CONFIG_FILE "/etc/pyspyd/pyspyd.conf"

/* A list of strings that ends with NULL; never NULL itself. */
typedef char **string_array;

/* [rule NAME]: all conditions that are given must hold. */
struct config_rule {
	char *name;
	char *match_cmdline;    /* regular expression (POSIX extended) over the words with spaces between; NULL: any */
	regex_t *cmdline_regex; /* the same, compiled */
	char *match_unit;       /* glob, likewise … */
	char *match_user;       /* … name or number … */
	char *match_container;  /* … glob */
	bool exclude;
	bool expect_busy;
	string_array settings; /* "DETECTOR.KEY=VALUE" */
};

struct config_syslog {
	bool enabled;
	enum { SYSLOG_LOCAL, SYSLOG_UDP, SYSLOG_TCP } transport;
	char *address;     /* "/dev/log", or a host */
	unsigned port;     /* 514 */
	unsigned facility; /* of RFC 5424; 3 daemon */
};

struct config_otlp {
	bool enabled;
	char *url;            /* "http://127.0.0.1:4318/v1/logs" */
	string_array headers; /* header.Name = value, as "Name: value" */
	uint64_t timeout_ns;
};

struct config_crash {
	char *folder;                 /* findings of crashes on their way to the service */
	uint64_t max_core;            /* bytes of a core that are read */
	uint64_t deadline_ns;         /* of reading it */
	bool keep;                    /* the cores … */
	char *cores;                  /* … there, … */
	uint64_t max_cores, max_size; /* … so many, and so many bytes of them in all */
	char *forward;                /* program for the cores of others; "": none */
	bool systemd_coredump;        /* the journal is followed for what that has stored */
};

struct config {
	/* [watch] */
	double rate_hz;
	uint64_t interval_ns;
	double cpu_budget_percent;    /* of one core */
	uint64_t memory_budget_bytes; /* of pyspyd itself */
	string_array settings;        /* of detectors, for all processes */
	string_array park;            /* [park] sites = MODULE:QUALNAME … */
	struct config_rule *rules;
	size_t rules_n;

	/* [recorder] */
	bool recorder;
	uint64_t bucket_ns; /* how much time one packed profile is of; 60 s */
	uint64_t profile_age_ns;

	/* [store] */
	char *store_path; /* /var/lib/pyspyd/pyspyd.db */
	uint64_t store_max_bytes, finding_age_ns, counter_age_ns;

	/* [journal] [syslog] [file] [otlp], and what holds for each of them: [sinks] */
	bool journal;
	struct config_syslog syslog;
	bool file;
	char *file_path; /* /var/log/pyspyd/findings.jsonl */
	struct config_otlp otlp;
	double sink_rate; /* events per second and sink, beyond which they are held back; 0: no limit */
	unsigned sink_burst;
	uint64_t sink_queue; /* events that wait for a sink at most, before the oldest are dropped */

	/* [metrics] */
	bool metrics;
	char *metrics_listen;       /* "127.0.0.1:9733", "[::1]:9733", or a socket's path */
	unsigned metrics_processes; /* series of so many processes at most */

	/* [crash] */
	struct config_crash crash;

	/* [socket] */
	char *socket_path;
	char *socket_group; /* who is in it sees all */
};

/* Reads FILE and FILE.d; where `file` is NULL, CONFIG_FILE, which need not be there. Every fault is written to `faults`
 * as a line "FILE:LINE: reason", or "FILE: reason" where a file cannot be read. Return: 0; -EINVAL: there were faults;
 * -ENOMEM. */
int config_read(const char *file, FILE *faults, struct config **ret_config);
void config_free(struct config *config);

/* The first rule that matches a process; NULL: none. `user`: its name, NULL where it has none. */
const struct config_rule *config_rule_for(
	const struct config *config, const struct pyspyd_process *process, const char *user);

#endif
