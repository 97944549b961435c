/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_WAITS_KNOTS_H
#define PYSPYD_WAITS_KNOTS_H

#include "pyspyd/waits.h"

/* Solves a graph (graph.h) as a look built it: threads that idle and that nobody needs are free, a lock that only stuck
 * threads might release is never released, and knots that rest on a closed world alone are dropped. Return: 0; -ENOMEM.
 */
int knots_find(struct pyspyd_waits *waits);

#endif
