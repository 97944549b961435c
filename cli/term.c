/* SPDX-License-Identifier: MIT */
/* Terminals: may we, how large, and how wide a text is. Text is UTF-8 whatever the user's locale says; its widths are
 * those of C.UTF-8, and where that is missing every character counts as one column. */
#include "cli/term.h"

#include <limits.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

bool term_controls(int fd) {
	const char *no_color = getenv("NO_COLOR");
	const char *term = getenv("TERM");

	if (no_color && no_color[0])
		return false;
	return isatty(fd) && term && term[0] && strcmp(term, "dumb") != 0;
}

struct term_size term_size_of(int fd) {
	struct winsize size;

	if (ioctl(fd, TIOCGWINSZ, &size) || !size.ws_col || !size.ws_row)
		return (struct term_size){ .columns = 80, .rows = 24 };
	return (struct term_size){ .columns = size.ws_col, .rows = size.ws_row };
}

/* One character. Return: its length in bytes. */
static size_t char_width(const char *text, int *ret_columns) {
	static locale_t utf8;
	locale_t before;
	wchar_t c;
	size_t len;

	if (!utf8)
		utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", NULL);
	before = utf8 ? uselocale(utf8) : NULL;
	len = mbrtowc(&c, text, strlen(text), &(mbstate_t){ 0 });
	*ret_columns = len == (size_t)-1 || len == (size_t)-2 ? 1 : wcwidth(c);
	if (utf8)
		uselocale(before);
	if (*ret_columns < 0)
		*ret_columns = 1;
	return len == (size_t)-1 || len == (size_t)-2 || !len ? 1 : len;
}

static size_t measure(const char *text, int columns, int *ret_used) {
	size_t bytes = 0;
	int used = 0;

	while (text[bytes]) {
		int width;
		size_t len = char_width(text + bytes, &width);

		if (width > columns - used)
			break;
		used += width;
		bytes += len;
	}
	*ret_used = used;
	return bytes;
}

size_t term_fit(const char *text, int columns) {
	int used;

	return measure(text, columns, &used);
}

int term_width(const char *text) {
	int used;

	measure(text, INT_MAX, &used);
	return used;
}
