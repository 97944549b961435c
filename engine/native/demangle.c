/* SPDX-License-Identifier: MIT */
/* C++ and Rust names, by libiberty.
 *
 * Names come out of files that we do not trust, and a name of a hundred letters can stand for a text of gigabytes. The
 * library hands out its text piece by piece and cannot be asked to stop, so we leave by longjmp once there is enough:
 * it holds its state on the stack. */
#include "engine/native/demangle.h"

#include <libiberty/demangle.h>
#include <setjmp.h>
#include <stdbool.h>
#include <string.h>

#define SYMBOL_MAX 4096

struct sink {
	char *buf;
	size_t size, n;
	jmp_buf enough;
};

static void take(const char *piece, size_t len, void *userdata) {
	struct sink *sink = userdata;
	size_t room = sink->size - 1 - sink->n, n = len < room ? len : room;

	if (n) /* an empty piece may be NULL */
		memcpy(sink->buf + sink->n, piece, n);
	sink->n += n;
	if (len > room)
		longjmp(sink->enough, 1);
}

static bool demangle(const char *symbol, char *buf, size_t size) {
	struct sink sink = { .buf = buf, .size = size };
	bool done;

	if (setjmp(sink.enough)) {
		buf[size - 1] = '\0';
		return true;
	}
	done = rust_demangle_callback(symbol, DMGL_NO_OPTS, take, &sink);
	if (!done) {
		sink.n = 0;
		done = cplus_demangle_v3_callback(symbol, DMGL_NO_OPTS, take, &sink);
	}
	buf[sink.n] = '\0';
	return done && sink.n;
}

/* The stub of a function: its name, and "@plt" again. Return: whether it is one and was demangled. */
static bool demangle_stub(const char *symbol, size_t len, char *buf, size_t size) {
	static const char suffix[] = "@plt";
	char name[SYMBOL_MAX];
	size_t n;

	if (len < sizeof(suffix) || strcmp(symbol + len - (sizeof(suffix) - 1), suffix))
		return false;
	memcpy(name, symbol, len);
	name[len - (sizeof(suffix) - 1)] = '\0';
	if (!demangle(name, buf, size))
		return false;
	n = strlen(buf);
	if (size - n >= sizeof(suffix))
		memcpy(buf + n, suffix, sizeof(suffix));
	return true;
}

void native_demangle(const char *symbol, char *buf, size_t size) {
	size_t len = strlen(symbol);

	if (len < SYMBOL_MAX && symbol[0] == '_' && (symbol[1] == 'Z' || symbol[1] == 'R') &&
		(demangle_stub(symbol, len, buf, size) || demangle(symbol, buf, size)))
		return;
	len = len < size - 1 ? len : size - 1;
	memcpy(buf, symbol, len);
	buf[len] = '\0';
}
