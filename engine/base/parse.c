/* SPDX-License-Identifier: MIT */
/* Numbers, durations and sizes as people type them. Accepts digits with at most one point, then a unit out of a table;
 * no signs, no spaces, no exponents, no locale. */
#include "pyspyd/parse.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include <errno.h>
#include <float.h>
#include <limits.h>
#include <string.h>

struct unit {
	const char *name;
	double factor;
};

static bool is_digit(char c) {
	return c >= '0' && c <= '9';
}

int parse_u64(const char *s, uint64_t *ret) {
	uint64_t value = 0;

	if (!is_digit(*s))
		return -EINVAL;
	for (; is_digit(*s); s++)
		if (__builtin_mul_overflow(value, 10, &value) ||
			__builtin_add_overflow(value, (uint64_t)(*s - '0'), &value))
			return -ERANGE;
	if (*s)
		return -EINVAL;
	*ret = value;
	return 0;
}

int parse_pid(const char *s, pid_t *ret) {
	uint64_t value;
	int r = parse_u64(s, &value);

	if (r)
		return r;
	if (value == 0 || value > INT_MAX)
		return -ERANGE;
	*ret = (pid_t)value;
	return 0;
}

/* Reads "12.5" and leaves *s behind it. */
static int scan_decimal(const char **s, double *ret) {
	double value = 0, place = 1;
	const char *p = *s;

	if (!is_digit(*p))
		return -EINVAL;
	for (; is_digit(*p); p++)
		value = value * 10 + (*p - '0');
	if (*p == '.') {
		if (!is_digit(p[1]))
			return -EINVAL;
		for (p++; is_digit(*p); p++)
			value += (*p - '0') * (place /= 10);
	}
	if (value > DBL_MAX)
		return -ERANGE;
	*s = p;
	*ret = value;
	return 0;
}

static int parse_with_unit(const char *s, const struct unit *units, uint64_t *ret) {
	double value;
	int r = scan_decimal(&s, &value);

	if (r)
		return r;
	for (; units->name; units++) {
		if (strcmp(s, units->name))
			continue;
		value *= units->factor;
		if (value >= 9.2e18)
			return -ERANGE;
		*ret = (uint64_t)(value + 0.5);
		return 0;
	}
	return -EINVAL;
}

int parse_duration(const char *s, uint64_t *ret_ns) {
	static const struct unit units[] = {
		{ "", 1e9 },
		{ "ms", 1e6 },
		{ "s", 1e9 },
		{ "m", 60e9 },
		{ "h", 3600e9 },
		{ NULL, 0 },
	};

	return parse_with_unit(s, units, ret_ns);
}

int parse_size(const char *s, uint64_t *ret_bytes) {
	static const struct unit units[] = {
		{ "", 1 },
		{ "K", 1024.0 },
		{ "M", 1024.0 * 1024 },
		{ "G", 1024.0 * 1024 * 1024 },
		{ NULL, 0 },
	};

	return parse_with_unit(s, units, ret_bytes);
}

int parse_decimal(const char *s, double *ret) {
	double value;
	int r = scan_decimal(&s, &value);

	if (r)
		return r;
	if (*s)
		return -EINVAL;
	*ret = value;
	return 0;
}
