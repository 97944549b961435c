/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DETECT_WORDS_H
#define PYSPYD_DETECT_WORDS_H

#include "engine/base/strbuf.h"
#include "engine/detect/detect.h"

/* The words that verdicts are made of. Foreign text comes out printable and bounded. */

/* A name, cut after 72 bytes. */
void detect_add_name(struct strbuf *sb, const char *name);
void detect_add_text(struct strbuf *sb, const char *text, size_t max); /* likewise, after `max`; NULL: "?" */

/* "parse (json.py:88)": qualname, base name of the file. */
void detect_add_place(struct strbuf *sb, const char *function, const char *file, int line);

/* "58,900"; "9.3 MiB". What is negative has its sign. */
void detect_add_count(struct strbuf *sb, double count);
void detect_add_bytes(struct strbuf *sb, double bytes);

/* The frame that tells people where a thread or task is; NULL: none is known. */
const struct pyspyd_frame *detect_node_frame(const struct pyspyd_wait_node *node);

/* "process 77 (python3)", "the end of process 77 (python3)". */
void detect_add_process(struct strbuf *sb, const struct pyspyd_wait_node *node);

/* What a resource waits for of a thread, task or process: "held by ", "to be set by ", … */
const char *detect_link(const struct pyspyd_wait_node *resource, const struct pyspyd_wait_node *to);

/* "worker-3 (fetch, app.py:12)" of a thread or task; "Lock 0x7f… `self.guard`" of a resource (`expression` may be
 * NULL); a process as above. */
void detect_add_node(struct strbuf *sb, const struct pyspyd_wait_node *node, const char *expression);

/* Moves the text into the verdict: cut where it is too long, but never the suffix. Return: 0; -ENOMEM. */
int detect_set_summary(struct detect_verdict *verdict, struct strbuf *text, const char *suffix);

void detect_fact_number(struct detect_verdict *verdict, const char *key, double number);
void detect_fact_count(struct detect_verdict *verdict, const char *key, uint64_t count);
void detect_fact_text(struct detect_verdict *verdict, const char *key, const char *text);

/* Nothing where there is no room left. */
void detect_party_thread(struct detect_verdict *verdict, const struct detect_thread *thread, const char *role);
void detect_party_node(struct detect_verdict *verdict, uint32_t node, const char *role);

/* The thread of this process in the wait graph; UINT32_MAX: none, or no graph. */
uint32_t detect_find_node(const struct detect_input *input, pid_t tid);

/* Names a thread by its node where that knows the stack, and otherwise by what the samples say. */
void detect_party(struct detect_verdict *verdict, const struct detect_input *input, const struct detect_thread *thread,
	const char *role);

/* " in parse (json.py:88)" of the party's innermost Python frame; nothing where no stack is known. */
void detect_add_party_place(struct strbuf *sb, const struct detect_verdict *verdict, const struct detect_party *party);

/* Whether a node is a thread or a task; … of the process whose look this is. */
bool detect_is_actor(const struct pyspyd_wait_node *node);
bool detect_is_own_thread(const struct detect_input *input, const struct pyspyd_wait_node *node);

#endif
