/* SPDX-License-Identifier: MIT */
#include "daemon/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static bool for_journal;

void log_init(int foreground) {
	for_journal = !foreground && getenv("JOURNAL_STREAM");
}

void log_say(int priority, const char *format, ...) {
	char line[2048], stamp[32] = "";
	time_t now = time(NULL);
	struct tm tm;
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	for (char *c = line; *c; c++) /* foreign text may be part of it */
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	if (for_journal) {
		fprintf(stderr, "<%d>%s\n", priority, line);
		return;
	}
	if (gmtime_r(&now, &tm))
		strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ ", &tm);
	fprintf(stderr, "%spyspyd: %s\n", stamp, line);
}
