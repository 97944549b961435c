/* SPDX-License-Identifier: MIT */
/* Who a process is: name, command line, executable, owner, cgroup and start. What may not be read (exe of another
 * user's process) or is not there (a kernel thread's command line) is "", never an error; only a process that has ended
 * is. All strings are the target's choice and come as they are: whoever shows them makes them printable. */
#include "engine/base/clock.h"
#include "engine/proc/cgroup.h"
#include "engine/proc/files.h"

#include <string.h>

#define CMDLINE_ENTRIES 256
#define CMDLINE_ENTRY_MAX 4096
#define CMDLINE_MAX ((size_t)CMDLINE_ENTRIES * CMDLINE_ENTRY_MAX)
#define CGROUP_MAX (64U << 10)
#define DELETED " (deleted)"

/* Return: the number of entries in `cmdline`, or -ENOMEM. A process may overwrite its arguments with one string, so the
 * last entry may lack its NUL. */
static int split_cmdline(const char *data, size_t len, char **cmdline) {
	int n = 0;

	for (size_t pos = 0; pos < len && n < CMDLINE_ENTRIES; n++) {
		size_t entry = strnlen(data + pos, len - pos);

		cmdline[n] = strndup(data + pos, min_of(entry, (size_t)CMDLINE_ENTRY_MAX));
		if (!cmdline[n])
			return -ENOMEM;
		pos += entry + 1;
	}
	return n;
}

static int read_cmdline(const struct proc *proc, struct proc_identity *id) {
	_free_ char *data = NULL;
	size_t len = 0;
	int n, r = proc_read_file(proc, "cmdline", CMDLINE_MAX, &data, &len);

	if (r == PROC_E_GONE || r == -ENOMEM)
		return r;
	id->cmdline = calloc(CMDLINE_ENTRIES + 1, sizeof(*id->cmdline));
	if (!id->cmdline)
		return -ENOMEM;
	n = split_cmdline(data, len, id->cmdline);
	if (n)
		return n < 0 ? n : 0;
	id->cmdline[0] = strdup(id->name);
	return id->cmdline[0] ? 0 : -ENOMEM;
}

static int read_exe(const struct proc *proc, struct proc_identity *id) {
	size_t len, suffix = strlen(DELETED);
	int r = files_read_link(proc->dir_fd, "exe", &id->exe);

	if (r == -ENOMEM)
		return r;
	if (r)
		return (id->exe = strdup("")) ? 0 : -ENOMEM;
	len = strlen(id->exe);
	id->exe_deleted = len > suffix && !strcmp(id->exe + len - suffix, DELETED);
	if (id->exe_deleted)
		id->exe[len - suffix] = '\0';
	return 0;
}

static int read_cgroup(const struct proc *proc, struct proc_identity *id) {
	struct cgroup_names names;
	_free_ char *data = NULL;
	size_t len = 0;
	int r = proc_read_file(proc, "cgroup", CGROUP_MAX, &data, &len);

	if (r == PROC_E_GONE || r == -ENOMEM)
		return r;
	r = cgroup_parse(data ? data : "", len, &names);
	if (r)
		return r;
	id->cgroup = names.path;
	id->container = names.container;
	id->unit = names.unit;
	return 0;
}

/* Whole ticks, so that two calls say the same. */
static uint64_t start_real_ns(uint64_t start_ticks) {
	uint64_t tick_ns = NS_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK);
	uint64_t boot_real_ns = clock_real_ns() - clock_boot_ns();

	return (boot_real_ns + tick_ns / 2) / tick_ns * tick_ns + start_ticks * tick_ns;
}

static int read_identity(const struct proc *proc, struct proc_identity *id) {
	struct proc_status status;
	struct proc_stat stat;
	int r = proc_stat_read(proc, &stat);

	if (r)
		return r;
	r = proc_status_read(proc, &status);
	if (r)
		return r;
	id->uid = status.uid;
	id->start_real_ns = start_real_ns(stat.start_ticks);
	id->name = strdup(stat.comm);
	if (!id->name)
		return -ENOMEM;
	r = read_cmdline(proc, id);
	if (!r)
		r = read_exe(proc, id);
	return r ? r : read_cgroup(proc, id);
}

int proc_identity_read(const struct proc *proc, struct proc_identity *ret_id) {
	struct proc_identity id = { 0 };
	int r = read_identity(proc, &id);

	if (r) {
		proc_identity_free(&id);
		return r;
	}
	*ret_id = id;
	return 0;
}

void proc_identity_free(struct proc_identity *id) {
	for (char **entry = id->cmdline; entry && *entry; entry++)
		free(*entry);
	free(id->cmdline);
	free(id->name);
	free(id->exe);
	free(id->cgroup);
	free(id->container);
	free(id->unit);
	*id = (struct proc_identity){ 0 };
}
