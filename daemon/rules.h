/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_RULES_H
#define PYSPYD_DAEMON_RULES_H

#include "daemon/config.h"
#include "pyspyd/watch.h"

/* Which rule is for which process. One thread's. */

struct rules;

int rules_new(struct rules **ret_rules); /* Return: 0; -ENOMEM */
void rules_free(struct rules *rules);

/* From now on those of this configuration, which must stand until the next one is used. */
void rules_use(struct rules *rules, const struct config *config);

/* Fills what the first rule that matches says; leaves *ret_rule alone where none does. */
void rules_apply(struct rules *rules, const struct pyspyd_process *process, struct pyspyd_watch_rule *ret_rule);

#endif
