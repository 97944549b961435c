/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_STACK_TEXT_H
#define PYSPYD_FINDING_STACK_TEXT_H

#include "engine/base/strbuf.h"
#include "pyspyd/stack.h"

/* Processes and frames for people. All foreign text comes out printable and bounded. */

#define TEXT_NAME_MAX 256  /* bytes of a name that are shown */
#define TEXT_PATH_MAX 1024 /* of a path, and of a whole command line */

enum text_style { TEXT_PLAIN, TEXT_BOLD, TEXT_DIM, TEXT_RED, TEXT_YELLOW, TEXT_GREEN, TEXT_CYAN };

/* Begins (or with TEXT_PLAIN ends) a style; nothing without colour. */
void text_style(struct strbuf *sb, bool colour, enum text_style style);

/* Foreign text, printable, at most max bytes of it, then "…". NULL is "?". */
void text_add(struct strbuf *sb, const char *s, size_t max);

/* "python3 app.py": the command line, else the name. */
void text_command(struct strbuf *sb, const struct pyspyd_process *process);

/* "Process 4711: python3 app.py (Python 3.13.1)", and of one that was read out of a core "Killed by SIGSEGV (address
 * not mapped) at 0x10 in thread 1234", and what is missing: a line each. */
void text_process(struct strbuf *sb, const struct pyspyd_process *process, bool colour);

/* Registers, some to a line. */
void text_registers(struct strbuf *sb, const struct pyspyd_core *core);

/* "parse (json.py:88)", without a newline; with the base name of the file alone where `brief`. */
void text_frame(struct strbuf *sb, const struct pyspyd_frame *frame, bool brief, bool colour);

#endif
