/* SPDX-License-Identifier: MIT */
/* Faults of native code for triage.py, a function each. */
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

extern void *PyMem_Malloc(size_t n);
extern void PyMem_Free(void *p);

volatile int sink;
static char code[64] = { (char)0xc3 };

__attribute__((noinline)) int ledger_descend(int depth) {
	volatile char room[512];

	room[0] = (char)depth;
	return ledger_descend(depth + 1) + room[0];
}

void ledger_freed(void) {
	int **p = PyMem_Malloc(64);

	PyMem_Free(p);
	__asm__("" : "+r"(p));
	sink = *p[2];
}

void ledger_unset(void) {
	int **p = PyMem_Malloc(64);

	__asm__("" : "+r"(p));
	sink = *p[2];
}

void ledger_text(void) {
	char text[16] = "AAAAAAAAAAAAAAA";
	int *p;

	memset(text, 'A', sizeof(text));
	memcpy(&p, text, sizeof(p));
	__asm__("" : "+r"(p));
	sink = *p;
}

void ledger_twice(void) {
	void *p = malloc(40);

	free(p);
	__asm__("" : "+r"(p));
	free(p);
}

void ledger_jump(void) {
	void (*f)(void) = (void (*)(void))code;

	__asm__("" : "+r"(f));
	f();
}

void ledger_null_call(void) {
	void (*f)(void) = NULL;

	__asm__("" : "+r"(f));
	f();
}

void ledger_assert(int balance) {
	assert(balance == 0 && "the ledger balances");
}

void ledger_constant(void) {
	const char *text = "constant";

	__asm__("" : "+r"(text));
	*(char *)(size_t)text = 'C';
}

void ledger_trap(void) {
	__builtin_trap();
}

int ledger_divide(int by) {
	return 7 / by;
}
