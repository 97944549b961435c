/* SPDX-License-Identifier: MIT */
/* What a process holds, for people:
 *
 *   Process 4711: python3 app.py (Python 3.13.1)
 *
 *   Grew in 10.0 s:
 *     +28 descriptor, socket: tcp CLOSE_WAIT to 10.1.2.3:5432 (30 now)
 *
 *   …where things were made: handles_origins_text.c
 *
 *   Descriptors: 53 of 1024 (5 %)
 *     socket        30 (+28)
 *       30 (+28)  tcp CLOSE_WAIT to 10.1.2.3:5432  [7, 8, 9, …]
 *
 * In a kind the first few groups are shown, and how many there are besides; the JSON has them all. */
#include "engine/finding/handles_kinds.h"

#include "engine/base/util.h"
#include "engine/finding/handles_origins_text.h"
#include "engine/finding/stack_text.h"
#include <inttypes.h>
#include <string.h>

#define GROUPS_SHOWN 10  /* of a kind */
#define MAPPINGS_SHOWN 5 /* … of mappings */
#define GREW_SHOWN 20
#define IDS_SHOWN 4
#define MEMBERS_SHOWN 8 /* threads of a group, children of a kind */

size_t handles_kind_at(const struct pyspyd_handles *handles, size_t at, struct handles_kind *ret_kind) {
	const struct pyspyd_handle_group *first = handles->groups + at;
	struct handles_kind kind = { .groups = first };

	if (at >= handles->groups_n)
		return 0;
	kind.what = first->what;
	kind.kind = first->kind;
	for (; at + kind.n < handles->groups_n; kind.n++) {
		const struct pyspyd_handle_group *group = first + kind.n;

		if (group->what != kind.what || strcmp(group->kind, kind.kind))
			break;
		kind.count += group->count;
		kind.bytes += group->bytes;
		kind.grew += group->grew;
		kind.grew_bytes += group->grew_bytes;
	}
	*ret_kind = kind;
	return at + kind.n;
}

/* "512", "10.2K", "1.5G". */
static void add_bytes(struct strbuf *sb, uint64_t bytes) {
	static const char units[] = "KMGTPE";
	double value = (double)bytes / 1024;
	size_t unit = 0;

	if (bytes < 1024) {
		strbuf_addf(sb, "%" PRIu64, bytes);
		return;
	}
	for (; value >= 1023.95 && units[unit + 1]; unit++)
		value /= 1024;
	strbuf_addf(sb, "%.1f%c", value, units[unit]);
}

static void add_signed_bytes(struct strbuf *sb, int64_t bytes) {
	strbuf_adds(sb, bytes < 0 ? "-" : "+");
	add_bytes(sb, bytes < 0 ? -(uint64_t)bytes : (uint64_t)bytes);
}

/* "53 of 1024 (5 %)" */
static void add_share(struct strbuf *sb, uint64_t used, uint64_t limit) {
	strbuf_addf(sb, "%" PRIu64, used);
	if (limit != UINT64_MAX && limit)
		strbuf_addf(sb, " of %" PRIu64 " (%.0f %%)", limit, 100.0 * (double)used / (double)limit);
}

static void add_seconds(struct strbuf *sb, uint64_t ns) {
	double s = (double)ns / 1e9;

	if (ns == UINT64_MAX)
		strbuf_adds(sb, "age unknown");
	else if (s < 60)
		strbuf_addf(sb, "%.1f s", s);
	else if (s < 3600)
		strbuf_addf(sb, "%.1f m", s / 60);
	else
		strbuf_addf(sb, "%.1f h", s / 3600);
}

static void add_state(struct strbuf *sb, char state) {
	strbuf_add_printable(sb, state ? &state : "?", 1);
}

/* "30 (+28), 1.5M (+1.0M)" */
static void add_amount(
	struct strbuf *sb, bool has_bytes, uint64_t count, int64_t grew, uint64_t bytes, int64_t grew_bytes) {
	strbuf_addf(sb, "%" PRIu64, count);
	if (grew)
		strbuf_addf(sb, " (%+" PRId64 ")", grew);
	if (!has_bytes)
		return;
	strbuf_adds(sb, ", ");
	add_bytes(sb, bytes);
	if (grew_bytes) {
		strbuf_adds(sb, " (");
		add_signed_bytes(sb, grew_bytes);
		strbuf_adds(sb, ")");
	}
}

static void add_ids(struct strbuf *sb, const struct pyspyd_handle_group *group) {
	size_t n = min_of(group->ids_n, (size_t)IDS_SHOWN);

	if (!n)
		return;
	strbuf_adds(sb, "  [");
	for (size_t i = 0; i < n; i++)
		strbuf_addf(sb, "%s%d", i ? ", " : "", group->ids[i]);
	strbuf_adds(sb, group->count > n ? ", …]" : "]");
}

static void add_group(struct strbuf *sb, const struct pyspyd_handle_group *group) {
	strbuf_adds(sb, "    ");
	add_amount(
		sb, group->what == PYSPYD_HANDLE_MAPPING, group->count, group->grew, group->bytes, group->grew_bytes);
	if (group->target[0])
		strbuf_adds(sb, "  ");
	text_add(sb, group->target, TEXT_PATH_MAX);
	if (group->what == PYSPYD_HANDLE_DESCRIPTOR)
		add_ids(sb, group);
	strbuf_adds(sb, "\n");
}

static void add_thread(struct strbuf *sb, const struct pyspyd_handle_thread *thread, bool colour) {
	const struct pyspyd_thread *t = &thread->thread;

	strbuf_addf(sb, "      %d (", (int)t->tid);
	text_add(sb, t->name, TEXT_NAME_MAX);
	strbuf_adds(sb, ") ");
	add_state(sb, t->state);
	strbuf_adds(sb, ", ");
	add_seconds(sb, thread->age_ns);
	if (thread->runs < t->frames_n) {
		strbuf_adds(sb, ": in ");
		text_frame(sb, &t->frames[thread->runs], true, colour);
	}
	strbuf_adds(sb, "\n");
}

/* The first of them by their ids, which are those of the group. Both are in ascending order. */
static void add_group_threads(
	struct strbuf *sb, const struct pyspyd_handles *handles, const struct pyspyd_handle_group *group, bool colour) {
	size_t shown = 0;

	for (size_t i = 0, k = 0; i < handles->threads_n && k < group->ids_n && shown < MEMBERS_SHOWN; i++) {
		while (k < group->ids_n && group->ids[k] < handles->threads[i].thread.tid)
			k++;
		if (k == group->ids_n || group->ids[k] != handles->threads[i].thread.tid)
			continue;
		add_thread(sb, &handles->threads[i], colour);
		shown++;
	}
	if (group->count > shown)
		strbuf_addf(sb, "      … and %" PRIu64 " more\n", group->count - shown);
}

static void add_kind_children(
	struct strbuf *sb, const struct pyspyd_handles *handles, const struct handles_kind *kind) {
	bool zombies = !strcmp(kind->kind, "zombie");
	size_t shown = 0;

	for (size_t i = 0; i < handles->children_n && shown < MEMBERS_SHOWN; i++) {
		const struct pyspyd_handle_child *child = &handles->children[i];

		if ((child->state == 'Z') != zombies)
			continue;
		strbuf_addf(sb, "      %d (", (int)child->pid);
		text_add(sb, child->name, TEXT_NAME_MAX);
		strbuf_adds(sb, ") ");
		add_state(sb, child->state);
		strbuf_adds(sb, ", ");
		add_seconds(sb, child->age_ns);
		strbuf_adds(sb, "\n");
		shown++;
	}
	if (kind->count > shown)
		strbuf_addf(sb, "      … and %" PRIu64 " more\n", kind->count - shown);
}

/* How many groups of a kind are shown; none where they say no more than the kind does. */
static size_t groups_shown(const struct handles_kind *kind) {
	if (kind->what != PYSPYD_HANDLE_MAPPING)
		return min_of(kind->n, (size_t)GROUPS_SHOWN);
	if (!strcmp(kind->kind, "kernel") || (kind->n == 1 && !kind->groups[0].target[0]))
		return 0;
	return min_of(kind->n, (size_t)MAPPINGS_SHOWN);
}

static void add_kind(
	struct strbuf *sb, const struct pyspyd_handles *handles, const struct handles_kind *kind, bool colour) {
	size_t shown = groups_shown(kind);

	strbuf_addf(sb, "  %-13s ", kind->kind);
	add_amount(sb, kind->what == PYSPYD_HANDLE_MAPPING, kind->count, kind->grew, kind->bytes, kind->grew_bytes);
	strbuf_adds(sb, "\n");
	for (size_t i = 0; i < shown; i++) {
		add_group(sb, &kind->groups[i]);
		if (kind->what == PYSPYD_HANDLE_THREAD)
			add_group_threads(sb, handles, &kind->groups[i], colour);
	}
	if (kind->what == PYSPYD_HANDLE_CHILD)
		add_kind_children(sb, handles, kind);
	if (shown && kind->n > shown)
		strbuf_addf(sb, "    … and %zu more targets\n", kind->n - shown);
}

static void add_heading(struct strbuf *sb, const char *words, bool colour) {
	strbuf_adds(sb, "\n");
	text_style(sb, colour, TEXT_BOLD);
	strbuf_adds(sb, words);
	text_style(sb, colour, TEXT_PLAIN);
}

static void add_what(
	struct strbuf *sb, const struct pyspyd_handles *handles, enum pyspyd_handle_what what, bool colour) {
	struct handles_kind kind;

	strbuf_adds(sb, "\n");
	for (size_t at = handles_kind_at(handles, 0, &kind); at; at = handles_kind_at(handles, at, &kind))
		if (kind.what == what)
			add_kind(sb, handles, &kind, colour);
}

static size_t count_zombies(const struct pyspyd_handles *handles) {
	size_t n = 0;

	for (size_t i = 0; i < handles->children_n; i++)
		n += handles->children[i].state == 'Z';
	return n;
}

static void add_grown_line(struct strbuf *sb, const struct pyspyd_handle_group *group) {
	static const char *const words[] = {
		[PYSPYD_HANDLE_DESCRIPTOR] = "descriptor",
		[PYSPYD_HANDLE_THREAD] = "thread",
		[PYSPYD_HANDLE_CHILD] = "process",
		[PYSPYD_HANDLE_MAPPING] = "mapping",
	};

	strbuf_adds(sb, "  ");
	if (group->grew || !group->grew_bytes)
		strbuf_addf(sb, "%+" PRId64 " ", group->grew);
	if (group->grew_bytes) {
		add_signed_bytes(sb, group->grew_bytes);
		strbuf_adds(sb, " ");
	}
	strbuf_addf(sb, "%s, %s", words[group->what], group->kind);
	strbuf_adds(sb, group->target[0] ? ": " : "");
	text_add(sb, group->target, TEXT_PATH_MAX);
	strbuf_addf(sb, " (%" PRIu64 " now)\n", group->count);
}

static void add_grown(struct strbuf *sb, const struct pyspyd_handles *handles, bool colour) {
	size_t n = 0;

	for (size_t i = 0; i < handles->groups_n; i++)
		n += handles->groups[i].grew > 0 || handles->groups[i].grew_bytes > 0;
	add_heading(sb, n ? "Grew" : "Nothing grew", colour);
	strbuf_addf(sb, " in %.1f s%s\n", (double)handles->between_ns / 1e9, n ? ":" : "");
	for (size_t i = 0, shown = 0; i < handles->groups_n && shown < GREW_SHOWN; i++) {
		if (handles->groups[i].grew <= 0 && handles->groups[i].grew_bytes <= 0)
			continue;
		add_grown_line(sb, &handles->groups[i]);
		shown++;
	}
	if (n > GREW_SHOWN)
		strbuf_addf(sb, "  … and %zu more\n", n - GREW_SHOWN);
}

static void add_cgroup(struct strbuf *sb, const struct pyspyd_handles *handles, bool colour) {
	const struct pyspyd_handle_cgroup *cgroup = &handles->cgroup;

	if (cgroup->memory_bytes == UINT64_MAX && cgroup->tasks == UINT64_MAX && cgroup->memory_some_pct < 0 &&
		(cgroup->periods == UINT64_MAX || !cgroup->periods))
		return;
	add_heading(sb, "Control group: ", colour);
	text_add(sb, handles->process.cgroup, TEXT_PATH_MAX);
	strbuf_adds(sb, "\n");
	if (cgroup->memory_bytes != UINT64_MAX) {
		strbuf_adds(sb, "  memory        ");
		add_bytes(sb, cgroup->memory_bytes);
		if (cgroup->memory_limit_bytes != UINT64_MAX && cgroup->memory_limit_bytes) {
			strbuf_adds(sb, " of ");
			add_bytes(sb, cgroup->memory_limit_bytes);
			strbuf_addf(sb, " (%.0f %%)",
				100.0 * (double)cgroup->memory_bytes / (double)cgroup->memory_limit_bytes);
		}
		strbuf_adds(sb, "\n");
	}
	if (cgroup->tasks != UINT64_MAX) {
		strbuf_adds(sb, "  tasks         ");
		add_share(sb, cgroup->tasks, cgroup->tasks_limit);
		strbuf_adds(sb, "\n");
	}
	if (cgroup->periods && cgroup->periods != UINT64_MAX && cgroup->throttled_periods != UINT64_MAX) {
		strbuf_adds(sb, "  throttled     ");
		add_share(sb, cgroup->throttled_periods, cgroup->periods);
		strbuf_adds(sb, " periods\n");
	}
	if (cgroup->memory_some_pct >= 0)
		strbuf_addf(sb, "  pressure      some %.2f %%, full %.2f %% of 10 s\n", cgroup->memory_some_pct,
			max_of(cgroup->memory_full_pct, 0.0));
}

static void add_process(struct strbuf *sb, const struct pyspyd_process *process, bool colour) {
	text_style(sb, colour, TEXT_BOLD);
	strbuf_addf(sb, "Process %d: ", (int)process->pid);
	text_command(sb, process);
	text_style(sb, colour, TEXT_PLAIN);
	strbuf_adds(sb, " (Python ");
	text_add(sb, process->python, TEXT_NAME_MAX);
	strbuf_adds(sb, ")\n");
}

char *pyspyd_handles_text(const struct pyspyd_handles *handles, bool colour) {
	size_t zombies = count_zombies(handles);
	struct strbuf sb = { 0 };

	add_process(&sb, &handles->process, colour);
	if (handles->between_ns)
		add_grown(&sb, handles, colour);
	if (handles->origins)
		handles_origins_text(&sb, handles->origins, colour);
	add_heading(&sb, "Descriptors: ", colour);
	add_share(&sb, handles->descriptors, handles->descriptors_limit);
	add_what(&sb, handles, PYSPYD_HANDLE_DESCRIPTOR, colour);
	add_heading(&sb, "Threads: ", colour);
	strbuf_addf(&sb, "%zu", handles->threads_n);
	add_what(&sb, handles, PYSPYD_HANDLE_THREAD, colour);
	add_heading(&sb, "Children: ", colour);
	strbuf_addf(&sb, "%zu", handles->children_n);
	if (zombies)
		strbuf_addf(&sb, ", %zu of them %s", zombies, zombies == 1 ? "a zombie" : "zombies");
	add_what(&sb, handles, PYSPYD_HANDLE_CHILD, colour);
	add_heading(&sb, "Mappings: ", colour);
	strbuf_addf(&sb, "%" PRIu64 ", ", handles->mappings);
	add_bytes(&sb, handles->mapped_bytes);
	add_what(&sb, handles, PYSPYD_HANDLE_MAPPING, colour);
	add_cgroup(&sb, handles, colour);
	if (handles->incomplete)
		strbuf_adds(&sb, "\n… incomplete: a limit was met, or something could not be read\n");
	return strbuf_take(&sb);
}
