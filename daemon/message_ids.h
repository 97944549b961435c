/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_MESSAGE_IDS_H
#define PYSPYD_DAEMON_MESSAGE_IDS_H

#include <stddef.h>

/* MESSAGE_ID of the journal, one for each kind of finding. They never change: systemd/pyspyd.catalog explains them, and
 * people search and alert by them. */

struct message_id {
	const char *kind;
	const char *id; /* 128 bits in hex */
};

#define MESSAGE_ID_NOTE "note"   /* the line of a sink about itself */
#define MESSAGE_ID_OTHER "other" /* a kind that has none */

const struct message_id *message_ids(size_t *ret_n);
const char *message_id_of(const char *kind);

#endif
