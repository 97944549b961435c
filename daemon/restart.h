/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_RESTART_H
#define PYSPYD_DAEMON_RESTART_H

#include "daemon/status.h"
#include "pyspyd/finding.h"
#include "pyspyd/store.h"

/* Findings that were open when the service ended, or was killed. The engine is told of them and goes on with those that
 * it finds again; what it does not find again is resolved. */

struct restart;

/* Reads them out of the store, as far as that goes, and has the status count them. Return: 0; -ENOMEM. */
int restart_new(struct pyspyd_store *store, struct status *status, struct restart **ret_restart);
void restart_free(struct restart *restart);

/* For pyspyd_watch_options; good until restart_free(). */
const struct pyspyd_left_open *restart_left(const struct restart *restart, size_t *ret_n);

/* One is over: its last event becomes its end, and is kept by the status on its way into the store. `ended`: why.
 * Return: 0, also where there is none of that id; as the store's functions. */
int restart_resolve(
	struct pyspyd_store *store, struct status *status, const char *id, const char *ended, uint64_t now_real_ns);

#endif
