/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_STATUS_H
#define PYSPYD_DAEMON_STATUS_H

#include "daemon/mailbox.h"
#include "daemon/metrics.h"

/* What the service knows of the moment: the last report and health, findings by kind, events that the store has not
 * taken yet, and the store's numbers of processes. The event loop's alone. */

struct status;

int status_new(struct status **ret_status); /* Return: 0; -ENOMEM */
void status_free(struct status *status);

void status_count_finding(struct status *status, const struct pyspyd_finding *finding);
/* Those that an earlier run has left open: they count as open, and not as found by this one. */
void status_count_left_open(struct status *status, const struct pyspyd_event *event);
void status_count_left_ended(struct status *status, const struct pyspyd_event *event);
void status_keep_health(struct status *status, const struct pyspyd_watch_health *health);
void status_keep_report(struct status *status, struct mail *mail); /* takes the processes out of the mail */
void status_keep_privilege(struct status *status, const char *name, bool held); /* in place of what was said of it */
bool status_is_watched(const struct status *status, pid_t pid, uint64_t start_real_ns);

/* Events on their way into the store, in order. While it fails they wait here, up to a bound: the oldest is lost then,
 * and counted. Return: 0; as the store's functions. */
void status_keep_event(struct status *status, const struct pyspyd_event *event);
int status_flush_events(struct status *status, struct pyspyd_store *store);

/* The store's number of a process, asked once. Return: 0; as the store's functions. */
int status_process_number(
	struct status *status, struct pyspyd_store *store, const struct pyspyd_process *process, int64_t *ret_number);

/* The store does not know them any more. */
void status_forget_numbers(struct status *status);

/* Everything but sinks, server and store; good until the next call of any function. */
void status_metrics(struct status *status, struct metrics_input *ret_input);

/* One JSON object; the caller's to free(); NULL when out of memory. */
char *status_text(
	struct status *status, const struct sink_stats *sinks, size_t sinks_n, const struct pyspyd_store_stats *store);

/* What of the configuration is not in force since it was read last: by key, with the reason. Said in the log, in the
 * status, and to the service manager. `key` is static. */
void status_config_read(struct status *status); /* once more: all is in force but for what follows */
void status_config_fails(struct status *status, const char *key, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Says in the log what has changed for the worse since it was called last: the budget, events lost. */
void status_complain(struct status *status);

uint64_t status_monotonic_us(void);

#endif
