/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_LOG_H
#define PYSPYD_DAEMON_LOG_H

#include <syslog.h>

/* What the service says of itself: lines on stderr, for the journal with their priority, for people with the time. */

void log_init(int foreground);
void log_say(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
