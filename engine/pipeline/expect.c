/* SPDX-License-Identifier: MIT */
/* What versions are expected, as pip writes it down:
 *
 *   # comment
 *   requests==2.31.0            # another
 *   uvicorn[standard]==0.23.2 \
 *       --hash=sha256:1f9be6…
 *
 * Only exact versions: ranges, wildcards, markers, URLs and files that are included are refused, since a line that is
 * passed over would look like one that is met. */
#include "engine/pipeline/expect.h"

#include "engine/base/strbuf.h"
#include "engine/base/util.h"
#include <ctype.h>
#include <string.h>
#include <strings.h>

#define LINE_SHOWN 200
#define VERSION_MAX 256

struct parser {
	const char *file;
	unsigned line;
	const char *requirement;
	struct err *err;
};

static bool is_name_char(char c) {
	return isalnum((unsigned char)c) || strchr("-_.", c);
}

static bool is_separator(char c) {
	return c == '-' || c == '_' || c == '.';
}

static bool is_version_char(char c) {
	return isalnum((unsigned char)c) || strchr(".-_+!", c);
}

static int mistake(const struct parser *p, const char *what) {
	_cleanup_(strbuf_deinit) struct strbuf line = { 0 }, file = { 0 };

	strbuf_add_printable(&file, p->file, strnlen(p->file, LINE_SHOWN));
	strbuf_add_printable(&line, p->requirement, strnlen(p->requirement, LINE_SHOWN));
	return err_set(
		p->err, PYSPYD_E_USAGE, "%s, line %u: '%s': %s", strbuf_str(&file), p->line, strbuf_str(&line), what);
}

static const char *skip_spaces(const char *s) {
	while (isspace((unsigned char)*s))
		s++;
	return s;
}

/* "[standard,http2]": which extras were asked for does not change the version. Return: behind it; NULL: it has no end.
 */
static const char *skip_extras(const char *s) {
	if (*s != '[')
		return s;
	s = strchr(s, ']');
	return s ? skip_spaces(s + 1) : NULL;
}

/* What may follow a version. */
static int check_rest(const struct parser *p, const char *rest) {
	rest = skip_spaces(rest);
	if (!*rest || !strncmp(rest, "--hash", strlen("--hash")))
		return 0;
	if (*rest == ';')
		return mistake(p, "conditions are not understood");
	return mistake(p, *rest == '*' ? "name one exact version" : "name==version is all that can stand in a line");
}

static int parse_requirement(const struct parser *p, expected_vec *expected) {
	const char *name = p->requirement, *at = name, *version;
	struct pyspyd_expected item = { .line = p->line };
	size_t name_len;
	int r;

	if (*name == '-')
		return mistake(p, "options and included files are not followed");
	while (*at && is_name_char(*at))
		at++;
	name_len = (size_t)(at - name);
	at = skip_extras(skip_spaces(at));
	if (!name_len || !at || *at == '@' || *at == '/' || *at == ':')
		return mistake(p, "this is no name==version");
	if (at[0] != '=' || at[1] != '=')
		return mistake(p, "give an exact version, as in name==1.2.3");
	version = at = skip_spaces(at + (at[2] == '=' ? 3 : 2));
	while (*at && is_version_char(*at))
		at++;
	if (at == version || at - version >= VERSION_MAX)
		return mistake(p, "this is no version");
	r = check_rest(p, at);
	if (r)
		return r;
	item.name = strndup(name, name_len);
	item.version = strndup(version, (size_t)(at - version));
	r = item.name && item.version ? vec_push(expected, item) : -ENOMEM;
	if (r) {
		free(item.name);
		free(item.version);
	}
	return r;
}

/* A comment begins a line, or stands behind a space. */
static size_t without_comment(const char *line, size_t len) {
	for (size_t i = 0; i < len; i++)
		if (line[i] == '#' && (!i || isspace((unsigned char)line[i - 1])))
			return i;
	return len;
}

/* Takes one line, with those that it goes on in. *lines counts them. Return: where the next one begins. */
static const char *take_line(const char *at, struct strbuf *out, unsigned *lines) {
	bool more = true;

	while (more && *at) {
		size_t len = strcspn(at, "\n"), kept = without_comment(at, len);

		while (kept && isspace((unsigned char)at[kept - 1]))
			kept--;
		more = kept && kept <= len && at[kept - 1] == '\\';
		strbuf_add(out, at, kept - more);
		at += len + (at[len] == '\n');
		++*lines;
	}
	return at;
}

int expect_parse(const char *text, const char *file, expected_vec *ret_expected, struct err *err) {
	static const char bom[] = "\xef\xbb\xbf";
	struct parser p = { .file = file, .err = err };
	expected_vec expected = { 0 };
	unsigned lines = 0;
	int r = 0;

	if (!strncmp(text, bom, strlen(bom)))
		text += strlen(bom);
	while (!r && *text) {
		_cleanup_(strbuf_deinit) struct strbuf line = { 0 };

		p.line = lines + 1;
		text = take_line(text, &line, &lines);
		p.requirement = skip_spaces(strbuf_str(&line));
		if (line.failed)
			r = -ENOMEM;
		else if (lines > EXPECT_LINES_MAX)
			r = mistake(&p, "too many lines");
		else if (*p.requirement)
			r = parse_requirement(&p, &expected);
	}
	if (r)
		expect_free(expected.items, expected.n);
	else
		*ret_expected = expected;
	return r;
}

void expect_free(struct pyspyd_expected *expected, size_t n) {
	for (size_t i = 0; i < n; i++) {
		free(expected[i].name);
		free(expected[i].version);
		free(expected[i].found);
		free(expected[i].file);
	}
	free(expected);
}

static const char *skip_separators(const char *s) {
	while (is_separator(*s))
		s++;
	return s;
}

bool expect_same_name(const char *a, const char *b) {
	for (;; a++, b++) {
		bool separators = is_separator(*a) && is_separator(*b);

		if (separators) {
			a = skip_separators(a) - 1;
			b = skip_separators(b) - 1;
		} else if (tolower((unsigned char)*a) != tolower((unsigned char)*b)) {
			return false;
		} else if (!*a) {
			return true;
		}
	}
}

/* The word as pre-releases are called at last. */
static const char *canonical_word(const char *word, size_t len) {
	static const struct {
		const char *word, *canonical;
	} words[] = { { "alpha", "a" }, { "beta", "b" }, { "c", "rc" }, { "pre", "rc" }, { "preview", "rc" },
		{ "rev", "post" }, { "r", "post" } };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strlen(words[i].word) == len && !strncasecmp(words[i].word, word, len))
			return words[i].canonical;
	return NULL;
}

/* Numbers without leading zeros, words in lower case and by their canonical name, each behind a '.'. */
static void add_parts(struct strbuf *out, const char *s, size_t len) {
	for (size_t i = 0, n; i < len; i += n) {
		const char *word = NULL;

		for (n = 0; i + n < len && isdigit((unsigned char)s[i + n]);)
			n++;
		if (n) {
			size_t zeros = 0;

			while (zeros + 1 < n && s[i + zeros] == '0')
				zeros++;
			strbuf_adds(out, ".");
			strbuf_add(out, s + i + zeros, n - zeros);
			continue;
		}
		while (i + n < len && isalpha((unsigned char)s[i + n]))
			n++;
		if (!n) {
			n = 1;
			continue;
		}
		word = canonical_word(s + i, n);
		strbuf_adds(out, ".");
		for (size_t k = 0; !word && k < n; k++)
			strbuf_add(out, (char[]){ (char)tolower((unsigned char)s[i + k]) }, 1);
		strbuf_adds(out, word ? word : "");
	}
}

static void add_version(struct strbuf *out, const char *version, bool local) {
	size_t all = strnlen(version, VERSION_MAX), public_len, release;
	const char *epoch;

	version += *version == 'v' || *version == 'V';
	epoch = strchr(version, '!');
	if (epoch && strspn(version, "0") != (size_t)(epoch - version))
		add_parts(out, version, (size_t)(epoch - version));
	version = epoch ? epoch + 1 : version;
	strbuf_adds(out, "!");
	all = strnlen(version, all);
	public_len = strcspn(version, "+");
	release = strspn(version, "0123456789.");
	release -= release && version[release - 1] == '.';
	while (release > 2 && version[release - 1] == '0' && version[release - 2] == '.')
		release -= 2;
	add_parts(out, version, min_of(release, public_len));
	release = strspn(version, "0123456789.");
	if (release < public_len)
		add_parts(out, version + release, public_len - release);
	if (local && public_len < all) {
		strbuf_adds(out, "+");
		add_parts(out, version + public_len, all - public_len);
	}
}

bool expect_same_version(const char *expected, const char *version) {
	_cleanup_(strbuf_deinit) struct strbuf a = { 0 }, b = { 0 };
	bool local = strchr(expected, '+');

	if (strlen(expected) >= VERSION_MAX || strlen(version) >= VERSION_MAX)
		return !strcmp(expected, version);
	add_version(&a, expected, local);
	add_version(&b, version, local);
	return !a.failed && !b.failed && !strcmp(strbuf_str(&a), strbuf_str(&b));
}
