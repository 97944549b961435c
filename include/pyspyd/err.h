/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_ERR_H
#define PYSPYD_ERR_H

/* What went wrong, in a sentence for the person at the terminal.
 *
 * Functions that can explain a failure take `struct err *err` last (NULL: no explanation wanted). The code is the
 * function's return value; the exit status is derived from it by the caller. */

#define ERR_TEXT_MAX 1024

struct err {
	int code;                /* as returned: negative errno or a positive PYSPYD_E_… */
	char text[ERR_TEXT_MAX]; /* one line or more, no trailing newline; printable */
};

/* Named conditions of the public functions. */
enum {
	PYSPYD_E_GONE = 1,        /* no such process, or it ended (exit status 3) */
	PYSPYD_E_DENIED = 2,      /* not permitted: the text names the layer and the remedy (exit status 4) */
	PYSPYD_E_UNSUPPORTED = 3, /* not a Python process, or a version that is not supported (exit status 5) */
	PYSPYD_E_USAGE = 4,       /* an argument has a bad value (exit status 2) */
	PYSPYD_E_STARTING = 5,    /* looks like a Python that has not built its interpreter yet: try again */
};

#define ERR_FORMAT(f, a) __attribute__((format(printf, f, a)))

/* Sets code and text. err may be NULL. Return: code. */
int err_set(struct err *err, int code, const char *format, ...) ERR_FORMAT(3, 4);

/* Puts "context: " before the text that is there. err may be NULL. Return: code. */
int err_wrap(struct err *err, int code, const char *format, ...) ERR_FORMAT(3, 4);

#endif
