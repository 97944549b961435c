/* SPDX-License-Identifier: MIT */
/* Candidates and faults over looks: see episodes.h. Subjects are few, and looked for one after the other. */
#include "engine/detect/episodes.h"

#define GAP_PERIODS 3

void episodes_deinit(struct episodes *episodes) {
	vec_free(&episodes->items);
}

void episode_restart(struct episode *episode, uint64_t now_ns) {
	if (episode->firing)
		return;
	episode->since_ns = now_ns;
	episode->looks = episode->seen;
}

void episodes_look(struct episodes *episodes, const struct detect_input *input, bool timed) {
	uint64_t since_last = input->now_ns - episodes->look_ns;
	bool gap = input->process->period_ns && since_last / GAP_PERIODS > input->process->period_ns;

	episodes->look_ns = input->now_ns;
	vec_foreach (episode, &episodes->items) {
		episode->seen = false;
		if (timed && gap)
			episode_restart(episode, input->now_ns);
	}
}

static struct episode *find(struct episodes *episodes, uint64_t id) {
	vec_foreach (episode, &episodes->items)
		if (episode->id == id)
			return episode;
	return NULL;
}

int episodes_bad(struct episodes *episodes, uint64_t id, uint64_t now_ns, struct episode **ret_episode) {
	struct episode *episode = find(episodes, id);

	if (!episode) {
		int r;

		if (episodes->items.n >= EPISODES_MAX)
			return EPISODES_E_FULL;
		r = vec_push(&episodes->items,
			(struct episode){ .id = id, .key = ++episodes->last_key, .since_ns = now_ns });
		if (r)
			return r;
		episode = &episodes->items.items[episodes->items.n - 1];
	}
	episode->looks += !episode->seen;
	episode->seen = true;
	episode->bad_ns = now_ns;
	*ret_episode = episode;
	return 0;
}

struct detect_verdict episode_verdict(const struct episode *episode, const struct episode_words *words) {
	return (struct detect_verdict){
		.kind = words->kind,
		.pattern = words->pattern,
		.key = episode->key,
		.presence = DETECT_PRESENT,
		.severity = PYSPYD_WARNING,
		.since_ns = episode->since_ns,
		.knot = UINT32_MAX,
	};
}

static int say_fading(const struct episode *episode, const struct episode_words *words, detect_verdicts *verdicts) {
	struct detect_verdict verdict = episode_verdict(episode, words);

	verdict.fading = true;
	return vec_push(verdicts, verdict);
}

static int say_ended(const struct episode *episode, const struct episode_words *words, const char *ended,
	detect_verdicts *verdicts) {
	struct detect_verdict verdict = episode_verdict(episode, words);

	verdict.presence = DETECT_ABSENT;
	verdict.ended = ended;
	return vec_push(verdicts, verdict);
}

int episodes_settle(struct episodes *episodes, const struct episode_words *words, const struct detect_input *input,
	uint64_t resolve_ns, const char *ended, detect_verdicts *verdicts) {
	for (size_t i = episodes->items.n; i > 0; i--) {
		struct episode *episode = &episodes->items.items[i - 1];
		bool over = !episode->firing || input->now_ns - episode->bad_ns >= resolve_ns;
		int r = 0;

		if (episode->seen)
			continue;
		episode->looks = 0;
		if (episode->firing)
			r = over ? say_ended(episode, words, ended, verdicts) : say_fading(episode, words, verdicts);
		if (r)
			return r;
		if (over)
			*episode = episodes->items.items[--episodes->items.n];
	}
	return 0;
}

int episodes_repeat(struct episodes *episodes, const struct episode_words *words, const struct detect_input *input,
	detect_verdicts *verdicts) {
	int r = 0;

	vec_foreach (episode, &episodes->items) {
		if (r || !episode->firing)
			continue;
		episode->bad_ns = input->now_ns;
		r = say_fading(episode, words, verdicts);
	}
	return r;
}
