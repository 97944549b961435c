/* SPDX-License-Identifier: MIT */
/* Lines and values of the configuration. There are no quotes, no escapes, no continuation, and no comments behind
 * values: what stands right of the first '=' is the value, but for the spaces around it.
 *
 *     # thresholds
 *     [rule batch jobs]
 *     match-unit = nightly-*.service
 *     spiking-thread.for = 10m
 *
 * Text that must not be here at all (control characters, a missing bracket) is refused before anybody looks at what it
 * says. */
#include "daemon/config_parse.h"

#include "pyspyd/parse.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

#define DAY_NS 86400000000000.0
#define WORD_MAX 64 /* longer words are near to nothing */

static bool is_blank(char c) {
	return c == ' ' || c == '\t';
}

/* Takes the spaces off both ends, in place. */
static char *trim(char *s) {
	size_t n;

	while (is_blank(*s))
		s++;
	n = strlen(s);
	while (n && is_blank(s[n - 1]))
		n--;
	s[n] = '\0';
	return s;
}

static enum config_line_kind bad(struct config_line *ret, const char *reason) {
	*ret = (struct config_line){ .reason = reason };
	return CONFIG_BAD;
}

static enum config_line_kind cut_section(char *line, struct config_line *ret) {
	size_t n = strlen(line);
	char *name;

	if (line[n - 1] != ']')
		return bad(ret, "a section's line ends with ']'");
	line[n - 1] = '\0';
	line = trim(line + 1);
	name = line + strcspn(line, " \t");
	if (*name) {
		*name = '\0';
		name = trim(name + 1);
	}
	if (!*line)
		return bad(ret, "a section without a name");
	if (strlen(name) > CONFIG_NAME_MAX)
		return bad(ret, "a name of more than 64 bytes");
	*ret = (struct config_line){ .section = line, .name = name };
	return CONFIG_SECTION;
}

static enum config_line_kind cut_entry(char *line, struct config_line *ret) {
	char *equals = strchr(line, '=');

	if (!equals)
		return bad(ret, "neither a [section] nor KEY = VALUE");
	*equals = '\0';
	line = trim(line);
	if (!*line)
		return bad(ret, "no key in front of '='");
	if (strpbrk(line, " \t"))
		return bad(ret, "a key is one word");
	*ret = (struct config_line){ .key = line, .value = trim(equals + 1) };
	return CONFIG_ENTRY;
}

enum config_line_kind config_line_cut(char *line, struct config_line *ret_line) {
	for (const char *c = line; *c; c++)
		if ((unsigned char)*c < ' ' && *c != '\t')
			return bad(ret_line,
				*c == '\r' ? "ends with a carriage return: lines end with a newline alone"
					   : "a control character");
	line = trim(line);
	if (!*line || *line == '#' || *line == ';') {
		*ret_line = (struct config_line){ 0 };
		return CONFIG_EMPTY;
	}
	return *line == '[' ? cut_section(line, ret_line) : cut_entry(line, ret_line);
}

static size_t least_of(size_t a, size_t b, size_t c) {
	size_t least = a < b ? a : b;

	return least < c ? least : c;
}

/* How many letters must be put in, left out or changed to get from one word to the other (Levenshtein). */
static size_t distance(const char *a, const char *b) {
	size_t row[WORD_MAX + 1], n = strlen(b);

	if (n > WORD_MAX || strlen(a) > WORD_MAX)
		return WORD_MAX;
	for (size_t k = 0; k <= n; k++)
		row[k] = k;
	for (size_t i = 0; a[i]; i++) {
		size_t diagonal = row[0];

		row[0] = i + 1;
		for (size_t k = 0; k < n; k++) {
			size_t above = row[k + 1];

			row[k + 1] = least_of(above + 1, row[k] + 1, diagonal + (a[i] != b[k]));
			diagonal = above;
		}
	}
	return row[n];
}

const char *config_nearest(
	const char *word, const char *(*next)(const void *userdata, size_t i), const void *userdata, size_t n) {
	size_t third = strlen(word) / 3, best = third ? third + 1 : 2; /* beyond that they have nothing in common */
	const char *nearest = NULL;

	for (size_t i = 0; i < n; i++) {
		const char *name = next(userdata, i);
		size_t d = distance(word, name);

		if (d < best) {
			best = d;
			nearest = name;
		}
	}
	return nearest;
}

int config_parse_flag(const char *s, bool *ret) {
	static const char *const words[] = { "no", "yes", "off", "on", "false", "true" };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(s, words[i]) != 0)
			continue;
		*ret = i % 2;
		return 0;
	}
	return -EINVAL;
}

/* The number in front of a unit of one letter. */
static int parse_before(const char *s, char unit, double *ret) {
	char number[32];
	size_t n = strlen(s);

	if (!n || s[n - 1] != unit || n > sizeof(number))
		return -EINVAL;
	memcpy(number, s, n - 1);
	number[n - 1] = '\0';
	return parse_decimal(number, ret);
}

int config_parse_percent(const char *s, double *ret) {
	return parse_before(s, '%', ret) ? parse_decimal(s, ret) : 0;
}

int config_parse_duration(const char *s, uint64_t *ret_ns) {
	double days;

	if (parse_before(s, 'd', &days))
		return parse_duration(s, ret_ns);
	if (days > 100000)
		return -ERANGE;
	*ret_ns = (uint64_t)(days * DAY_NS + 0.5);
	return 0;
}

int config_parse_facility(const char *s, unsigned *ret) {
	static const char *const names[24] = { "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news",
		"uucp", "cron", "authpriv", "ftp", NULL, NULL, NULL, NULL, "local0", "local1", "local2", "local3",
		"local4", "local5", "local6", "local7" };
	uint64_t number;

	for (unsigned i = 0; i < 24; i++) {
		if (!names[i] || strcmp(s, names[i]) != 0)
			continue;
		*ret = i;
		return 0;
	}
	if (parse_u64(s, &number) || number >= 24)
		return -EINVAL;
	*ret = (unsigned)number;
	return 0;
}

int config_check_path(const char *s, struct err *err) {
	size_t n = strlen(s);

	if (*s != '/')
		return err_set(err, -EINVAL, "is not an absolute path");
	if (s[n - 1] == '/')
		return err_set(err, -EINVAL, "is a folder's name, not a file's");
	return 0;
}

int config_check_socket(const char *s, struct err *err) {
	int r = config_check_path(s, err);

	if (r)
		return r;
	if (strlen(s) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return err_set(err, -EINVAL, "is too long for a socket (%zu bytes at most)",
			sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	return 0;
}

static bool is_port(const char *s) {
	uint64_t port;

	return !parse_u64(s, &port) && port > 0 && port < 65536;
}

/* "ADDRESS:PORT", "[ADDRESS]:PORT": numbers alone, so that nothing is asked of a name server. */
static bool is_endpoint(const char *s) {
	char address[INET6_ADDRSTRLEN];
	struct in6_addr unused;
	bool v6 = *s == '[';
	const char *start = s + v6, *end = strrchr(s, ':');
	size_t n;

	if (!end || !is_port(end + 1) || end - start < 1 + v6)
		return false;
	n = (size_t)(end - start) - v6;
	if (n >= sizeof(address) || (v6 && end[-1] != ']'))
		return false;
	memcpy(address, start, n);
	address[n] = '\0';
	return inet_pton(v6 ? AF_INET6 : AF_INET, address, &unused) == 1;
}

int config_check_listen(const char *s, struct err *err) {
	if (*s == '/')
		return config_check_socket(s, err);
	if (!is_endpoint(s))
		return err_set(err, -EINVAL, "is neither ADDRESS:PORT with a numeric address nor a socket's path");
	return 0;
}

static bool is_printable_ascii(const char *s) {
	for (; *s; s++)
		if (*s <= ' ' || *s > '~')
			return false;
	return true;
}

static bool is_host(const char *s, size_t n) {
	if (!n || n > 255)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && !strchr(".-_:%", s[i]))
			return false;
	return true;
}

/* "HOST", "HOST:PORT", "[ADDRESS]:PORT" */
static bool is_authority(const char *s, size_t n) {
	char text[320], *host = text, *end;

	if (!n || n >= sizeof(text))
		return false;
	memcpy(text, s, n);
	text[n] = '\0';
	if (*text == '[') {
		host++;
		end = strchr(text, ']');
		if (!end)
			return false;
		*end++ = '\0';
		if (*end && *end != ':')
			return false;
	} else {
		end = text + strcspn(text, ":");
	}
	if (*end == ':') {
		*end++ = '\0';
		if (!is_port(end))
			return false;
	}
	return is_host(host, strlen(host));
}

int config_check_url(const char *s, struct err *err) {
	const char *host = s;

	if (!strncasecmp(s, "http://", 7))
		host += 7;
	else if (!strncasecmp(s, "https://", 8))
		host += 8;
	else
		return err_set(err, -EINVAL, "does not begin with http:// or https://");
	if (!is_printable_ascii(s))
		return err_set(err, -EINVAL, "has characters that no URL has");
	if (!is_authority(host, strcspn(host, "/?#")))
		return err_set(err, -EINVAL, "has no HOST or HOST:PORT behind the scheme");
	return 0;
}

int config_check_host(const char *s, struct err *err) {
	if (*s == '/')
		return config_check_socket(s, err);
	return is_host(s, strlen(s)) ? 0 : err_set(err, -EINVAL, "is neither a host nor a socket's path");
}

/* A bracket is closed by the first ']' behind its first character, as fnmatch reads it. */
static const char *skip_bracket(const char *s) {
	s++;
	if (*s == '!' || *s == '^')
		s++;
	return *s ? strchr(s + 1, ']') : NULL;
}

int config_check_glob(const char *s, struct err *err) {
	for (; *s; s++) {
		if (*s == '\\') {
			if (!*++s)
				return err_set(err, -EINVAL, "ends in a backslash");
			continue;
		}
		if (*s != '[')
			continue;
		s = skip_bracket(s);
		if (!s)
			return err_set(err, -EINVAL, "has a '[' that is not closed");
	}
	return 0;
}

int config_check_account(const char *s, struct err *err) {
	size_t n = strlen(s);

	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && !strchr("._-@+\\", s[i]) && !(s[i] == '$' && i + 1 == n))
			return err_set(err, -EINVAL, "is neither a name nor a number");
	return n && *s != '-' ? 0 : err_set(err, -EINVAL, "is neither a name nor a number");
}

int config_check_site(const char *s, struct err *err) {
	const char *colon = strchr(s, ':');

	return colon && colon != s && colon[1] ? 0 : err_set(err, -EINVAL, "'%s' is not MODULE:QUALNAME", s);
}

int config_check_header(const char *name, const char *value, struct err *err) {
	for (const char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("!#$%&'*+-.^_`|~", *c))
			return err_set(err, -EINVAL, "'%s' is not a header's name", name);
	if (!*name || !*value)
		return err_set(err, -EINVAL, "a header has a name and a value");
	return 0;
}
