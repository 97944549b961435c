/* SPDX-License-Identifier: MIT */
/* Answers out of the store, a piece at a time. What the viewer may not see is filtered by the store itself, so that an
 * unknown process and somebody else's give the same answer. */
#include "daemon/answers.h"

#include "pyspyd/remote.h"
#include "pyspyd/text.h"
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS_A_STEP 256
#define OPEN_MAX 4096           /* processes with open findings */
#define PROCESSES_MAX 4096      /* that had one pid */
#define CMDLINE_MAX (32U << 10) /* bytes that are told */

/* What a callback of the store returns when it wants no more. */
enum { STOP_FULL = 1, STOP_END = 2 };

struct step {
	struct answer *answer;
	struct outbox *outbox;
	size_t n;
};

static int grow(void **items, size_t n, size_t size) {
	void *grown;

	if (n & (n - 1)) /* room up to the next power of two */
		return 0;
	grown = realloc(*items, (n ? 2 * n : 1) * size);
	if (!grown)
		return -ENOMEM;
	*items = grown;
	return 0;
}

static int put_json(struct outbox *outbox, json_t *object) {
	char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	int r = text ? outbox_put(outbox, 'J', text, strlen(text)) : -ENOMEM;

	free(text);
	json_decref(object);
	return r == -EMSGSIZE ? 0 : r;
}

/* {"key": <json>TAIL, where json is text already. What is too large for a frame is left out. */
static int put_raw(struct outbox *outbox, const char *key, const char *json, const char *tail) {
	int r = outbox_begin(outbox);

	if (!r)
		r = outbox_add(outbox, key, strlen(key));
	if (!r)
		r = outbox_add(outbox, json, strlen(json));
	if (!r)
		r = outbox_add(outbox, tail, strlen(tail));
	if (r)
		outbox_drop(outbox);
	else
		outbox_end(outbox, 'J');
	return r == -EMSGSIZE ? 0 : r;
}

/* Findings */

static int tell_event(void *userdata, const struct pyspyd_event *event) {
	struct step *step = userdata;
	const struct request *request = &step->answer->request;
	char tail[48];
	int r;

	if (outbox_waiting(step->outbox) >= ANSWER_FILL_BYTES)
		return STOP_FULL;
	if (!request->follow && !request->latest && !request->open && event->seq > step->answer->last)
		return STOP_END;
	snprintf(tail, sizeof(tail), ",\"seq\":%" PRIu64 "}", event->seq);
	r = put_raw(step->outbox, "{\"event\":", event->json, tail);
	if (r)
		return r;
	step->answer->cursor = event->seq;
	step->n++;
	return 0;
}

/* Everything that was there is told. */
static int at_the_end(struct answer *answer) {
	struct request *request = &answer->request;

	answer->told = request->follow || request->latest || request->open
		? pyspyd_store_last_seq(answer->options->store)
		: answer->last;
	if (answer->told < answer->cursor)
		answer->told = answer->cursor;
	if (!request->follow)
		return ANSWER_DONE;
	request->latest = request->open = false;
	answer->cursor = answer->told;
	return ANSWER_WAITS;
}

static int step_findings(struct answer *answer, struct outbox *outbox) {
	struct request *request = &answer->request;
	struct step step = { answer, outbox, 0 };
	bool counted = request->most;
	struct pyspyd_event_filter filter = {
		.after_seq = answer->cursor,
		.since_real_ns = request->since_ns,
		.until_real_ns = request->until_ns,
		.kind = request->kind,
		.id = request->id,
		.pid = request->pid,
		.uid = answer->uid,
		.latest = request->latest,
		.open = request->open,
		.most = counted && request->most < EVENTS_A_STEP ? request->most : EVENTS_A_STEP,
	};
	int r = pyspyd_store_events(answer->options->store, &filter, tell_event, &step);

	if (r < 0)
		return r;
	if (counted)
		request->most -= step.n;
	if (counted && !request->most) {
		answer->told = answer->cursor;
		return ANSWER_DONE;
	}
	if (r == STOP_FULL || (!r && step.n == filter.most))
		return ANSWER_MORE;
	return at_the_end(answer);
}

/* Processes */

static struct answer_open *find_open(const struct answer *answer, pid_t pid, uint64_t start_ns) {
	for (size_t i = answer->open_n; i > 0; i--)
		if (answer->open[i - 1].pid == pid && answer->open[i - 1].start_ns == start_ns)
			return &answer->open[i - 1];
	return NULL;
}

static int count_open(void *userdata, const struct pyspyd_event *event) {
	struct answer *answer = userdata;
	struct answer_open *open = find_open(answer, event->pid, event->start_real_ns);

	if (open) {
		open->n++;
		return 0;
	}
	if (answer->open_n == OPEN_MAX)
		return STOP_FULL;
	if (grow((void **)&answer->open, answer->open_n, sizeof(*answer->open)))
		return -ENOMEM;
	answer->open[answer->open_n++] = (struct answer_open){ event->pid, event->start_real_ns, 1 };
	return 0;
}

/* Foreign bytes as JSON can have them. */
static json_t *text_json(const char *foreign) {
	char *cut = strndup(foreign, CMDLINE_MAX);
	char *printable = cut ? pyspyd_printable(cut) : NULL;
	json_t *text = printable ? json_string(printable) : NULL;

	free(printable);
	free(cut);
	return text;
}

static json_t *process_json(const struct answer *answer, const struct pyspyd_store_process *process) {
	const struct server_options *options = answer->options;
	const struct answer_open *open = find_open(answer, process->pid, process->start_real_ns);
	bool watched = options->watched && options->watched(options->userdata, process->pid, process->start_real_ns);

	return json_pack("{s:{s:i, s:I, s:I, s:o, s:o, s:o, s:o, s:I, s:b, s:i}}", "process", "pid", process->pid,
		"start_ns", (json_int_t)process->start_real_ns, "uid", (json_int_t)process->uid, "name",
		text_json(process->name), "cmdline", text_json(process->cmdline), "unit", text_json(process->unit),
		"container", text_json(process->container), "seen_ns", (json_int_t)process->seen_real_ns, "watched",
		watched, "findings_open", open ? (int)open->n : 0);
}

static int tell_process(void *userdata, int64_t number, const struct pyspyd_store_process *process) {
	struct step *step = userdata;
	int r;

	if (number <= step->answer->process)
		return 0;
	if (outbox_waiting(step->outbox) >= ANSWER_FILL_BYTES)
		return STOP_FULL;
	r = put_json(step->outbox, process_json(step->answer, process));
	if (!r)
		step->answer->process = number;
	return r;
}

static int step_processes(struct answer *answer, struct outbox *outbox) {
	struct step step = { answer, outbox, 0 };
	int r = pyspyd_store_processes(answer->options->store, 0, answer->uid, tell_process, &step);

	return r == STOP_FULL ? ANSWER_MORE : r;
}

/* Profiles */

static int keep_number(void *userdata, int64_t number, const struct pyspyd_store_process *process) {
	struct answer *answer = userdata;

	if (answer->processes_n == PROCESSES_MAX)
		return STOP_FULL;
	if (grow((void **)&answer->processes, answer->processes_n, sizeof(*answer->processes)))
		return -ENOMEM;
	answer->processes[answer->processes_n++] = (struct answer_process){ number, process->start_real_ns };
	return 0;
}

static json_t *profile_json(const struct answer *answer, const struct pyspyd_store_profile *profile) {
	return json_pack("{s:{s:i, s:I, s:I, s:I}}", "profile", "pid", answer->request.pid, "process_start_ns",
		(json_int_t)answer->processes[answer->processes_i].start_ns, "start_ns",
		(json_int_t)profile->start_real_ns, "end_ns", (json_int_t)profile->end_real_ns);
}

static int tell_profile(void *userdata, const struct pyspyd_store_profile *profile) {
	struct step *step = userdata;
	struct answer *answer = step->answer;
	int r = 0;

	if (answer->cursor && profile->start_real_ns <= answer->cursor)
		return 0;
	if (outbox_waiting(step->outbox) >= ANSWER_FILL_BYTES)
		return STOP_FULL;
	if (profile->len <= PYSPYD_ANSWER_MAX)
		r = put_json(step->outbox, profile_json(answer, profile));
	if (!r && profile->len <= PYSPYD_ANSWER_MAX)
		r = outbox_put(step->outbox, 'B', profile->data, profile->len);
	if (!r)
		answer->cursor = profile->start_real_ns;
	return r;
}

static int step_profiles(struct answer *answer, struct outbox *outbox) {
	const struct request *request = &answer->request;
	struct step step = { answer, outbox, 0 };
	uint64_t since = request->since_ns > answer->cursor ? request->since_ns : answer->cursor;
	int r;

	if (answer->processes_i == answer->processes_n)
		return ANSWER_DONE;
	r = pyspyd_store_profiles(answer->options->store, answer->processes[answer->processes_i].number, since,
		request->until_ns, tell_profile, &step);
	if (r < 0)
		return r;
	if (!r) {
		answer->processes_i++;
		answer->cursor = 0;
	}
	return ANSWER_MORE;
}

/* Status */

static int step_status(struct answer *answer, struct outbox *outbox) {
	const struct server_options *options = answer->options;
	char *status = options->status ? options->status(options->userdata) : NULL;
	int r = put_raw(outbox, "{\"status\":", status ? status : "{}", "}");

	free(status);
	return r;
}

/* All of them */

int answer_begin(struct answer *answer, const struct server_options *options, uid_t uid, struct request *request) {
	struct pyspyd_event_filter open = { .uid = uid, .open = true };
	int r = 0;

	*answer = (struct answer){ .options = options, .request = *request, .uid = uid };
	request->kind = request->id = NULL;
	switch (answer->request.what) {
	case REQUEST_FINDINGS:
		answer->cursor = answer->request.after_seq;
		answer->last = pyspyd_store_last_seq(options->store);
		break;
	case REQUEST_PROCESSES: r = pyspyd_store_events(options->store, &open, count_open, answer); break;
	case REQUEST_PROFILES:
		r = pyspyd_store_processes(options->store, answer->request.pid, uid, keep_number, answer);
		break;
	case REQUEST_STATUS: break;
	}
	return r < 0 ? r : 0;
}

void answer_deinit(struct answer *answer) {
	request_deinit(&answer->request);
	free(answer->open);
	free(answer->processes);
	*answer = (struct answer){ 0 };
}

void answer_use_store(struct answer *answer, uint64_t shift) {
	switch (answer->request.what) {
	case REQUEST_FINDINGS:
		answer->cursor += shift;
		answer->last += shift;
		answer->told += answer->told ? shift : 0;
		break;
	case REQUEST_PROCESSES:
	case REQUEST_PROFILES: answer->stale = true; break;
	case REQUEST_STATUS: break;
	}
}

int answer_step(struct answer *answer, struct outbox *outbox) {
	if (answer->stale)
		return -ESTALE;
	switch (answer->request.what) {
	case REQUEST_FINDINGS: return step_findings(answer, outbox);
	case REQUEST_PROCESSES: return step_processes(answer, outbox);
	case REQUEST_PROFILES: return step_profiles(answer, outbox);
	case REQUEST_STATUS: return step_status(answer, outbox);
	}
	return -EINVAL;
}

int answer_end(const struct answer *answer, struct outbox *outbox) {
	if (answer->request.what == REQUEST_FINDINGS)
		return put_json(outbox, json_pack("{s:b, s:I}", "end", 1, "seq", (json_int_t)answer->told));
	return put_json(outbox, json_pack("{s:b}", "end", 1));
}

int answer_end_with(struct outbox *outbox, int code, const char *text) {
	return put_json(outbox, json_pack("{s:b, s:s, s:i}", "end", 1, "error", text, "code", code));
}
