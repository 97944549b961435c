/* SPDX-License-Identifier: MIT */
/* Points in time. Strict: the whole word, fixed numbers of digits, no month 13 and no 30th of February. */
#include "cli/when.h"

#include "cli/cli.h"
#include "pyspyd/parse.h"
#include <string.h>
#include <time.h>

#define SECONDS_MAX (INT64_MAX / 1000000000)

static bool is_digit(char c) {
	return c >= '0' && c <= '9';
}

/* Reads exactly so many digits. */
static bool scan_number(const char **s, int digits, int most, int *ret) {
	int value = 0;

	for (int i = 0; i < digits; i++) {
		if (!is_digit((*s)[i]))
			return false;
		value = value * 10 + ((*s)[i] - '0');
	}
	*s += digits;
	*ret = value;
	return value <= most;
}

static bool scan_char(const char **s, const char *any_of) {
	if (!**s || !strchr(any_of, **s))
		return false;
	++*s;
	return true;
}

/* "14:30", "14:30:15", with `fraction` "14:30:15.5". */
static bool scan_clock(const char **s, bool fraction, struct tm *tm, uint64_t *ret_ns) {
	uint64_t place = NS_PER_SEC / 10;

	*ret_ns = 0;
	tm->tm_sec = 0;
	if (!scan_number(s, 2, 23, &tm->tm_hour) || !scan_char(s, ":") || !scan_number(s, 2, 59, &tm->tm_min))
		return false;
	if (!scan_char(s, ":"))
		return true;
	if (!scan_number(s, 2, 60, &tm->tm_sec)) /* a leap second is the next one */
		return false;
	if (!fraction || !scan_char(s, "."))
		return true;
	if (!is_digit(**s))
		return false;
	for (; is_digit(**s); ++*s, place /= 10)
		*ret_ns += (uint64_t)(**s - '0') * place;
	return true;
}

static bool scan_date(const char **s, struct tm *tm) {
	struct tm there;

	if (!scan_number(s, 4, 9999, &tm->tm_year) || !scan_char(s, "-") || !scan_number(s, 2, 12, &tm->tm_mon) ||
		!scan_char(s, "-") || !scan_number(s, 2, 31, &tm->tm_mday) || !tm->tm_mon || !tm->tm_mday)
		return false;
	tm->tm_year -= 1900;
	tm->tm_mon--;
	there = *tm;
	return timegm(&there) != -1 && there.tm_mday == tm->tm_mday;
}

/* What stands behind a time: "Z", "+02:00", "+0200"; nothing: local time. */
static bool scan_zone(const char **s, struct tm *tm, time_t *ret) {
	int hours, minutes, sign = **s == '-' ? -1 : 1;

	if (!**s) {
		tm->tm_isdst = -1;
		*ret = mktime(tm);
		return true;
	}
	*ret = timegm(tm);
	if (scan_char(s, "Zz"))
		return true;
	if (!scan_char(s, "+-") || !scan_number(s, 2, 23, &hours))
		return false;
	scan_char(s, ":");
	if (!scan_number(s, 2, 59, &minutes))
		return false;
	*ret -= sign * (hours * 3600 + minutes * 60);
	return true;
}

static bool parse_date(const char *s, uint64_t *ret_ns) {
	struct tm tm = { 0 };
	uint64_t ns = 0;
	time_t seconds;

	if (!scan_date(&s, &tm))
		return false;
	if (*s && (!scan_char(&s, "Tt ") || !scan_clock(&s, true, &tm, &ns)))
		return false;
	if (!scan_zone(&s, &tm, &seconds) || *s || seconds < 0 || seconds >= SECONDS_MAX)
		return false;
	*ret_ns = (uint64_t)seconds * NS_PER_SEC + ns;
	return true;
}

static bool parse_clock(const char *s, uint64_t now_ns, uint64_t *ret_ns) {
	time_t now = (time_t)(now_ns / NS_PER_SEC), seconds;
	struct tm today, tm;
	uint64_t ns;

	if (!localtime_r(&now, &today))
		return false;
	tm = today;
	if (!scan_clock(&s, false, &tm, &ns) || *s)
		return false;
	tm.tm_isdst = -1;
	today = tm;
	seconds = mktime(&tm);
	if (seconds > now) {
		today.tm_mday--;
		seconds = mktime(&today);
	}
	if (seconds < 0)
		return false;
	*ret_ns = (uint64_t)seconds * NS_PER_SEC;
	return true;
}

int when_parse(const char *s, uint64_t now_real_ns, uint64_t *ret_real_ns) {
	uint64_t ago_ns;

	if (!strcmp(s, "now")) {
		*ret_real_ns = now_real_ns;
		return 0;
	}
	if (!parse_duration(s, &ago_ns)) {
		if (ago_ns > now_real_ns)
			return -1;
		*ret_real_ns = now_real_ns - ago_ns;
		return 0;
	}
	return parse_clock(s, now_real_ns, ret_real_ns) || parse_date(s, ret_real_ns) ? 0 : -1;
}

uint64_t when_now_ns(void) {
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

const char *when_format(uint64_t real_ns, char out[WHEN_SIZE]) {
	time_t seconds = (time_t)(real_ns / NS_PER_SEC);
	struct tm tm;

	if (!localtime_r(&seconds, &tm) || !strftime(out, WHEN_SIZE, "%Y-%m-%d %H:%M:%S%z", &tm))
		out[0] = '\0';
	return out;
}
