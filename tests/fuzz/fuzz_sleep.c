/* SPDX-License-Identifier: MIT */
/* The line of /proc/PID/task/TID/syscall, as it is. What is told agrees with itself. */
#include "engine/proc/sleep.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct proc_sleep *sleep) {
	if (sleep->number < -1 || (sleep->number == -1) != (sleep->call == SLEEP_RUNNING))
		abort();
	if (sleep->timeout_ms < -1 || (sleep->timeout_ms >= 0 && (!sleep->timed || sleep->timeout)))
		abort();
	if (sleep->timeout && !sleep->timed && sleep->call != SLEEP_SLEEP)
		abort();
	if (sleep->is_select && sleep->call != SLEEP_POLL)
		abort();
	if (sleep->call != SLEEP_OTHER && sleep->call != SLEEP_RUNNING && !sleep_call_name(sleep->number))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct proc_sleep sleep;

	if (!proc_sleep_parse((const char *)data, size, &sleep))
		check(&sleep);
	return 0;
}
