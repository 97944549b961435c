/* SPDX-License-Identifier: MIT */
/* One copy of each rule of all tables. A few thousand serve a whole host: what differs between functions is the size of
 * their frames. */
#include "engine/native/cfi.h"

/* Files may be made so that their rules collide. */
#define PROBES_MAX 64

int unwind_rules_init(struct unwind_rules *rules) {
	*rules = (struct unwind_rules){ 0 };
	return vec_push(&rules->items, (struct unwind_rule){ .cfa = UNWIND_CFA_NONE });
}

void unwind_rules_deinit(struct unwind_rules *rules) {
	vec_free(&rules->items);
	map_deinit(&rules->by_hash);
}

static int add_new(struct unwind_rules *rules, const struct unwind_rule *rule, uint64_t key, uint16_t *ret_index) {
	int r = vec_push(&rules->items, *rule);

	if (r)
		return r;
	r = map_put(&rules->by_hash, key, rules->items.n - 1);
	if (r) {
		rules->items.n--;
		return r;
	}
	*ret_index = (uint16_t)(rules->items.n - 1);
	return 0;
}

int unwind_rules_add(struct unwind_rules *rules, const struct unwind_rule *rule, uint16_t *ret_index) {
	uint64_t hash = hash_bytes(rule, sizeof(*rule), 0) >> 1;

	if (rule->cfa == UNWIND_CFA_NONE) {
		*ret_index = UNWIND_RULE_NONE;
		return 0;
	}
	for (uint64_t i = 0; i < PROBES_MAX; i++) {
		uint64_t at;

		if (!map_get(&rules->by_hash, hash + i, &at)) {
			if (rules->items.n == UNWIND_RULES_MAX)
				break;
			return add_new(rules, rule, hash + i, ret_index);
		}
		if (!memcmp(&rules->items.items[at], rule, sizeof(*rule))) {
			*ret_index = (uint16_t)at;
			return 0;
		}
	}
	rules->lost++;
	*ret_index = UNWIND_RULE_NONE;
	return 0;
}
