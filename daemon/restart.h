/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_RESTART_H
#define PYSPYD_DAEMON_RESTART_H

#include "pyspyd/store.h"

/* Findings that were open when the service ended are resolved at its next start: what is still there is found again, as
 * a finding of its own. Return: 0; as the store's functions. */
int restart_resolve(struct pyspyd_store *store, uint64_t now_real_ns);

#endif
