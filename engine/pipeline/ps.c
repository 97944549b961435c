/* SPDX-License-Identifier: MIT */
/* pyspyd_ps: every process is opened, those that are Python or look like it become rows. */
#include "pyspyd/ps.h"

#include "engine/base/clock.h"
#include "engine/cpython/runtime.h"
#include "engine/pipeline/describe.h"
#include "engine/proc/access.h"
#include <pwd.h>
#include <string.h>

typedef VEC(struct pyspyd_ps_row) row_vec;

/* One line without the remedy that follows on further lines. */
static char *first_line(const char *text) {
	return strndup(text, strcspn(text, "\n"));
}

static bool looks_like_python(const struct pyspyd_process *process) {
	const char *slash = strrchr(process->exe, '/');

	return strstr(slash ? slash + 1 : process->exe, "python") || strstr(process->name, "python") ||
		strstr(process->exe, "pypy");
}

/* Return: 0 with the version, PYSPYD_E_* with why not. */
static int try_attach(const struct proc *proc, struct py_runtime *rt, struct err *err) {
	enum access_layer layer;
	struct mem *mem;
	int r = access_check(proc, &layer, err);

	if (r)
		return r;
	r = mem_live_new(proc->pid, &mem);
	if (r)
		return r;
	r = py_runtime_attach(proc, mem, rt, err);
	mem_free(mem);
	return r;
}

static char *user_name(uid_t uid) {
	struct passwd entry, *found = NULL;
	char buf[4096], number[16];

	if (!getpwuid_r(uid, &entry, buf, sizeof(buf), &found) && found)
		return strdup(found->pw_name);
	snprintf(number, sizeof(number), "%u", uid);
	return strdup(number);
}

static void fill_counters(const struct proc *proc, struct pyspyd_ps_row *row) {
	struct proc_counters counters;
	uint64_t age = clock_real_ns() - row->process.start_real_ns;

	row->rss_bytes = row->threads = row->fds = row->findings_open = UINT64_MAX;
	if (proc_counters_read(proc, false, &counters))
		return;
	row->rss_bytes = counters.rss_bytes;
	row->threads = counters.threads;
	row->fds = counters.fds;
	if (age && counters.user_ns != PROC_UNKNOWN && counters.system_ns != PROC_UNKNOWN)
		row->cpu_percent = 100.0 * (double)(counters.user_ns + counters.system_ns) / (double)age;
}

static void free_row(struct pyspyd_ps_row *row) {
	pyspyd_process_deinit(&row->process);
	free(row->user);
	free(row->why_not);
}

static int add_row(row_vec *rows, const struct proc *proc) {
	struct pyspyd_ps_row row = { 0 };
	struct py_runtime rt = { 0 };
	struct err err = { 0 };
	int attached = try_attach(proc, &rt, &err), r;

	if (attached == PYSPYD_E_GONE || attached < 0)
		return 0;
	r = describe_process(proc, attached ? "" : rt.version, &row.process);
	if (r)
		return r == PYSPYD_E_GONE ? 0 : r;
	if (attached && !looks_like_python(&row.process)) {
		free_row(&row);
		return 0;
	}
	fill_counters(proc, &row);
	row.attachable = !attached;
	row.user = user_name(row.process.uid);
	row.why_not = first_line(attached ? err.text : "");
	r = row.user && row.why_not ? vec_push(rows, row) : -ENOMEM;
	if (r)
		free_row(&row);
	return r;
}

int pyspyd_ps(struct pyspyd_ps_row **ret_rows, size_t *ret_n, struct err *err) {
	pid_vec pids = { 0 };
	row_vec rows = { 0 };
	int r = proc_list("/proc", &pids);

	for (size_t i = 0; !r && i < pids.n; i++) {
		struct proc proc;

		if (pids.items[i] == getpid() || proc_open("/proc", pids.items[i], &proc))
			continue;
		r = add_row(&rows, &proc);
		proc_close(&proc);
	}
	vec_free(&pids);
	if (r) {
		pyspyd_ps_free(rows.items, rows.n);
		return err_set(err, r, "listing processes: %s", strerror(-r));
	}
	*ret_rows = rows.items;
	*ret_n = rows.n;
	return 0;
}
