/* SPDX-License-Identifier: MIT */
/* The queues of the sinks.
 *
 * Each sink has a place in the store: `place` is the last event that it is done with, `behind` the last that it was
 * given. Between them lie those under way. A place is written to the store a short time or some events after it moved,
 * never before: an end at any moment makes a sink get a few events twice, and none not at all.
 *
 * What a sink gets is limited by a token bucket. Without a token an update is passed over, since the next one says the
 * same, and before the bucket is empty already; an opening or a resolution waits at the head of the queue.
 *
 * The sinks' loop is an event loop inside the service's: it runs whenever that one is about to wait. All that follows
 * from an event comes by a timer, so that no function of a sink is called from within another.
 *
 * It does not know what a sink does with an event, and starts no thread. */
#include "daemon/sink.h"

#include "daemon/log.h"
#include "pyspyd/finding.h"
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SINKS_MAX 8
#define CHUNK 64 /* events that a sink is given without a pause */
#define S_NS UINT64_C(1000000000)
#define MS_NS UINT64_C(1000000)
#define PAUSE_NS (2 * MS_NS) /* in which the rest of the service has its turn */
#define SAVE_NS (200 * MS_NS)
#define SAVE_AGAIN_NS S_NS
#define RETRY_MIN_NS S_NS
#define RETRY_MAX_NS (60 * S_NS)
#define NOT_BEFORE_MAX_NS (600 * S_NS)
#define UNSTEADY_NS (90 * S_NS)
#define TELL_NS (60 * S_NS)

struct sink {
	struct sinks *sinks;
	const struct sink_kind *kind;
	void *state;
	sd_event_source *timer, *tell_timer;

	uint64_t place, behind; /* see above; place ≤ behind */
	uint64_t saved;         /* the place that the store knows */
	uint64_t given;         /* events under way */
	bool waiting;           /* for sink_finished() … */
	bool telling;           /* … of a line about the sink itself */
	bool reading;           /* the store right now: `deliver` is being called */
	bool fresh;             /* it has never been anywhere: what it misses was never its own */
	uint64_t alone_until;   /* up to here one event at a time */
	uint64_t redo_from;     /* 0: nothing to redo */
	uint64_t redone_ns;     /* when that was last so */
	uint64_t refused;

	uint64_t retry_ns, backoff_ns;
	uint64_t not_before_ns;
	bool away, said_away;
	uint64_t away_ns; /* since when; 0: not */
	char fault[256];

	double tokens;
	uint64_t refilled_ns;
	bool held;         /* the event at the head waits for a token … */
	uint64_t held_seq; /* … and was counted as held back */

	uint64_t held_now, dropped_now, since_ns; /* not told yet, and since when they are counted */

	uint64_t delivered, dropped, held_back, failures;
	bool unsaved;
};

struct sinks {
	struct pyspyd_store *store;
	sd_event *loop;
	sd_event_source *inner, *save_timer;
	double rate;
	unsigned burst;
	uint64_t queue;
	struct sink sinks[SINKS_MAX];
	const char *names[SINKS_MAX + 1];
	size_t n;
};

static uint64_t now_ns(void) {
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * S_NS + (uint64_t)now.tv_nsec;
}

static void arm(sd_event_source *timer, uint64_t at_ns) {
	sd_event_source_set_time(timer, at_ns / 1000);
	sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
}

static void run_in(struct sink *sink, uint64_t in_ns) {
	arm(sink->timer, now_ns() + in_ns);
}

/* Places in the store */

static void save(struct sinks *sinks) {
	bool again = false;

	for (size_t i = 0; i < sinks->n; i++) {
		struct sink *sink = &sinks->sinks[i];

		if (!sink->unsaved)
			continue;
		if (pyspyd_store_sink_put(sinks->store, sink->kind->name, sink->place, sink->dropped))
			again = true;
		else
			sink->unsaved = false;
		sink->saved = sink->place; /* or else the timer tries again */
	}
	if (again)
		arm(sinks->save_timer, now_ns() + SAVE_AGAIN_NS);
}

static int on_save(sd_event_source *source, uint64_t usec, void *userdata) {
	(void)source;
	(void)usec;
	save(userdata);
	return 0;
}

static void mark_unsaved(struct sink *sink) {
	int enabled = SD_EVENT_OFF;

	sink->unsaved = true;
	sd_event_source_get_enabled(sink->sinks->save_timer, &enabled);
	if (enabled == SD_EVENT_OFF)
		arm(sink->sinks->save_timer, now_ns() + SAVE_NS);
}

static void move_to(struct sink *sink, uint64_t seq) {
	sink->place = seq;
	if (sink->behind < seq)
		sink->behind = seq;
	mark_unsaved(sink);
}

/* What a sink tells about itself */

static void count_untold(struct sink *sink, uint64_t held, uint64_t dropped) {
	if (!sink->held_now && !sink->dropped_now) {
		sink->since_ns = now_ns();
		arm(sink->tell_timer, sink->since_ns + TELL_NS);
	}
	sink->held_now += held;
	sink->dropped_now += dropped;
	sink->held_back += held;
	sink->dropped += dropped;
	if (dropped)
		mark_unsaved(sink);
}

static void untold_text(const struct sink *sink, char *text, size_t size) {
	uint64_t seconds = (now_ns() - sink->since_ns + S_NS / 2) / S_NS;
	char dropped[80] = "", held[80] = "";

	if (sink->dropped_now)
		snprintf(dropped, sizeof(dropped), "%" PRIu64 " findings were dropped", sink->dropped_now);
	if (sink->held_now)
		snprintf(held, sizeof(held), "%" PRIu64 " findings were held back", sink->held_now);
	snprintf(text, size, "%s%s%s in the last %" PRIu64 " s", held, *held && *dropped ? ", " : "", dropped,
		seconds ? seconds : 1);
}

static void told(struct sink *sink) {
	sink->held_now = sink->dropped_now = 0;
	sd_event_source_set_enabled(sink->tell_timer, SD_EVENT_OFF);
}

/* Where it cannot be said now, it will be with the next event that goes through. */
static void tell(struct sink *sink) {
	char text[256];
	enum sink_result result;

	if ((!sink->held_now && !sink->dropped_now) || sink->waiting || sink->away)
		return;
	untold_text(sink, text, sizeof(text));
	if (!sink->kind->tell) {
		told(sink);
		return;
	}
	result = sink->kind->tell(sink->state, text);
	sink->waiting = sink->telling = result == SINK_WAIT;
	if (result == SINK_DONE || result == SINK_NEVER)
		told(sink);
}

static bool tell_is_due(const struct sink *sink) {
	return (sink->held_now || sink->dropped_now) && now_ns() - sink->since_ns >= TELL_NS;
}

static int on_tell(sd_event_source *source, uint64_t usec, void *userdata) {
	struct sink *sink = userdata;

	(void)source;
	(void)usec;
	if (sink->dropped_now)
		log_say(LOG_WARNING, "%s: %" PRIu64 " findings were dropped", sink->kind->name, sink->dropped_now);
	tell(sink);
	return 0;
}

/* The rate */

static void refill(struct sink *sink) {
	const struct sinks *sinks = sink->sinks;
	uint64_t now = now_ns();

	sink->tokens += (double)(now - sink->refilled_ns) / (double)S_NS * sinks->rate;
	if (sink->tokens > sinks->burst)
		sink->tokens = sinks->burst;
	sink->refilled_ns = now;
}

/* Whether the event may go out. *ret_skip: it is passed over. Neither: it waits. */
static bool admit(struct sink *sink, const struct pyspyd_event *event, bool *ret_skip) {
	const struct sinks *sinks = sink->sinks;
	bool update = event->state == PYSPYD_UPDATE;

	*ret_skip = false;
	if (sinks->rate <= 0)
		return true;
	refill(sink);
	if (sink->tokens >= 1 + (update ? sinks->burst / 4 : 0)) {
		sink->tokens -= 1;
		return true;
	}
	*ret_skip = update;
	if (update || sink->held_seq != event->seq)
		count_untold(sink, 1, 0);
	if (!update) {
		sink->held = true;
		sink->held_seq = event->seq;
		run_in(sink, (uint64_t)((1 - sink->tokens) / sinks->rate * (double)S_NS) + MS_NS);
	}
	return false;
}

static void give_back(struct sink *sink, uint64_t n) {
	sink->tokens += (double)n;
}

/* Results */

/* One that seems to take what it then loses is to be asked ever less often, and not to fill the log. */
static bool is_unsteady(const struct sink *sink) {
	return sink->redone_ns && now_ns() - sink->redone_ns < UNSTEADY_NS;
}

static void came_back(struct sink *sink) {
	if (!is_unsteady(sink))
		sink->backoff_ns = RETRY_MIN_NS;
	sink->retry_ns = 0;
	sink->fault[0] = '\0';
	sink->away = false;
	if (is_unsteady(sink))
		return;
	sink->away_ns = 0;
	if (sink->said_away) {
		log_say(LOG_NOTICE, "%s: takes findings again", sink->kind->name);
		sink->said_away = false;
	}
}

/* It is said when a second try has failed: a queue that is full for a moment is none of anybody's business. */
static void went_away(struct sink *sink) {
	uint64_t now = now_ns();

	sink->failures++;
	sink->away = true;
	if (!sink->away_ns)
		sink->away_ns = now;
	if (!sink->said_away && now - sink->away_ns >= RETRY_MIN_NS) {
		sink->said_away = true;
		log_say(LOG_WARNING, "%s: takes no findings now%s%s; they wait in the store", sink->kind->name,
			*sink->fault ? ": " : "", sink->fault);
	}
	sink->retry_ns = now + sink->backoff_ns;
	if (sink->retry_ns < sink->not_before_ns)
		sink->retry_ns = sink->not_before_ns;
	sink->not_before_ns = 0;
	sink->backoff_ns = sink->backoff_ns * 2 < RETRY_MAX_NS ? sink->backoff_ns * 2 : RETRY_MAX_NS;
	arm(sink->timer, sink->retry_ns);
}

/* The other side is there, and has answered. */
static void settle_never(struct sink *sink) {
	char fault[sizeof(sink->fault)];

	memcpy(fault, sink->fault, sizeof(fault));
	came_back(sink);
	if (sink->given > 1) { /* one of them is at fault: which? */
		sink->alone_until = sink->behind;
		sink->behind = sink->place;
		give_back(sink, sink->given);
		return;
	}
	if (!sink->dropped_now) /* the others are counted */
		log_say(LOG_WARNING, "%s: a finding is dropped%s%s", sink->kind->name, *fault ? ": " : "", fault);
	count_untold(sink, 0, 1);
	move_to(sink, sink->behind);
}

static void settle_done(struct sink *sink) {
	uint64_t refused = sink->refused < sink->given ? sink->refused : sink->given;

	came_back(sink);
	sink->delivered += sink->given - refused;
	if (refused)
		count_untold(sink, 0, refused);
	move_to(sink, sink->behind);
}

static void step_back(struct sink *sink) {
	if (sink->redo_from && sink->redo_from <= sink->place) {
		sink->place = sink->redo_from - 1;
		mark_unsaved(sink);
	}
	sink->redo_from = 0;
	sink->behind = sink->place;
}

/* For all that is under way. */
static void settle(struct sink *sink, enum sink_result result) {
	switch (result) {
	case SINK_DONE: settle_done(sink); break;
	case SINK_NEVER: settle_never(sink); break;
	case SINK_LATER:
		give_back(sink, sink->given);
		went_away(sink);
		break;
	case SINK_WAIT: sink->waiting = true; return;
	case SINK_TAKEN: return;
	}
	step_back(sink);
	sink->given = 0;
	sink->refused = 0;
}

void sink_finished(struct sink *sink, enum sink_result result) {
	if (!sink->waiting)
		return;
	sink->waiting = false;
	if (sink->telling) {
		sink->telling = false;
		if (result == SINK_LATER)
			went_away(sink);
		else
			told(sink);
	} else {
		settle(sink, result);
	}
	if (!sink->away)
		run_in(sink, 0);
}

void sink_ready(struct sink *sink) {
	sink->retry_ns = 0;
	run_in(sink, PAUSE_NS); /* should it only seem so, the loop has its turn in between */
}

void sink_not_before(struct sink *sink, uint64_t in_ns) {
	sink->not_before_ns = now_ns() + (in_ns < NOT_BEFORE_MAX_NS ? in_ns : NOT_BEFORE_MAX_NS);
}

void sink_redo(struct sink *sink, uint64_t from_seq) {
	sink->redone_ns = now_ns();
	if (!sink->redo_from || from_seq < sink->redo_from)
		sink->redo_from = from_seq;
	if (sink->waiting || sink->reading) /* once it is known what becomes of the present ones */
		return;
	step_back(sink);
	went_away(sink);
}

void sink_refused(struct sink *sink, uint64_t n) {
	sink->refused += n;
}

void sink_fault(struct sink *sink, const char *format, ...) {
	va_list args;

	va_start(args, format);
	vsnprintf(sink->fault, sizeof(sink->fault), format, args);
	va_end(args);
}

/* Delivery */

/* The queue is bounded, and the store forgets. */
static void drop_oldest(struct sink *sink) {
	const struct sinks *sinks = sink->sinks;
	uint64_t first = pyspyd_store_first_seq(sinks->store), last = pyspyd_store_last_seq(sinks->store);
	uint64_t from = sink->place;

	if (from > last) /* a new store took the place of a damaged one */
		move_to(sink, sink->behind = last);
	if (first && from + 1 < first)
		from = first - 1;
	if (sinks->queue && last > from && last - from > sinks->queue)
		from = last - sinks->queue;
	if (from <= sink->place)
		return;
	if (!sink->fresh)
		count_untold(sink, 0, from - sink->place);
	move_to(sink, from);
}

static int deliver(void *userdata, const struct pyspyd_event *event) {
	struct sink *sink = userdata;
	enum sink_result result;
	bool skip;

	if (!admit(sink, event, &skip)) {
		if (!skip)
			return 1;
		sink->behind = event->seq;
		if (!sink->given)
			move_to(sink, event->seq);
		return 0;
	}
	result = sink->kind->deliver(sink->state, event);
	sink->behind = event->seq;
	sink->given++;
	if (result == SINK_TAKEN)
		return 0;
	settle(sink, result);
	return result != SINK_DONE || sink->place < event->seq;
}

static void go_on(struct sink *sink, int result) {
	if (result < 0) {
		sink->failures++;
		run_in(sink, RETRY_MIN_NS);
		return;
	}
	if (!sink->waiting && !sink->away && !sink->held && sink->place < pyspyd_store_last_seq(sink->sinks->store))
		run_in(sink, PAUSE_NS);
}

static void read_queue(struct sink *sink) {
	struct pyspyd_event_filter filter = { .after_seq = sink->place, .uid = (uid_t)-1, .most = CHUNK };
	int r;

	if (sink->place < sink->alone_until)
		filter.most = 1;
	sink->held = false;
	sink->reading = true;
	r = pyspyd_store_events(sink->sinks->store, &filter, deliver, sink);
	sink->reading = false;
	if (sink->given && !sink->waiting)
		settle(sink, sink->kind->send ? sink->kind->send(sink->state) : SINK_DONE);
	if (sink->redo_from && !sink->waiting)
		step_back(sink);
	go_on(sink, r);
}

static void run(struct sink *sink) {
	if (sink->waiting)
		return;
	if (sink->retry_ns > now_ns()) {
		arm(sink->timer, sink->retry_ns);
		return;
	}
	if (tell_is_due(sink)) {
		tell(sink);
		if (sink->waiting)
			return;
	}
	drop_oldest(sink);
	sink->fresh = false;
	if (sink->place < pyspyd_store_last_seq(sink->sinks->store))
		read_queue(sink);
	if (sink->place >= sink->saved + CHUNK)
		save(sink->sinks);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
	(void)source;
	(void)usec;
	run(userdata);
	return 0;
}

void sinks_wake(struct sinks *sinks) {
	for (size_t i = 0; i < sinks->n; i++)
		run(&sinks->sinks[i]);
}

/* The loop inside the loop */

/* Until nothing is left to do at once; the last turn has set the timers. */
static int before_waiting(sd_event_source *source, void *userdata) {
	struct sinks *sinks = userdata;

	(void)source;
	while (sd_event_run(sinks->loop, 0) > 0)
		;
	return 0;
}

static int on_inner(sd_event_source *source, int fd, uint32_t events, void *userdata) {
	(void)fd;
	(void)events;
	return before_waiting(source, userdata);
}

static int nest(struct sinks *sinks, sd_event *outer) {
	int r = sd_event_add_io(outer, &sinks->inner, sd_event_get_fd(sinks->loop), EPOLLIN, on_inner, sinks);

	return r < 0 ? r : sd_event_source_set_prepare(sinks->inner, before_waiting);
}

/* Nothing more can be done for it now: all is delivered, or the other side is away, or the rate forbids it. */
static bool at_rest(const struct sink *sink) {
	if (sink->waiting)
		return false;
	return sink->away || sink->held || sink->place >= pyspyd_store_last_seq(sink->sinks->store);
}

static bool all_at_rest(const struct sinks *sinks) {
	for (size_t i = 0; i < sinks->n; i++)
		if (!at_rest(&sinks->sinks[i]))
			return false;
	return true;
}

static void drain_until(struct sinks *sinks, uint64_t end_ns) {
	while (!all_at_rest(sinks)) {
		uint64_t now = now_ns();

		if (now >= end_ns || sd_event_run(sinks->loop, (end_ns - now) / 1000 + 1) < 0)
			return;
	}
}

void sinks_drain(struct sinks *sinks, uint64_t at_most_ns) {
	uint64_t end_ns = now_ns() + at_most_ns;

	for (size_t i = 0; i < sinks->n; i++) {
		struct sink *sink = &sinks->sinks[i];

		sink->retry_ns = 0;
		run(sink);
	}
	drain_until(sinks, end_ns);
	for (size_t i = 0; i < sinks->n; i++)
		tell(&sinks->sinks[i]);
	drain_until(sinks, end_ns);
	save(sinks);
}

/* Life */

static int add_timer(struct sinks *sinks, sd_event_source **ret, sd_event_time_handler_t handler, void *userdata) {
	int r = sd_event_add_time(sinks->loop, ret, CLOCK_MONOTONIC, 0, 1000, handler, userdata);

	return r < 0 ? r : sd_event_source_set_enabled(*ret, SD_EVENT_OFF);
}

static int add_sink(struct sinks *sinks, const struct sink_kind *kind, const struct config *config, struct err *err) {
	struct sink *sink = &sinks->sinks[sinks->n];
	int r = pyspyd_store_sink_get(sinks->store, kind->name, &sink->place, &sink->dropped);

	if (r)
		return err_set(err, r, "the place of sink %s cannot be read: %s", kind->name, strerror(-r));
	sink->sinks = sinks;
	sink->kind = kind;
	sink->behind = sink->saved = sink->place;
	sink->fresh = !sink->place;
	sink->backoff_ns = RETRY_MIN_NS;
	sink->tokens = sinks->burst;
	sink->refilled_ns = now_ns();
	r = add_timer(sinks, &sink->timer, on_timer, sink);
	if (r >= 0)
		r = add_timer(sinks, &sink->tell_timer, on_tell, sink);
	if (r < 0)
		return err_set(err, r, "no timer: %s", strerror(-r));
	r = kind->open(config, sink, sinks->loop, &sink->state, err);
	if (r)
		return err_wrap(err, r, "%s", kind->name);
	sinks->names[sinks->n++] = kind->name;
	run_in(sink, 0);
	return 0;
}

void sinks_save(struct sinks *sinks) {
	save(sinks);
}

int sinks_new_of(const struct sink_kind *const *kinds, const struct config *config, struct pyspyd_store *store,
	sd_event *loop, struct sinks **ret_sinks, struct err *err) {
	struct sinks *sinks = calloc(1, sizeof(*sinks));
	int r;

	if (!sinks)
		return err_set(err, -ENOMEM, "out of memory");
	sinks->store = store;
	sinks->rate = config->sink_rate;
	sinks->burst = config->sink_burst ? config->sink_burst : 1;
	sinks->queue = config->sink_queue;
	r = sd_event_new(&sinks->loop);
	if (r >= 0)
		r = nest(sinks, loop);
	if (r >= 0)
		r = add_timer(sinks, &sinks->save_timer, on_save, sinks);
	if (r < 0)
		err_set(err, r, "no event loop for the sinks: %s", strerror(-r));
	for (size_t i = 0; r >= 0 && kinds[i] && sinks->n < SINKS_MAX; i++)
		if (kinds[i]->enabled(config))
			r = add_sink(sinks, kinds[i], config, err);
	if (r < 0) {
		sinks_free(sinks);
		return r;
	}
	*ret_sinks = sinks;
	return 0;
}

int sinks_new(const struct config *config, struct pyspyd_store *store, sd_event *loop, struct sinks **ret_sinks,
	struct err *err) {
	static const struct sink_kind *const kinds[] = { &journal_sink, &syslog_sink, &file_sink, &otlp_sink, NULL };

	return sinks_new_of(kinds, config, store, loop, ret_sinks, err);
}

void sinks_free(struct sinks *sinks) {
	if (!sinks)
		return;
	if (sinks->save_timer)
		save(sinks);
	for (size_t i = 0; i < SINKS_MAX; i++) {
		struct sink *sink = &sinks->sinks[i];

		if (sink->state)
			sink->kind->close(sink->state);
		sd_event_source_disable_unref(sink->timer);
		sd_event_source_disable_unref(sink->tell_timer);
	}
	sd_event_source_disable_unref(sinks->save_timer);
	sd_event_source_disable_unref(sinks->inner);
	sd_event_unref(sinks->loop);
	free(sinks);
}

const char *const *sinks_names(const struct sinks *sinks) {
	return sinks->names;
}

size_t sinks_stats(const struct sinks *sinks, struct sink_stats *ret_stats, size_t most) {
	uint64_t last = pyspyd_store_last_seq(sinks->store);
	size_t n = sinks->n < most ? sinks->n : most;

	for (size_t i = 0; i < n; i++) {
		const struct sink *sink = &sinks->sinks[i];

		ret_stats[i] = (struct sink_stats){
			.name = sink->kind->name,
			.delivered = sink->delivered,
			.dropped = sink->dropped,
			.held_back = sink->held_back,
			.failures = sink->failures,
			.queued = last > sink->place ? last - sink->place : 0,
			.away = sink->away,
		};
	}
	return n;
}
