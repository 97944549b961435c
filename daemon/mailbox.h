/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_MAILBOX_H
#define PYSPYD_DAEMON_MAILBOX_H

#include "pyspyd/watch.h"

/* From the engine's thread to that of the event loop: what was found, counted and recorded, in order. Copies: what the
 * engine hands out stands only during its call. */

enum mail_kind { MAIL_FINDING, MAIL_LEFT_ENDED, MAIL_REPORT, MAIL_HEALTH, MAIL_PROFILE, MAIL_ENDED };

struct mail {
	struct mail *next;
	enum mail_kind kind;
	/* MAIL_FINDING: without threads and evidence, which stand in the JSON */
	struct pyspyd_finding *finding;
	char *json;
	/* MAIL_LEFT_ENDED */
	char id[27];
	const char *ended; /* static */
	/* MAIL_REPORT: without threads */
	struct pyspyd_watch_process *processes;
	size_t processes_n;
	struct pyspyd_watch_health health;
	/* MAIL_PROFILE */
	struct pyspyd_process process;
	struct pyspyd_packed packed;
	void *packed_data;
	/* MAIL_ENDED: the engine's thread is at its end */
	int result;
	struct err err;
};

struct mailbox;

/* ret_fd: becomes readable when there is mail; the mailbox's. Return: 0; negative errno. */
int mailbox_new(struct mailbox **ret_mailbox, int *ret_fd);
void mailbox_free(struct mailbox *mailbox);

/* The engine's side. Findings wait for room, so that none is lost; the rest is dropped where the loop does not keep up.
 * Return: 0; -ENOMEM; -ECANCELED: nobody reads any more. */
int mailbox_put_finding(struct mailbox *mailbox, const struct pyspyd_finding *finding);
int mailbox_put_left_ended(struct mailbox *mailbox, const struct pyspyd_left_open *left, const char *ended);
int mailbox_put_report(struct mailbox *mailbox, const struct pyspyd_watch_process *processes, size_t n);
int mailbox_put_health(struct mailbox *mailbox, const struct pyspyd_watch_health *health);
int mailbox_put_profile(
	struct mailbox *mailbox, const struct pyspyd_process *process, const struct pyspyd_packed *packed);
int mailbox_put_end(struct mailbox *mailbox, int result, const struct err *err);

/* The loop's side: all that is there, oldest first, to mail_free one by one. NULL: nothing. */
struct mail *mailbox_take(struct mailbox *mailbox);
void mail_free(struct mail *mail);

/* Nobody will read any more: who waits is let go. */
void mailbox_close(struct mailbox *mailbox);

uint64_t mailbox_dropped(const struct mailbox *mailbox);

#endif
