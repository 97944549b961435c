/* SPDX-License-Identifier: MIT */
/* Greenlets that are suspended, each a task that somebody has to switch to.
 *
 * Who that will be is recorded nowhere: the hub of gevent or eventlet when an event comes, or any other greenlet. So
 * they wait for something that is free, and prove nothing. Where all greenlets of a gevent program wait for each other,
 * its hub has nothing left to wait for and raises LoopExit by itself. */
#include "engine/cpython/greenlets.h"
#include "engine/waits/scan.h"
#include <string.h>

static uint32_t hub_node(struct wait_scan *scan, const struct wait_view *view) {
	return scan_resource(scan, "switch", view->proc.pid, 0, scan_key("switch", (uint64_t)view->proc.pid, 0), NULL,
		"a switch by the hub or another greenlet");
}

static size_t decode(const struct wait_view *view, const struct py_greenlet *greenlet, struct view_frame *frames) {
	struct sample_target *target = view->python->target;
	size_t n = 0;

	pthread_mutex_lock(&target->lock);
	for (size_t i = 0; i < greenlet->frames_n; i++) {
		frames[n] = (struct view_frame){ .raw = greenlet->frames[i] };
		if (view_frame_decode(target, 0, i == 0, &frames[n]))
			break;
		n++;
	}
	pthread_mutex_unlock(&target->lock);
	return n;
}

static const char *base_name(const char *type) {
	const char *dot = strrchr(type, '.');

	return dot && dot[1] ? dot + 1 : type;
}

static int add_greenlet(struct wait_scan *scan, const struct wait_view *view, const struct py_greenlet *greenlet) {
	struct view_frame frames[PY_GREENLET_FRAMES_MAX];
	const struct view_thread like = { .frames = frames, .frames_n = decode(view, greenlet, frames) };
	uint32_t index = scan_resource(scan, "greenlet", view->proc.pid, greenlet->object,
		scan_key("object", (uint64_t)view->proc.pid, greenlet->object), NULL, "%s 0x%llx",
		base_name(greenlet->type), (unsigned long long)greenlet->object);
	struct pyspyd_wait_node *node = scan_node(scan, index);

	if (index == WAITS_NONE)
		return -ENOMEM;
	node->kind = PYSPYD_WAIT_TASK;
	node->rule = PYSPYD_WAIT_ANY;
	if (like.frames_n)
		node->stamp = hash_mix(frames[0].raw.frame ^ hash_mix((uint64_t)frames[0].raw.instr));
	if (scan_fill_frames(&like, node))
		return -ENOMEM;
	scan_edge(scan, index, hub_node(scan, view), NULL, NULL);
	return 0;
}

void scan_greenlets(struct wait_scan *scan, struct wait_view *view) {
	py_greenlet_vec greenlets = { 0 };

	if (!view->python)
		return;
	for (size_t i = 0; i < view->interps.n; i++) {
		int r = py_greenlets_read(&view->python->rt, view->interps.items[i].addr, &greenlets);

		if (r == PY_E_TORN)
			(void)!waits_add_note(scan->waits,
				"process %d uses greenlets, which cannot be read with this version of Python or of the "
				"module greenlet: where they wait is not known",
				(int)view->proc.pid);
		else if (r && r != PY_E_TYPE)
			(void)!waits_add_note(scan->waits, "process %d may have more greenlets than those shown",
				(int)view->proc.pid);
	}
	for (size_t i = 0; !scan->failed && i < greenlets.n; i++)
		if (add_greenlet(scan, view, &greenlets.items[i]))
			scan->failed = true;
	vec_free(&greenlets);
}
