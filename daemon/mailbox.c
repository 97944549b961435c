/* SPDX-License-Identifier: MIT */
#include "daemon/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MAIL_MAX 4096
#define BYTES_MAX (64U << 20) /* of profiles and findings that wait */

struct mailbox {
	pthread_mutex_t lock;
	pthread_cond_t room;
	struct mail *first, **last;
	size_t n, bytes;
	int fd;
	bool closed;
	atomic_uint_fast64_t dropped;
};

int mailbox_new(struct mailbox **ret_mailbox, int *ret_fd) {
	struct mailbox *mailbox = calloc(1, sizeof(*mailbox));

	if (!mailbox)
		return -ENOMEM;
	mailbox->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (mailbox->fd < 0) {
		free(mailbox);
		return -errno;
	}
	pthread_mutex_init(&mailbox->lock, NULL);
	pthread_cond_init(&mailbox->room, NULL);
	mailbox->last = &mailbox->first;
	*ret_mailbox = mailbox;
	*ret_fd = mailbox->fd;
	return 0;
}

void mailbox_free(struct mailbox *mailbox) {
	if (!mailbox)
		return;
	for (struct mail *mail = mailbox_take(mailbox), *next; mail; mail = next) {
		next = mail->next;
		mail_free(mail);
	}
	close(mailbox->fd);
	pthread_cond_destroy(&mailbox->room);
	pthread_mutex_destroy(&mailbox->lock);
	free(mailbox);
}

void mail_free(struct mail *mail) {
	if (!mail)
		return;
	pyspyd_finding_free(mail->finding);
	free(mail->json);
	for (size_t i = 0; i < mail->processes_n; i++)
		pyspyd_process_deinit(&mail->processes[i].process);
	free(mail->processes);
	pyspyd_process_deinit(&mail->process);
	free(mail->packed_data);
	free(mail);
}

static size_t bytes_of(const struct mail *mail) {
	return mail->packed.len + (mail->json ? strlen(mail->json) : 0);
}

/* Takes over the mail, also where it fails. */
static int put(struct mailbox *mailbox, struct mail *mail, bool wait) {
	static const uint64_t one = 1;
	size_t bytes = bytes_of(mail);
	bool full;

	pthread_mutex_lock(&mailbox->lock);
	while (wait && !mailbox->closed && mailbox->n >= MAIL_MAX)
		pthread_cond_wait(&mailbox->room, &mailbox->lock);
	full = mailbox->n >= MAIL_MAX || mailbox->bytes + bytes > BYTES_MAX;
	if (mailbox->closed || (full && !wait)) {
		bool closed = mailbox->closed;

		pthread_mutex_unlock(&mailbox->lock);
		mail_free(mail);
		atomic_fetch_add(&mailbox->dropped, 1);
		return closed ? -ECANCELED : 0;
	}
	*mailbox->last = mail;
	mailbox->last = &mail->next;
	mailbox->n++;
	mailbox->bytes += bytes;
	pthread_mutex_unlock(&mailbox->lock);
	(void)!write(mailbox->fd, &one, sizeof(one));
	return 0;
}

static struct mail *mail_new(enum mail_kind kind) {
	struct mail *mail = calloc(1, sizeof(*mail));

	if (mail)
		mail->kind = kind;
	return mail;
}

static char *copy_text(const char *text, bool *ok) {
	char *copy = text ? strdup(text) : NULL;

	*ok &= copy || !text;
	return copy;
}

/* What was copied is to be freed also where it fails. */
static bool copy_process(const struct pyspyd_process *from, struct pyspyd_process *to) {
	bool ok = true;
	size_t n = 0;

	*to = (struct pyspyd_process){ .pid = from->pid, .start_real_ns = from->start_real_ns, .uid = from->uid };
	to->name = copy_text(from->name, &ok);
	to->exe = copy_text(from->exe, &ok);
	to->python = copy_text(from->python, &ok);
	to->cgroup = copy_text(from->cgroup, &ok);
	to->container = copy_text(from->container, &ok);
	to->unit = copy_text(from->unit, &ok);
	while (from->cmdline && from->cmdline[n])
		n++;
	to->cmdline = calloc(n + 1, sizeof(*to->cmdline));
	ok &= to->cmdline != NULL;
	for (size_t i = 0; ok && i < n; i++)
		to->cmdline[i] = copy_text(from->cmdline[i], &ok);
	return ok;
}

int mailbox_put_finding(struct mailbox *mailbox, const struct pyspyd_finding *finding) {
	struct mail *mail = mail_new(MAIL_FINDING);
	struct pyspyd_finding *copy = calloc(1, sizeof(*copy));
	bool ok = mail && copy;

	if (copy) {
		memcpy(copy->id, finding->id, sizeof(copy->id));
		memcpy(copy->fingerprint, finding->fingerprint, sizeof(copy->fingerprint));
		copy->severity = finding->severity;
		copy->state = finding->state;
		copy->time_real_ns = finding->time_real_ns;
		copy->kind = copy_text(finding->kind, &ok);
		ok = copy_process(&finding->process, &copy->process) && ok;
	}
	if (mail) {
		mail->finding = copy;
		mail->json = pyspyd_finding_json(finding);
		ok &= mail->json != NULL;
	} else {
		pyspyd_finding_free(copy);
	}
	if (!ok) {
		mail_free(mail);
		return -ENOMEM;
	}
	return put(mailbox, mail, true);
}

int mailbox_put_left_ended(struct mailbox *mailbox, const struct pyspyd_left_open *left, const char *ended) {
	struct mail *mail = mail_new(MAIL_LEFT_ENDED);

	if (!mail)
		return -ENOMEM;
	snprintf(mail->id, sizeof(mail->id), "%s", left->id);
	mail->ended = ended;
	return put(mailbox, mail, true);
}

int mailbox_put_report(struct mailbox *mailbox, const struct pyspyd_watch_process *processes, size_t n) {
	struct mail *mail = mail_new(MAIL_REPORT);
	bool ok = mail;

	if (mail)
		mail->processes = calloc(n + 1, sizeof(*mail->processes));
	ok = ok && mail->processes;
	for (size_t i = 0; ok && i < n; i++) {
		mail->processes[i] = processes[i];
		mail->processes[i].threads = NULL;
		mail->processes[i].threads_n = 0;
		mail->processes_n = i + 1;
		ok = copy_process(&processes[i].process, &mail->processes[i].process);
	}
	if (!ok) {
		mail_free(mail);
		return -ENOMEM;
	}
	return put(mailbox, mail, false);
}

int mailbox_put_health(struct mailbox *mailbox, const struct pyspyd_watch_health *health) {
	struct mail *mail = mail_new(MAIL_HEALTH);

	if (!mail)
		return -ENOMEM;
	mail->health = *health;
	return put(mailbox, mail, false);
}

int mailbox_put_profile(
	struct mailbox *mailbox, const struct pyspyd_process *process, const struct pyspyd_packed *packed) {
	struct mail *mail = mail_new(MAIL_PROFILE);
	bool ok = mail && copy_process(process, &mail->process);

	if (ok) {
		mail->packed = *packed;
		mail->packed_data = malloc(packed->len);
		mail->packed.data = mail->packed_data;
		ok = mail->packed_data;
	}
	if (!ok) {
		mail_free(mail);
		return -ENOMEM;
	}
	memcpy(mail->packed_data, packed->data, packed->len);
	return put(mailbox, mail, false);
}

int mailbox_put_end(struct mailbox *mailbox, int result, const struct err *err) {
	struct mail *mail = mail_new(MAIL_ENDED);

	if (!mail)
		return -ENOMEM;
	mail->result = result;
	mail->err = *err;
	return put(mailbox, mail, true);
}

struct mail *mailbox_take(struct mailbox *mailbox) {
	struct mail *mail;
	uint64_t unused;

	(void)!read(mailbox->fd, &unused, sizeof(unused));
	pthread_mutex_lock(&mailbox->lock);
	mail = mailbox->first;
	mailbox->first = NULL;
	mailbox->last = &mailbox->first;
	mailbox->n = mailbox->bytes = 0;
	pthread_cond_broadcast(&mailbox->room);
	pthread_mutex_unlock(&mailbox->lock);
	return mail;
}

void mailbox_close(struct mailbox *mailbox) {
	pthread_mutex_lock(&mailbox->lock);
	mailbox->closed = true;
	pthread_cond_broadcast(&mailbox->room);
	pthread_mutex_unlock(&mailbox->lock);
}

uint64_t mailbox_dropped(const struct mailbox *mailbox) {
	return atomic_load(&mailbox->dropped);
}
