/* SPDX-License-Identifier: MIT */
/* What the writers for people share: styles, foreign text cut and made printable, frames. */
#include "engine/finding/stack_text.h"

#include "engine/base/util.h"
#include "engine/finding/triage_text.h"
#include <inttypes.h>
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

#define PATHS_SHOWN 3
#define REGISTERS_A_LINE 4

static void add_death(struct strbuf *sb, const struct pyspyd_core *core, bool colour) {
	if (!core->signal) {
		strbuf_adds(sb, "The core was taken from it while it lived\n");
		return;
	}
	text_style(sb, colour, TEXT_RED);
	strbuf_addf(sb, "Killed by %s", core->signal_name);
	if (core->reason)
		strbuf_addf(sb, " (%s)", core->reason);
	if (core->has_address)
		strbuf_addf(sb, " at 0x%" PRIx64, core->address);
	strbuf_addf(sb, " in thread %d", (int)core->tid);
	if (core->has_sender)
		strbuf_addf(sb, ", sent by process %d of user %u", (int)core->sender, core->sender_uid);
	text_style(sb, colour, TEXT_PLAIN);
	strbuf_adds(sb, "\n");
}

static void add_paths(struct strbuf *sb, const char *what, char *const *paths, size_t n) {
	if (!n)
		return;
	strbuf_addf(sb, "Files that %s:", what);
	for (size_t i = 0; i < min_of(n, (size_t)PATHS_SHOWN); i++) {
		strbuf_adds(sb, i ? ", " : " ");
		text_add(sb, paths[i], TEXT_PATH_MAX);
	}
	if (n > PATHS_SHOWN)
		strbuf_addf(sb, " and %zu more", n - PATHS_SHOWN);
	strbuf_adds(sb, "\n");
}

static void add_core(struct strbuf *sb, const struct pyspyd_core *core, bool colour) {
	add_death(sb, core, colour);
	if (core->bytes < core->expected_bytes)
		strbuf_addf(sb,
			"The core is truncated: %" PRIu64 " of %" PRIu64 " bytes; what is missing is not shown\n",
			core->bytes, core->expected_bytes);
	add_paths(sb, "are not here", core->missing, core->missing_n);
	add_paths(sb, "are others by now", core->different, core->different_n);
	if (core->unverified_n)
		strbuf_addf(sb, "Files of which nothing proves that they are the same: %zu\n", core->unverified_n);
	triage_text(sb, core->triage, colour);
}

void text_process(struct strbuf *sb, const struct pyspyd_process *process, bool colour) {
	text_style(sb, colour, TEXT_BOLD);
	strbuf_addf(sb, "Process %d: ", (int)process->pid);
	text_command(sb, process);
	text_style(sb, colour, TEXT_PLAIN);
	strbuf_adds(sb, " (Python ");
	text_add(sb, process->python, TEXT_NAME_MAX);
	strbuf_adds(sb, ")\n");
	if (process->core)
		add_core(sb, process->core, colour);
}

void text_registers(struct strbuf *sb, const struct pyspyd_core *core) {
	for (size_t i = 0; i < core->registers_n; i++) {
		bool last = i + 1 == core->registers_n || i % REGISTERS_A_LINE == REGISTERS_A_LINE - 1;

		strbuf_addf(sb, "  %-6s 0x%016" PRIx64 "%s", core->registers[i].name, core->registers[i].value,
			last ? "\n" : "");
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
