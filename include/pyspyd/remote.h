/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_REMOTE_H
#define PYSPYD_REMOTE_H

#include "pyspyd/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The service's socket: a stream of frames. A frame is its length (4 bytes, big-endian, of what follows the head), a
 * letter (1 byte), and that many bytes: 'J' one JSON object in UTF-8, 'B' bytes that the J frame before it tells of.
 *
 * The service speaks first:  {"schema": "pyspyd.socket/1", "version": "0.1.0", "sees": "own"|"all"}
 * or, where it has too many connections already, an end (below). Then requests, one at a time:
 *   {"request": "findings", "after_seq": N, "since_ns": N, "until_ns": N, "kind": K, "pid": P, "id": ID, "open": bool,
 *    "latest": bool, "follow": bool, "most": N}
 *                                    each event: {"event": {…pyspyd.finding/1…}, "seq": N}
 *   {"request": "processes"}         each: {"process": {"pid", "start_ns", "uid", "name", "cmdline", "unit",
 *                                    "container", "seen_ns", "watched", "findings_open"}}
 *   {"request": "profiles", "pid": P, "since_ns": N, "until_ns": N}
 *                                    each: {"profile": {"pid", "process_start_ns", "start_ns", "end_ns"}} and a B frame
 *                                    (pyspyd/flight.h): of every process that had the pid, what overlaps the time
 *   {"request": "status"}            {"status": {"version", "privileges" (pyspyd/doctor.h), …counters…}}
 * Every answer ends with {"end": true}, or {"end": true, "error": "…", "code": N} (a positive code of pyspyd/err.h, or
 * a negative errno). All but "request" (and "pid" of profiles) may be missing; what is not known is an error. Times are
 * nanoseconds of CLOCK_REALTIME. Of others' processes a user who may not see them learns nothing: they are as if they
 * were not there.
 *
 * Events come in the order of their numbers ("seq"), written {"event":…,"seq":N} around the very line that is kept.
 * "latest": of each finding only its last event; "open": of those that are open; "most": ends after so many. The end of
 * findings has a "seq": up to there everything was told; a request with "after_seq" goes on behind it. With "follow"
 * there is no end: "latest" and "open" choose among what is there, what comes later comes whole. Requests beyond the
 * rate that a user is given wait. */

#define PYSPYD_SOCKET "/run/pyspyd/pyspyd.sock"
#define PYSPYD_FRAME_HEAD 5
#define PYSPYD_REQUEST_MAX (64U << 10) /* bytes of a request */
#define PYSPYD_ANSWER_MAX (16U << 20)  /* bytes of one frame of an answer */

/* Pure. Return: whether there is a whole head; *ret_len may be beyond any limit, which is the caller's to check. */
bool pyspyd_frame_parse(const uint8_t *bytes, size_t n, uint32_t *ret_len, char *ret_letter);
void pyspyd_frame_head(uint32_t len, char letter, uint8_t out[PYSPYD_FRAME_HEAD]);

struct pyspyd_remote;

/* Connects and reads what the service says first. `path`: NULL: $PYSPYD_SOCKET, else the usual one. Return: 0; -ENOENT,
 * -ECONNREFUSED: no service runs here; -EACCES; PYSPYD_E_UNSUPPORTED: it speaks another version; negative errno. */
int pyspyd_remote_open(const char *path, struct pyspyd_remote **ret_remote, struct err *err);
/* The same; *stop ends the waiting for it, with -EINTR. */
int pyspyd_remote_open_unless(
	const char *path, const volatile int *stop, struct pyspyd_remote **ret_remote, struct err *err);
void pyspyd_remote_close(struct pyspyd_remote *remote);
bool pyspyd_remote_sees_all(const struct pyspyd_remote *remote);

/* One request, whose answers are handed to `each`: the JSON text of a J frame, with the bytes of the B frame behind it
 * where it announces one (else NULL and 0). They stand during the call. `each` ends the answer by returning non-zero,
 * which is returned; the connection is then of no more use. *stop (may be NULL) ends it as well, with -EINTR. Return:
 * 0; what the service says went wrong, with its text; -EPROTO; negative errno. */
int pyspyd_remote_ask(struct pyspyd_remote *remote, const char *request, const volatile int *stop,
	int (*each)(void *userdata, const char *json, const void *data, size_t len), void *userdata, struct err *err);

/* The "seq" of the last end; 0: it had none. */
uint64_t pyspyd_remote_seq(const struct pyspyd_remote *remote);

#endif
