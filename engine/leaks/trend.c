/* SPDX-License-Identifier: MIT */
/* Growth without end, told from everything else that goes up.
 *
 * The model: what a program needs now and then comes and goes, so only floors count (the least value of each block);
 * what leaks never comes back, so the floors rise for long, straight, and to values that were never seen. A verdict
 * sees growth when all of these hold for the floors in the window:
 *   - they rise: Mann-Kendall z above KENDALL_MIN, which a series with a memory reaches by chance, too, so …
 *   - … `persist` verdicts in a row must see growth,
 *   - Theil-Sen over the window makes at least `least`; what has come since the first of these verdicts, `least_pct`,
 *   - the second half rises at least HALF_MIN times as fast as the first one: a cache that fills up, and a start-up,
 *     slow down; and both halves take part, which a step does not,
 *   - the last sixth's floor is higher than every one before it that is remembered,
 *   - once two days are known: as much more than at the same hour of the day before. A process that breathes with the
 *     day rises for hours, and no higher than yesterday.
 *
 * A suspect is none any more when half of the growth was given back, or `persist` verdicts in a row saw none.
 *
 * What it cannot tell: a cache that fills at a constant rate for longer than window and persistence, the first
 * day of a daily rhythm, and a Monday after a Sunday. That takes a census. */
#include "engine/leaks/trend.h"

#include "engine/base/util.h"
#include <math.h>

#define NS_PER_HOUR 3600e9
#define HOUR_NS 3600000000000ULL
#define SAMPLES_PER_BLOCK 3
#define KENDALL_MIN 3.0
#define HALF_MIN 0.6  /* second half against first half */
#define PART_MIN 0.3  /* either half against the whole */
#define KNOWN_MIN 0.7 /* of the window's blocks that must have a floor */
#define DAY_HOURS 24

#define RUNWAY_BLOCKS 60 /* of either window */
#define RUNWAY_LONG_TIMES 6
#define RUNWAY_PARTS \
	4 /* of the short window, in each of which it must rise: a job that takes what it needs does not \
	   */
#define RUNWAY_KNOWN_PCT 80 /* of a window, from the first block to the last */
#define RUNWAY_MAX_NS (365 * DAY_HOURS * HOUR_NS)

/* Floors. */

void trend_floors_init(struct trend_floors *floors, uint64_t block_ns) {
	floors->block_ns = max_of(block_ns, (uint64_t)1);
	floors->n = floors->next = 0;
	floors->begun = false;
}

bool trend_floors_add(struct trend_floors *floors, uint64_t now_ns, double value) {
	uint64_t index;

	if (!floors->begun) {
		floors->begun = true;
		floors->start_ns = now_ns;
		floors->current = (struct trend_floor){ 0, value };
		return false;
	}
	index = now_ns > floors->start_ns ? (now_ns - floors->start_ns) / floors->block_ns : 0;
	if (index <= floors->current.index) {
		floors->current.value = fmin(floors->current.value, value);
		return false;
	}
	floors->ring[floors->next] = floors->current;
	floors->next = (floors->next + 1) % TREND_BLOCKS_MAX;
	floors->n = min_of(floors->n + 1, (size_t)TREND_BLOCKS_MAX);
	floors->current = (struct trend_floor){ index, value };
	return true;
}

size_t trend_floors_window(const struct trend_floors *floors, size_t blocks, struct trend_floor *ret_floors) {
	uint64_t first = floors->current.index > blocks ? floors->current.index - blocks : 0;
	size_t n = 0;

	for (size_t i = 0; i < floors->n; i++) {
		size_t at = (floors->next + TREND_BLOCKS_MAX - floors->n + i) % TREND_BLOCKS_MAX;

		if (floors->ring[at].index >= first)
			ret_floors[n++] = floors->ring[at];
	}
	return n;
}

/* Statistics. */

/* The k-th smallest, by Hoare's selection; the order of `v` is lost. */
static double select_kth(double *v, ptrdiff_t n, ptrdiff_t k) {
	ptrdiff_t low = 0, high = n - 1;

	while (low < high) {
		double pivot = v[k];
		ptrdiff_t i = low, j = high;

		while (i <= j) {
			while (v[i] < pivot)
				i++;
			while (v[j] > pivot)
				j--;
			if (i > j)
				break;
			double moved = v[i];
			v[i++] = v[j];
			v[j--] = moved;
		}
		if (j < k)
			low = i;
		if (k < i)
			high = j;
	}
	return v[k];
}

double trend_slope(const struct trend_floor *floors, size_t n) {
	double slopes[TREND_BLOCKS_MAX * (TREND_BLOCKS_MAX - 1) / 2];
	size_t slopes_n = 0;

	n = min_of(n, (size_t)TREND_BLOCKS_MAX);
	for (size_t i = 0; i < n; i++)
		for (size_t j = i + 1; j < n; j++)
			slopes[slopes_n++] =
				(floors[j].value - floors[i].value) / (double)(floors[j].index - floors[i].index);
	return slopes_n ? select_kth(slopes, (ptrdiff_t)slopes_n, (ptrdiff_t)slopes_n / 2) : 0;
}

/* The sum over groups of t equal values of t (t - 1) (2 t + 5), counted once for each group's first one. */
static double tie_term(const struct trend_floor *floors, size_t n, size_t i) {
	double t = 1;

	for (size_t j = 0; j < n; j++) {
		if (floors[j].value != floors[i].value || j == i)
			continue;
		if (j < i)
			return 0;
		t++;
	}
	return t * (t - 1) * (2 * t + 5);
}

double trend_kendall(const struct trend_floor *floors, size_t n) {
	double count = (double)n, s = 0, ties = 0, variance;

	for (size_t i = 0; i < n; i++) {
		ties += tie_term(floors, n, i);
		for (size_t j = i + 1; j < n; j++)
			s += (floors[j].value > floors[i].value) - (floors[j].value < floors[i].value);
	}
	variance = (count * (count - 1) * (2 * count + 5) - ties) / 18;
	if (s == 0 || variance <= 0)
		return 0;
	return (s - copysign(1, s)) / sqrt(variance);
}

/* Verdicts. */

static size_t blocks_of(const struct trend_rule *rule) {
	uint64_t per_block = max_of(rule->period_ns, (uint64_t)1) * SAMPLES_PER_BLOCK;
	uint64_t blocks = max_of(rule->window_ns / per_block, (uint64_t)TREND_BLOCKS_MIN);

	blocks = min_of(blocks, (uint64_t)TREND_BLOCKS_MAX);
	return (size_t)(blocks / (2 * TREND_EVALUATIONS) * (2 * TREND_EVALUATIONS));
}

void trend_init(struct trend *trend, const struct trend_rule *rule, uint64_t born_ns) {
	*trend = (struct trend){ .rule = *rule, .blocks = blocks_of(rule), .born_ns = born_ns };
	trend->step = trend->blocks / TREND_EVALUATIONS;
	trend_floors_init(&trend->floors, rule->window_ns / trend->blocks);
	trend_floors_init(&trend->hours, HOUR_NS);
}

/* The floor of the last step that is over; infinity where there was no sample in it. */
static double last_step_floor(const struct trend *trend) {
	struct trend_floor floors[TREND_BLOCKS_MAX];
	size_t n = trend_floors_window(&trend->floors, trend->step, floors);
	double floor = INFINITY;

	for (size_t i = 0; i < n; i++)
		floor = fmin(floor, floors[i].value);
	return floor;
}

/* Remembers the step's floor. Return: whether it is higher than all before. */
static bool is_new_maximum(struct trend *trend, double floor) {
	bool highest = trend->steps_n;

	for (size_t i = 0; i < trend->steps_n; i++)
		highest = highest && floor > trend->steps[i];
	trend->steps[trend->steps_next] = floor;
	trend->steps_next = (trend->steps_next + 1) % TREND_STEPS;
	trend->steps_n = min_of(trend->steps_n + 1, (size_t)TREND_STEPS);
	return highest;
}

static bool is_window_known(const struct trend *trend, const struct trend_floor *floors, size_t n) {
	uint64_t now = trend->floors.current.index;

	return (double)n >= KNOWN_MIN * (double)trend->blocks && now >= trend->blocks &&
		floors[0].index < now - trend->blocks + trend->step;
}

static bool is_more_than_yesterday(const struct trend *trend, double floor) {
	struct trend_floor hours[TREND_BLOCKS_MAX];
	uint64_t now = trend->hours.current.index;
	size_t n;

	if (now < 2 * DAY_HOURS)
		return true;
	n = trend_floors_window(&trend->hours, DAY_HOURS, hours);
	for (size_t i = 0; i < n; i++)
		if (hours[i].index == now - DAY_HOURS)
			return floor - hours[i].value >= trend->rule.least;
	return true;
}

/* Straight, as a leak is: every part takes part in the rise, and the second half is not much slower than the first. */
static bool is_straight(const struct trend_floor *floors, size_t n, double slope, size_t parts) {
	size_t each = n / parts;

	for (size_t i = 0; i < parts; i++)
		if (trend_slope(floors + i * each, each) < PART_MIN * slope)
			return false;
	return trend_slope(floors + n / 2, n - n / 2) >= HALF_MIN * trend_slope(floors, n / 2);
}

static bool sees_growth(struct trend *trend, const struct trend_floor *floors, size_t n, double floor) {
	double slope, from = INFINITY;

	for (size_t i = 0; i < n && floors[i].index < floors[0].index + trend->step; i++)
		from = fmin(from, floors[i].value);
	trend->verdict.kendall = trend_kendall(floors, n);
	if (trend->verdict.kendall <= KENDALL_MIN)
		return false;
	slope = trend_slope(floors, n);
	if (slope * (double)trend->blocks < trend->rule.least || !is_straight(floors, n, slope, 2) ||
		!is_more_than_yesterday(trend, floor))
		return false;
	trend->verdict.per_hour = slope * NS_PER_HOUR / (double)trend->floors.block_ns;
	if (!trend->verdict.agreed)
		trend->verdict.from = from;
	return true;
}

static void forget_growth(struct trend *trend) {
	trend->verdict.agreed = 0;
	trend->verdict.tier = TREND_NONE;
	trend->verdict.fading = false;
	trend->verdict.since_ns = 0;
	trend->verdict.from = trend->verdict.to = trend->verdict.per_hour = 0;
	trend->disagreed = 0;
}

static void agree(struct trend *trend, uint64_t now_ns) {
	struct trend_verdict *verdict = &trend->verdict;

	if (!verdict->agreed++) {
		verdict->since_ns = now_ns - min_of(trend->rule.window_ns, now_ns);
		trend->peak = verdict->to;
	}
	trend->disagreed = 0;
	verdict->fading = false;
	if (verdict->agreed >= trend->rule.persist &&
		verdict->to - verdict->from >= trend->rule.least_pct / 100 * verdict->from)
		verdict->tier = TREND_SUSPECT;
}

static void disagree(struct trend *trend) {
	const struct trend_verdict *verdict = &trend->verdict;
	bool given_back = verdict->to < verdict->from + (trend->peak - verdict->from) / 2;

	trend->verdict.fading = true;
	if (verdict->tier == TREND_NONE || ++trend->disagreed >= trend->rule.persist || given_back)
		forget_growth(trend);
}

static void evaluate(struct trend *trend, uint64_t now_ns) {
	struct trend_floor floors[TREND_BLOCKS_MAX];
	size_t n = trend_floors_window(&trend->floors, trend->blocks, floors);
	double floor = last_step_floor(trend);
	bool highest;

	/* Nothing was seen: suspended, or starved. That proves nothing either way. */
	if (isinf(floor))
		return;
	highest = is_new_maximum(trend, floor);
	if (trend->verdict.agreed)
		trend->verdict.to = floor;
	trend->peak = fmax(trend->peak, floor);
	if (highest && is_window_known(trend, floors, n) && sees_growth(trend, floors, n, floor)) {
		trend->verdict.to = floor;
		agree(trend, now_ns);
	} else {
		disagree(trend);
	}
}

bool trend_add(struct trend *trend, uint64_t now_ns, double value) {
	uint64_t evaluation;

	if (trend->born_ns == UINT64_MAX)
		trend->born_ns = now_ns;
	if (now_ns < trend->born_ns || now_ns - trend->born_ns < trend->rule.warmup_ns)
		return false;
	trend_floors_add(&trend->hours, now_ns, value);
	if (!trend_floors_add(&trend->floors, now_ns, value))
		return false;
	evaluation = trend->floors.current.index / trend->step;
	if (evaluation == trend->seen)
		return false;
	trend->seen = evaluation;
	evaluate(trend, now_ns);
	return true;
}

/* The time left. */

void runway_init(struct runway *runway, uint64_t short_ns) {
	*runway = (struct runway){ 0 };
	trend_floors_init(&runway->fast, short_ns / RUNWAY_BLOCKS);
	trend_floors_init(&runway->slow, short_ns * RUNWAY_LONG_TIMES / RUNWAY_BLOCKS);
}

void runway_add(struct runway *runway, uint64_t now_ns, double value) {
	trend_floors_add(&runway->fast, now_ns, value);
	trend_floors_add(&runway->slow, now_ns, value);
	runway->value = value;
}

/* What was seen of the window. Return: how many floors; 0 where most of it is missing. */
static size_t known_window(const struct trend_floors *floors, struct trend_floor *ret) {
	size_t n = trend_floors_window(floors, RUNWAY_BLOCKS, ret);

	if (n < TREND_BLOCKS_MIN / 2 || ret[n - 1].index - ret[0].index + 1 < RUNWAY_BLOCKS * RUNWAY_KNOWN_PCT / 100)
		return 0;
	return n;
}

/* Return: how fast it rises without a break, per block; 0 where it does not, or by less than `least` in the window. */
static double steady_slope(const struct trend_floor *floors, size_t n, double least) {
	double slope;

	/* Most are calm, and this costs nothing. */
	if (floors[n - 1].value - floors[0].value < least / 2)
		return 0;
	slope = trend_slope(floors, n);
	if (slope * RUNWAY_BLOCKS < least || trend_kendall(floors, n) <= KENDALL_MIN ||
		!is_straight(floors, n, slope, RUNWAY_PARTS))
		return 0;
	return slope;
}

int runway_left(const struct runway *runway, double limit, uint64_t *ret_ns) {
	struct trend_floor floors[TREND_BLOCKS_MAX];
	size_t n = known_window(&runway->fast, floors);
	double room = fmax(limit - runway->value, 0), slope, left;

	if (!n)
		return RUNWAY_E_YOUNG;
	slope = steady_slope(floors, n, RUNWAY_PCT / 100 * fmin(runway->value, room));
	if (slope <= 0)
		return RUNWAY_E_CALM;
	slope /= (double)runway->fast.block_ns;
	n = known_window(&runway->slow, floors);
	left = room / fmax(slope, trend_slope(floors, n) / (double)runway->slow.block_ns);
	*ret_ns = left >= (double)RUNWAY_MAX_NS ? RUNWAY_MAX_NS : (uint64_t)left;
	return 0;
}
