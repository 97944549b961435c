/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_LEAKS_TREND_H
#define PYSPYD_LEAKS_TREND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Does a counter grow without end? Samples go in, floors of equal stretches of time (blocks) are kept, and every sixth
 * part of the window a verdict is made of the floors in the window. Pure: the time is an argument, of any clock that
 * never goes back. Fixed memory, O(1) for a sample; a verdict costs n² of at most TREND_BLOCKS_MAX floors. */

#define TREND_BLOCKS_MAX 120
#define TREND_BLOCKS_MIN 24
#define TREND_EVALUATIONS 6 /* in one window */
#define TREND_STEPS 72      /* floors of past evaluations that a new maximum is compared with */

struct trend_floor {
	uint64_t index; /* of the block, from the series' start */
	double value;
};

/* The floors of the last blocks; blocks without a sample are missing. */
struct trend_floors {
	uint64_t block_ns;
	uint64_t start_ns;
	struct trend_floor current; /* of the block that is not over */
	struct trend_floor ring[TREND_BLOCKS_MAX];
	size_t n, next; /* in the ring */
	bool begun;
};

void trend_floors_init(struct trend_floors *floors, uint64_t block_ns);

/* Return: whether this sample is the first one of a new block; the one before is over then. A sample of a block that
 * is over counts for the current one. */
bool trend_floors_add(struct trend_floors *floors, uint64_t now_ns, double value);

/* The floors of the `blocks` blocks (at most TREND_BLOCKS_MAX) before the current one, oldest first. Return: how many
 * there are. */
size_t trend_floors_window(const struct trend_floors *floors, size_t blocks, struct trend_floor *ret_floors);

/* Theil-Sen: the median of all slopes between two floors, per block; 0 of less than two. Not moved by outliers, as long
 * as they are less than 29 % of the floors. */
double trend_slope(const struct trend_floor *floors, size_t n);

/* Mann-Kendall, corrected for ties: how many standard deviations there are more rising than falling pairs than of noise
 * without memory. */
double trend_kendall(const struct trend_floor *floors, size_t n);

/* What counts as growth. Lengths follow from the window, so that one of a minute shows in a minute what one of hours
 * shows in hours. */
struct trend_rule {
	uint64_t window_ns;
	uint64_t period_ns; /* between two samples, about; a block has three or more where the window allows that */
	uint64_t warmup_ns; /* of the process's life: not looked at */
	unsigned persist;   /* verdicts in a row that must agree */
	double least;       /* growth over one window, in the samples' unit; and … */
	double least_pct; /* … since growth was first seen, in percent of the floor then, however many windows ago */
};

#define TREND_WARMUP_NS(window_ns) ((window_ns) / 8) /* 30 min of 4 h */

enum trend_tier {
	TREND_NONE,
	TREND_SUSPECT, /* grows steadily for long, to values never seen: what it is has to be confirmed by other means
			*/
};

struct trend_verdict {
	enum trend_tier tier;
	unsigned agreed;   /* verdicts in a row that saw growth, the last one included unless it fades */
	bool fading;       /* suspect, but the last verdict saw no growth */
	uint64_t since_ns; /* when the first window that saw growth began; 0 where agreed is 0 */
	double from, to;   /* floors then and of the last sixth of the window */
	double per_hour;   /* the last slope that agreed, in the samples' unit */
	double kendall;    /* the last one that was looked at */
};

struct trend {
	struct trend_rule rule;
	size_t blocks, step; /* of a window, of an evaluation */
	uint64_t born_ns;
	uint64_t seen; /* the number of the last evaluation */
	struct trend_floors floors, hours;
	double steps[TREND_STEPS]; /* a ring */
	size_t steps_n, steps_next;
	double peak; /* highest floor since `since_ns` */
	unsigned disagreed;
	struct trend_verdict verdict;
};

/* `born_ns`: when the process started, on the samples' clock; UINT64_MAX: not known, with the first sample. */
void trend_init(struct trend *trend, const struct trend_rule *rule, uint64_t born_ns);

/* One sample. Return: whether a new verdict was made with it. */
bool trend_add(struct trend *trend, uint64_t now_ns, double value);

/* How long until a limit, by what a counter does right now: apart from the verdict, since a process that is about to
 * hit its limit cannot wait for hours of statistics, and it does not matter whether its growth is a leak. */

#define RUNWAY_SHORT_NS 600000000000ULL /* the short window; the long one is six times as long */
#define RUNWAY_PCT 10.0                 /* growth in the short window that counts, of the value or of what is left */

struct runway {
	struct trend_floors fast, slow;
	double value; /* the last one */
};

enum {
	RUNWAY_E_CALM = 1,  /* it does not grow, or slowly */
	RUNWAY_E_YOUNG = 2, /* not enough was seen yet */
};

/* `short_ns`: RUNWAY_SHORT_NS where nothing else is wanted. */
void runway_init(struct runway *runway, uint64_t short_ns);
void runway_add(struct runway *runway, uint64_t now_ns, double value);

/* The time until the value reaches the limit, by the steeper one of the slopes of both windows. Return: 0 and *ret_ns
 * (0: it is there already); RUNWAY_E_CALM; RUNWAY_E_YOUNG. */
int runway_left(const struct runway *runway, double limit, uint64_t *ret_ns);

#endif
