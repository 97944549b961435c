/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_ALLOC_CODE_H
#define PYSPYD_SAMPLE_ALLOC_CODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reading the machine code of allocators (x86-64), to find where a probe can stand and where the size is found there.
 * Pure: code comes as bytes, and may be anything. */

#define ALLOC_CODE_BYTES 128 /* of a function that are looked at */
#define ALLOC_NO_REG 0xff

/* What one allocator's arguments are. */
enum alloc_args {
	ALLOC_MALLOC,   /* ctx, size */
	ALLOC_CALLOC,   /* ctx, count, size */
	ALLOC_REALLOC,  /* ctx, block, size */
	ALLOC_C_MALLOC, /* as the C library has them: without ctx */
	ALLOC_C_CALLOC,
	ALLOC_C_REALLOC,
};

/* How the size is had from the registers: (a + disp, or the eight bytes there) times b. */
struct alloc_size {
	uint8_t a, b; /* registers as machine code numbers them, or ALLOC_NO_REG: 0, and 1 */
	bool load;
	int32_t disp;
};

struct alloc_place {
	uint32_t at; /* bytes from the beginning of the code */
	struct alloc_size size;
	int32_t sp_up; /* bytes from the stack pointer there up to the return address */
};

/* The first instruction of a function that the kernel emulates rather than steps over (Linux 5.10 to 6.18
 * arch/x86/kernel/uprobes.c: push of a register, jumps, one-byte nop), while the size is still in a register.
 * Return: 0; -ENOENT. */
int alloc_place_at_entry(const uint8_t *code, size_t n, enum alloc_args args, struct alloc_place *ret_place);

/* From where a function that only calls on takes the pointer that it calls: the word at `address`, or, where
 * `indirect`, at the word there plus `disp`. `at` is the address of the code. Return: 0; -ENOENT. */
struct alloc_pointer {
	uint64_t address;
	bool indirect;
	int32_t disp;
};
int alloc_pointer_of(const uint8_t *code, size_t n, uint64_t at, struct alloc_pointer *ret_pointer);

/* Compilers put the usual callee into the caller: they compare the pointer with its address, and call only where it is
 * another one. Whether there is such a comparison with `callee` at the beginning of the code; then the place is the
 * jump behind it. `code` reaches from `start` to `end`, the comparison is looked for at `from`. Return: 0; -ENOENT:
 * none here; -ENOTSUP: one of which the size cannot be told. */
int alloc_place_inlined(const uint8_t *code, size_t n, uint64_t at, size_t from, uint64_t callee, enum alloc_args args,
	struct alloc_place *ret_place);

/* Bytes of the instruction; 0: not one of those that are known, or cut. */
size_t alloc_instruction_bytes(const uint8_t *code, size_t n);

#endif
