/* SPDX-License-Identifier: MIT */
#include "engine/pipeline/ends.h"

#include "engine/base/clock.h"
#include "engine/proc/memory.h"
#include <string.h>
#include <sys/wait.h>

#define ENDS_MAX 4096 /* kept until the watch asks for them, which it does once in each interval */

void ends_init(struct ends *ends) {
	*ends = (struct ends){ 0 };
	ends->oom_known = !memory_oom_kills_read(&ends->oom_kills);
}

void ends_deinit(struct ends *ends) {
	vec_free(&ends->items);
}

struct detect_end ends_of_status(unsigned status) {
	int s = (int)status;

	return (struct detect_end){
		.signal = WIFSIGNALED(s) ? WTERMSIG(s) : 0,
		.code = WIFEXITED(s) ? WEXITSTATUS(s) : -1,
		.core_dumped = WIFSIGNALED(s) && WCOREDUMP(s),
		.parent = -1,
	};
}

static uint64_t ticks_of(uint64_t ns) {
	return ns / (NS_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK));
}

void ends_add(struct ends *ends, const struct pye_event *event) {
	struct end_record record = { .pid = (pid_t)event->pid, .start_ticks = ticks_of(event->start_ns) };
	struct detect_end *end = &record.end;

	*end = ends_of_status(event->status);
	end->parent = (pid_t)event->parent;
	end->sent_known = event->flags & PYE_SENT;
	end->by_kernel = event->flags & PYE_KERNEL;
	end->sender = (pid_t)event->sender;
	end->thread = event->flags & PYE_THREAD ? (pid_t)event->thread : 0;
	end->address_known = event->flags & PYE_ADDRESS;
	end->address = event->address;
	memcpy(end->sender_name, event->sender_name, sizeof(end->sender_name) - 1);
	if (ends->items.n >= ENDS_MAX)
		ends_forget(ends, ends->items.items[0].pid);
	(void)!vec_push(&ends->items, record);
}

/* Of a child of ours: what it left for whoever started it is left there. */
static bool ask_kernel(pid_t pid, struct detect_end *ret_end) {
	siginfo_t info = { 0 };

	if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid != pid)
		return false;
	*ret_end = (struct detect_end){
		.signal = info.si_code == CLD_EXITED ? 0 : info.si_status,
		.code = info.si_code == CLD_EXITED ? info.si_status : -1,
		.core_dumped = info.si_code == CLD_DUMPED,
		.parent = getpid(),
	};
	return true;
}

bool ends_get(const struct ends *ends, pid_t pid, uint64_t start_ticks, struct detect_end *ret_end) {
	vec_foreach (record, &ends->items)
		if (record->pid == pid && record->start_ticks == start_ticks) {
			*ret_end = record->end;
			return true;
		}
	return ask_kernel(pid, ret_end);
}

bool ends_is_child(pid_t pid) {
	siginfo_t info;

	return !waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT);
}

bool ends_oom(struct ends *ends) {
	uint64_t before = ends->oom_kills;

	if (!ends->oom_known || memory_oom_kills_read(&ends->oom_kills))
		return false;
	return ends->oom_kills > before;
}

void ends_forget(struct ends *ends, pid_t pid) {
	size_t kept = 0;

	for (size_t i = 0; i < ends->items.n; i++)
		if (ends->items.items[i].pid != pid)
			ends->items.items[kept++] = ends->items.items[i];
	ends->items.n = kept;
}
