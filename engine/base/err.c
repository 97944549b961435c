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

int err_wrap(struct err *err, int code, const char *format, ...) {
	char inner[ERR_TEXT_MAX];
	va_list args;
	int n;

	if (!err)
		return code;
	memcpy(inner, err->text, sizeof(inner));
	va_start(args, format);
	n = vsnprintf(err->text, sizeof(err->text), format, args);
	va_end(args);
	if (n >= 0 && (size_t)n < sizeof(err->text))
		snprintf(err->text + n, sizeof(err->text) - (size_t)n, ": %s", inner);
	err->code = code;
	return code;
}
