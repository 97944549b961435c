/* SPDX-License-Identifier: MIT */
/* Sees what a process makes, and says it as JSON. usage: origins_driver PID
 *
 * Prints "watching" when it does; then for each line on stdin but these what there is: "hold" begins a pause, "go"
 * ends it. { things[ {what, id, bytes, call, place}
 * ], places[ {own, stack[ {function, file, line} ]} ], left_out, paused_s }. Exits with 77 and the reason where the
 * kernel lets no program in. */
#include "engine/finding/stack_json.h"
#include "engine/pipeline/origins.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEND_MS 20

static json_t *things_json(const created_things *things) {
	static const char *const names[] = { "descriptor", "thread", "child", "mapping" };
	json_t *array = json_array();

	vec_foreach (thing, things)
		json_array_append_new(array,
			json_pack("{s:s, s:I, s:I, s:s, s:I}", "what", names[thing->what], "id", (json_int_t)thing->id,
				"bytes", (json_int_t)thing->bytes, "call", thing->call, "place",
				(json_int_t)thing->origin));
	return array;
}

static json_t *places_json(const struct pyspyd_origin *places, size_t n) {
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(array,
			json_pack("{s:I, s:o}", "own", (json_int_t)places[i].own, "stack",
				stack_json_frames(places[i].frames, places[i].frames_n)));
	return array;
}

static int say(struct origins *origins, pid_t pid) {
	struct origins_state state;
	created_things things = { 0 };
	struct pyspyd_origin *places;
	json_t *object;
	size_t n;
	int r = origins_things(origins, pid, &things, &state);

	if (!r)
		r = origins_places(origins, pid, &things, &places, &n);
	if (r) {
		vec_free(&things);
		return r;
	}
	object = json_pack("{s:o, s:o, s:I, s:f}", "things", things_json(&things), "places", places_json(places, n),
		"left_out", (json_int_t)state.left_out, "paused_s", (double)state.paused_ns / 1e9);
	json_dumpf(object, stdout, JSON_COMPACT);
	puts("");
	fflush(stdout);
	json_decref(object);
	pyspyd_origin_places_free(places, n);
	vec_free(&things);
	return 0;
}

/* Return: whether there was a line. */
static bool asked(char *line, size_t size) {
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	ssize_t n;

	if (poll(&in, 1, 0) <= 0)
		return false;
	n = read(STDIN_FILENO, line, size - 1);
	if (n <= 0)
		exit(0);
	line[n] = '\0';
	return true;
}

static int answer(struct origins *origins, pid_t pid, const char *line) {
	bool hold = !strcmp(line, "hold\n");

	if (!hold && strcmp(line, "go\n"))
		return say(origins, pid);
	origins_hold(origins, hold);
	puts(hold ? "held" : "goes");
	fflush(stdout);
	return 0;
}

int main(int argc, char **argv) {
	struct origins *origins;
	struct err err = { 0 };
	char line[64];
	pid_t pid = argc > 1 ? atoi(argv[1]) : 0;
	int r = origins_new(&origins, &err);

	if (r) {
		printf("%s\n", err.text);
		return r == PYSPYD_E_DENIED || r == PYSPYD_E_UNSUPPORTED ? 77 : 1;
	}
	r = origins_watch(origins, pid, 0, &err);
	if (!r)
		printf("watching\n");
	fflush(stdout);
	while (!r) {
		origins_tend(origins, TEND_MS);
		if (asked(line, sizeof(line)))
			r = answer(origins, pid, line);
	}
	printf("%d %s\n", r, err.text);
	origins_free(origins);
	return 1;
}
