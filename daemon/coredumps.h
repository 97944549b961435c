/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_COREDUMPS_H
#define PYSPYD_DAEMON_COREDUMPS_H

#include "daemon/config.h"
#include "daemon/core_reader.h"
#include "daemon/status.h"
#include "pyspyd/store.h"

/* Follows the journal for cores that systemd-coredump has stored. The event loop's alone. */

struct coredumps;

/* From a minute ago on. A journal that cannot be read is an empty one. `reader`: borrowed; NULL: no core is read.
 * Return: 0; negative errno. */
int coredumps_new(struct core_reader *reader, struct coredumps **ret_coredumps);
void coredumps_free(struct coredumps *coredumps);

/* What has come since the last call, up to a bound: those of Python processes into the store, each once the engine and
 * the crash handler have had the time to tell of the same crash; that finding goes on then. To be called every few
 * seconds. Return: how many findings were told of; negative errno: the store takes nothing, they wait. */
int coredumps_take(struct coredumps *coredumps, const struct config_crash *config, struct status *status,
	struct pyspyd_store *store);

#endif
