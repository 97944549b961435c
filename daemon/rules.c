/* SPDX-License-Identifier: MIT */
#include "daemon/rules.h"

#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct rules {
	const struct config *config;
	uid_t last_uid; /* names are asked for once in a row of processes of one user */
	char *last_user;
	bool has_last;
};

int rules_new(struct rules **ret_rules) {
	*ret_rules = calloc(1, sizeof(**ret_rules));
	return *ret_rules ? 0 : -ENOMEM;
}

void rules_free(struct rules *rules) {
	if (!rules)
		return;
	free(rules->last_user);
	free(rules);
}

void rules_use(struct rules *rules, const struct config *config) {
	rules->config = config;
}

static const char *user_of(struct rules *rules, uid_t uid) {
	struct passwd entry, *found = NULL;
	char buf[4096];

	if (rules->has_last && rules->last_uid == uid)
		return rules->last_user;
	free(rules->last_user);
	rules->last_user = !getpwuid_r(uid, &entry, buf, sizeof(buf), &found) && found ? strdup(found->pw_name) : NULL;
	rules->last_uid = uid;
	rules->has_last = true;
	return rules->last_user;
}

void rules_apply(struct rules *rules, const struct pyspyd_process *process, struct pyspyd_watch_rule *ret_rule) {
	const struct config_rule *rule;

	if (!rules->config->rules_n)
		return;
	rule = config_rule_for(rules->config, process, user_of(rules, process->uid));
	if (!rule)
		return;
	ret_rule->exclude = rule->exclude;
	ret_rule->expect_busy = rule->expect_busy;
	ret_rule->settings = (const char *const *)rule->settings;
}
