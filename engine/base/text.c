/* SPDX-License-Identifier: MIT */
/* The public way to the printable form of foreign text; the work is strbuf's. */
#include "pyspyd/text.h"

#include "engine/base/strbuf.h"
#include <string.h>

char *pyspyd_printable(const char *text) {
	struct strbuf sb = { 0 };

	strbuf_add_printable(&sb, text, strlen(text));
	return strbuf_take(&sb);
}
