/* SPDX-License-Identifier: MIT */
/* Error texts that gain context on the way up. */
#include "pyspyd/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int code, const char *format, ...) {
	va_list args;

	if (!err)
		return code;
	err->code = code;
	va_start(args, format);
	vsnprintf(err->text, sizeof(err->text), format, args);
	va_end(args);
	return code;
}

/* Appends what there is room for. */
static void append(struct err *err, const char *text) {
	size_t used = strlen(err->text), n = strnlen(text, sizeof(err->text) - 1 - used);

	memcpy(err->text + used, text, n);
	err->text[used + n] = '\0';
}

int err_wrap(struct err *err, int code, const char *format, ...) {
	char inner[ERR_TEXT_MAX];
	va_list args;

	if (!err)
		return code;
	memcpy(inner, err->text, sizeof(inner));
	va_start(args, format);
	vsnprintf(err->text, sizeof(err->text), format, args);
	va_end(args);
	append(err, ": ");
	append(err, inner);
	err->code = code;
	return code;
}
