/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_TRIAGE_INTERNAL_H
#define PYSPYD_PIPELINE_TRIAGE_INTERNAL_H

#include "engine/detect/triage.h"
#include "engine/pipeline/triage.h"

/* Between the files triage*.c. */

#define TRIAGE_TEXT_SIZE 304

/* The C library's message of abort ("double free or corruption", an assertion). Return: whether there is one. */
bool triage_abort_message(struct native_look *look, char text[TRIAGE_TEXT_SIZE]);

/* A sentence to which a pointer stands in [start, end) of a stack, the last one that is no other's part. Return:
 * whether there is one. */
bool triage_text_on_stack(struct mem *mem, raddr start, raddr end, char text[TRIAGE_TEXT_SIZE]);

/* Who refers to an object. */
struct triage_referrers {
	struct triage_object objects[TRIAGE_REFERRERS_MAX];
	char *types[TRIAGE_REFERRERS_MAX]; /* theirs */
	size_t n;
	bool more;  /* than there is room for */
	bool cut;   /* not all memory was searched */
	char *path; /* from a module, a frame or a library's variable; NULL: not found */
};

/* Looks through the whole heap, for some seconds at most. What it can not do is not there, or `cut`. */
void triage_find_referrers(
	struct sample_target *target, const proc_map_vec *maps, raddr object, struct triage_referrers *found);
void triage_referrers_deinit(struct triage_referrers *found);

/* A fault that a handler took: what the kernel has put on the stack before it called the handler. */
struct triage_signal_frame {
	int code;
	bool has_address;
	uint64_t address, error; /* error: of a page fault; its bits 1 and 4 are "write" and "execute" */
	struct pyspyd_register registers[17];
};

/* `sp`: of the frame that stands for the return from the handler. Return: whether the processor, or abort(), made that
 * signal, as far as one can see; never on machines other than x86-64. */
bool triage_signal_frame(struct mem *mem, raddr sp, int signal, struct triage_signal_frame *ret_frame);

#endif
