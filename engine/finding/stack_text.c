/* SPDX-License-Identifier: MIT */
/* What the writers for people share: styles, foreign text cut and made printable, frames. */
#include "engine/finding/stack_text.h"

#include <string.h>

void text_style(struct strbuf *sb, bool colour, enum text_style style) {
	static const char *const sgr[] = {
		[TEXT_PLAIN] = "\x1b[0m",
		[TEXT_BOLD] = "\x1b[1m",
		[TEXT_DIM] = "\x1b[2m",
		[TEXT_RED] = "\x1b[31m",
		[TEXT_YELLOW] = "\x1b[33m",
		[TEXT_GREEN] = "\x1b[32m",
		[TEXT_CYAN] = "\x1b[36m",
	};

	if (colour)
		strbuf_adds(sb, sgr[style]);
}

void text_add(struct strbuf *sb, const char *s, size_t max) {
	size_t n = s ? strnlen(s, max + 1) : 0;
	bool cut = n > max;

	if (!s) {
		strbuf_adds(sb, "?");
		return;
	}
	if (cut)
		n = max;
	/* Not in the middle of a character; broken text has no such middle and is cut where it is. */
	for (int back = 0; cut && n && back < 3 && ((unsigned char)s[n] & 0xc0) == 0x80; back++)
		n--;
	strbuf_add_printable(sb, s, n);
	if (cut)
		strbuf_adds(sb, "…");
}

void text_command(struct strbuf *sb, const struct pyspyd_process *process) {
	size_t start = sb->len;

	if (!process->cmdline || !process->cmdline[0]) {
		text_add(sb, process->name, TEXT_NAME_MAX);
		return;
	}
	for (char *const *argument = process->cmdline; *argument; argument++) {
		if (sb->len - start > TEXT_PATH_MAX) {
			strbuf_adds(sb, " …");
			return;
		}
		strbuf_adds(sb, argument == process->cmdline ? "" : " ");
		text_add(sb, *argument, TEXT_PATH_MAX);
	}
}

static const char *base_name(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

/* "[libc.so.6]", "[kernel]", "[kernel ext4]" */
static void add_module(struct strbuf *sb, const struct pyspyd_frame *frame) {
	bool known = frame->module && *frame->module;

	if (frame->lang == PYSPYD_NATIVE && !known)
		return;
	strbuf_adds(sb, frame->lang == PYSPYD_KERNEL ? known ? " [kernel " : " [kernel" : " [");
	if (known)
		text_add(sb, base_name(frame->module), TEXT_NAME_MAX);
	strbuf_adds(sb, "]");
}

static const char *doubt_text(const char *doubt) {
	if (!strcmp(doubt, PYSPYD_DOUBT_UNMATCHED))
		return " (its place is a guess)";
	if (!strcmp(doubt, PYSPYD_DOUBT_FRAME_POINTER))
		return " (its caller by frame pointer alone)";
	return " (its caller is inferred)";
}

void text_frame(struct strbuf *sb, const struct pyspyd_frame *frame, bool brief, bool colour) {
	const char *name = frame->qualname && *frame->qualname ? frame->qualname : frame->function;

	text_add(sb, name, TEXT_NAME_MAX);
	if (frame->lang == PYSPYD_PYTHON && !frame->doubt && (!frame->file || !*frame->file))
		return;
	text_style(sb, colour, TEXT_DIM);
	if (frame->file && *frame->file) {
		strbuf_adds(sb, " (");
		text_add(sb, brief ? base_name(frame->file) : frame->file, TEXT_PATH_MAX);
		if (frame->line > 0)
			strbuf_addf(sb, ":%d", frame->line);
		strbuf_adds(sb, ")");
	}
	if (frame->lang != PYSPYD_PYTHON)
		add_module(sb, frame);
	if (frame->inlined)
		strbuf_adds(sb, " inlined");
	if (frame->doubt)
		strbuf_adds(sb, doubt_text(frame->doubt));
	text_style(sb, colour, TEXT_PLAIN);
}
