/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_LEAKS_ROOTS_H
#define PYSPYD_LEAKS_ROOTS_H

#include "engine/base/strbuf.h"
#include "engine/cpython/runtime.h"

/* Where references begin, forwards: what modules, classes, functions, running frames and caches hold, each with the
 * shortest path to it as Python writes it. A map of the objects near the roots; what lies deeper is found backwards
 * (referrers.h) until an object of this map is met.
 *
 *   registry.Registry._seen                       global of a module, attribute of a class
 *   app.handler.<closure>.seen                    variable of a closure
 *   app.handler.<defaults>.cache                  default value of a parameter
 *   app.load.<cache>                              functools.lru_cache and functools.cache; what a bounded one keeps is
 *                                                 app.load.<cache>['key'].<result>
 *   app.local.rows                                attribute of a threading.local, in any thread
 *   app.error.__traceback__.tb_frame.<locals>.row variable of a frame that an exception keeps
 *   app.task.<coroutine>.<locals>.row             … of the coroutine of an asyncio.Task
 *   app.rows.<locals>.row                         variable of a generator or coroutine that is suspended
 *   app.pool._workers                             attribute of an instance, by __dict__, inline values or slots
 *   app.CONFIG['hosts'][0]                        item of a small dict, list or tuple; a key that is no str or int: […]
 *   serve.<locals>.rows (in thread MainThread)    local variable of a running frame
 *   logging.Logger.manager.loggerDict             … and so on
 *
 * The script that runs is named by its file, as in py_path. */

struct root_map;

struct root_limits {
	size_t objects;    /* entries at most; 0: ROOT_OBJECTS */
	unsigned depth;    /* steps from a root at most; 0: ROOT_DEPTH */
	uint64_t until_ns; /* CLOCK_MONOTONIC */
};

#define ROOT_OBJECTS 400000
#define ROOT_DEPTH 6
#define ROOT_ITEMS 1000 /* of one container that are gone into; of longer ones none: those are found backwards */

/* Breadth first, so that the first path is a shortest one. Among those as short, globals come before variables of
 * frames, the program's modules before installed ones and the standard library, the module that defines a class or
 * function before others that have it, and classes before instances. `rt` must outlive the map. A limit met makes the
 * map incomplete, not wrong. Return: 0; MEM_E_GONE; negative errno. */
int root_map_build(const struct py_runtime *rt, const struct root_limits *limits, struct root_map **ret_map);
void root_map_free(struct root_map *map);

/* How many objects are in it; whether a limit was met. */
size_t root_map_count(const struct root_map *map);
bool root_map_is_incomplete(const struct root_map *map);

/* Whether the object is in the map; with how many steps. */
bool root_map_has(const struct root_map *map, raddr object, unsigned *ret_steps);

/* Appends the object's path, names read anew and made printable. Return: 0; PY_E_TYPE: it is not in the map;
 * MEM_E_GONE; -ENOMEM. */
int root_map_path(const struct root_map *map, raddr object, struct strbuf *out);

/* The same with more steps behind it, as root_step writes them: before what says which thread it is. */
int root_map_path_to(const struct root_map *map, raddr object, const char *rest, struct strbuf *out);

/* Appends the step from an object to another that it refers to, as a path goes on: ".name", "['key']", "[3]", "[…]",
 * ".<closure>.name", ".<defaults>.name", ".<cache>", ".<locals>.name", ".__class__". "" where it is not known by which.
 * Looks at no more than ROOT_ITEMS items of a container: those of longer ones are "[…]". One step goes over what Python
 * does not show (a dict of attributes, a function's tuples, cells), so ask for the objects before and behind such a one
 * first; asked for alone they are ".__dict__" and then "['key']", ".__closure__" and then "[0]". Return: 0; MEM_E_GONE;
 * -ENOMEM. */
int root_step(const struct py_runtime *rt, raddr from, raddr to, struct strbuf *out);

#endif
