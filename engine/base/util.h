/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_BASE_UTIL_H
#define PYSPYD_BASE_UTIL_H

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Ownership by scope, and small arithmetic. */

typedef uint64_t raddr; /* an address in a target; never a pointer of ours */

#define _cleanup_(f) __attribute__((cleanup(f)))
#define _unused_ __attribute__((unused))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Each use gets names of its own, so that one may stand in another. */
#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define COMPARE_(a, op, b, x, y) \
	({ \
		__typeof__(a) x = (a); \
		__typeof__(b) y = (b); \
		x op y ? x : y; \
	})
#define min_of(a, b) COMPARE_(a, <, b, PASTE(x_, __COUNTER__), PASTE(y_, __COUNTER__))
#define max_of(a, b) COMPARE_(a, >, b, PASTE(x_, __COUNTER__), PASTE(y_, __COUNTER__))

/* Moves a pointer out of a variable that is cleaned up. */
#define take_ptr(p) \
	({ \
		__typeof__(p) _p = (p); \
		(p) = NULL; \
		_p; \
	})

static inline int take_fd(int *fd) {
	int value = *fd;

	*fd = -1;
	return value;
}

static inline void close_fd(int *fd) {
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static inline void free_ptr(void *p) {
	free(*(void **)p);
}

static inline void close_dir(DIR **dir) {
	if (*dir)
		closedir(*dir);
}

static inline void close_file(FILE **file) {
	if (*file)
		fclose(*file);
}

#define _free_ _cleanup_(free_ptr)
#define _close_ _cleanup_(close_fd)
#define _closedir_ _cleanup_(close_dir)
#define _fclose_ _cleanup_(close_file)

#endif
