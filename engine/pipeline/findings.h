/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_FINDINGS_H
#define PYSPYD_PIPELINE_FINDINGS_H

#include "engine/detect/detect.h"
#include "engine/pipeline/watched.h"

/* From a watch's samples and counters to findings: feeds the detectors, keeps the findings' lives, hands events to the
 * watch's callback. */

struct findings;

/* Reads the settings ("DETECTOR.KEY=VALUE"). Return: 0; PYSPYD_E_USAGE for one that there is not, or whose value is
 * bad; -ENOMEM. */
int findings_new(const struct pyspyd_watch_options *options, struct recorder *const *recorder,
	struct findings **ret_findings, struct err *err);
void findings_free(struct findings *findings);

/* What a rule says of a process, from now on. What was decided stands. A setting that there is not is passed over: see
 * pyspyd_watch_check_setting. Return: 0; -ENOMEM. */
int findings_rule(struct findings *findings, struct watched *watched, const struct pyspyd_watch_rule *rule);

/* The options' settings may be others: findings_rule is to follow for each process. */
void findings_reload(struct findings *findings);

/* How many findings are open about a process. */
unsigned findings_open(const struct watched *watched);

/* The processes of the watch in this interval, and the waiting side of it; good until the next call. `period_ns`: from
 * one interval to the next, as it was meant to be. */
struct waiting;
void findings_watch(
	struct findings *findings, const pid_t *pids, size_t n, const struct waiting *waiting, uint64_t period_ns);

/* One interval of one process, after watched_update. Return: 0; a callback's value; -ENOMEM. */
int findings_feed(struct findings *findings, struct watched *watched, uint64_t now_ns);

/* Once in each interval: of what an earlier watch has left open, what nobody will raise again is told of. Return: 0; a
 * callback's value. */
int findings_tend_left(struct findings *findings, uint64_t now_ns);

/* The process has ended: what was open about it is resolved. `end`: how, and whether that is a finding; NULL: not
 * known.
 */
int findings_end(struct findings *findings, struct watched *watched, const struct detect_end *end, uint64_t now_ns);

/* Lets go of what is kept for a process. */
void findings_forget(struct findings *findings, struct watched *watched);

#endif
