/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_LENGTH_H
#define PYSPYD_CPYTHON_LENGTH_H

#include "engine/cpython/reader.h"
#include <stdbool.h>

/* What len() or qsize() would say: of dict, list, tuple, set, frozenset, str, bytes, bytearray, array, deque and
 * classes derived from them, as the builtin counts; of _queue.SimpleQueue, and of queue.Queue and asyncio.Queue with
 * their kin. Return: 0; PY_E_TYPE: of another type, or torn; MEM_E_*; negative errno. */
int py_length_read(const struct py_reader *py, raddr object, size_t *ret_n);

/* Whether a class is one of the queues in Python code that py_length_read knows, itself and no subclass. */
bool py_length_knows_queue(const struct py_reader *py, raddr type);

/* A class that a class is derived from first. Return: 0 with 0 where there is none; MEM_E_*; negative errno. */
int py_type_base(const struct py_reader *py, raddr type, raddr *ret_base);

#endif
