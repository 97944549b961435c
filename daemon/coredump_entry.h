/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_COREDUMP_ENTRY_H
#define PYSPYD_DAEMON_COREDUMP_ENTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What systemd-coredump writes into the journal about one core (man 8 systemd-coredump). Pure. */

#define COREDUMP_MESSAGE_ID "fc2e22bc6ee647b6b90729ab34a250b1"
#define COREDUMP_FOLDER "/var/lib/systemd/coredump" /* fixed when systemd is built */
#define COREDUMP_TEXT_MAX 4096                      /* bytes of a field */

struct coredump_entry {
	pid_t pid; /* in the first PID namespace */
	uid_t uid;
	gid_t gid;
	int signal;
	uint64_t time_real_ns; /* the process died */
	char *exe, *comm, *cmdline, *unit, *cgroup;
	char *file; /* where the core is; NULL: nowhere, or not where we look */
	bool truncated;

	uint64_t found; /* fields, a bit each */
	uid_t sender;   /* as the journal says, whatever the entry says … */
	bool by_unit;   /* … and whether it was systemd-coredump's unit */
};

/* The names of its fields, from 0 on; NULL: there are no more. */
const char *coredump_entry_field(size_t i);

/* A field as the journal has it: "NAME=value", no NUL at its end, any bytes. Unknown ones are passed over. Return: 0;
 * -ENOMEM; -EINVAL: the value is none of its kind. */
int coredump_entry_set(struct coredump_entry *entry, const char *field, size_t n);
void coredump_entry_deinit(struct coredump_entry *entry);

/* Whether all that must be there is, and the journal itself vouches for who wrote it: root, or systemd-coredump's unit
 * (which runs with the rights of the process's user by then, so that what that user could also have written is not
 * asked: the name and the executable of the sender). */
bool coredump_entry_is_trusted(const struct coredump_entry *entry);

/* Whether its executable, or the first word of its command line, is called as a Python is. */
bool coredump_entry_names_python(const struct coredump_entry *entry);

/* Whether a file is called as systemd-coredump calls the core of this process: core.COMM.UID.BOOT.PID.TIME[.PACKED]. */
bool coredump_entry_owns(const struct coredump_entry *entry, const char *path);

/* The file as a word of a shell's command line. Return: whether it fits. */
bool coredump_quote(const char *path, char *ret, size_t size);

#endif
