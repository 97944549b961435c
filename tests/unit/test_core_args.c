/* SPDX-License-Identifier: MIT */
/* The command line out of the stack of a new process, as the kernel lays it out, and out of what only looks like one.
 */
#include "engine/mem/core_internal.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <string.h>

#define STACK UINT64_C(0x7ff000000000)
#define STACK_BYTES 8192
#define STRINGS 6144 /* offset of the arguments' text */
#define RANDOM (STRINGS - 32)

struct fixture {
	uint8_t bytes[STACK_BYTES];
	uint64_t auxv[6];
	struct core core;
	struct mem *mem;
	size_t at; /* where the number of arguments is */
};

static void put(struct fixture *f, size_t at, uint64_t word) {
	memcpy(f->bytes + at, &word, sizeof(word));
}

/* `text` has that many arguments, then as many variables. */
static void open_fixture(struct fixture *f, const char *text, size_t len, size_t arguments, size_t variables) {
	struct mem_segment segment = { .addr = STACK, .len = STACK_BYTES, .bytes = f->bytes };
	const uint64_t auxv[] = { AT_SYSINFO_EHDR, 0x7ff0deadb000, AT_RANDOM, STACK + RANDOM, AT_NULL, 0 };
	size_t at = RANDOM - 64 - sizeof(auxv), offset = STRINGS;

	*f = (struct fixture){ 0 };
	memcpy(f->auxv, auxv, sizeof(auxv));
	f->core.auxv.items = f->auxv;
	f->core.auxv.n = ARRAY_SIZE(auxv);
	memcpy(f->bytes + STRINGS, text, len);
	memcpy(f->bytes + at, auxv, sizeof(auxv));
	at -= 8 * (arguments + variables + 3);
	f->at = at;
	put(f, at, arguments);
	for (size_t i = 0; i < arguments + variables; i++) {
		at += i == arguments ? 16 : 8;
		put(f, at, STACK + offset);
		offset += strlen(text + (offset - STRINGS)) + 1;
	}
	cr_assert_eq(mem_bytes_new(&segment, 1, &f->mem), 0);
}

static size_t cmdline(const struct fixture *f, char *buf, size_t size) {
	memset(buf, 'x', size);
	return core_cmdline(&f->core, f->mem, buf, size);
}

Test(core_args, as_the_kernel_lays_it_out) {
	static const char text[] = "python3\0-c\0two words\0\0HOME=/root\0A=b";
	struct fixture f;
	char buf[64];

	open_fixture(&f, text, sizeof(text), 4, 2);
	cr_assert_eq(cmdline(&f, buf, sizeof(buf)), 22);
	cr_assert_arr_eq(buf, text, 22);
	cr_assert_eq(cmdline(&f, buf, 10), 10, "cut");
	cr_assert_arr_eq(buf, "python3\0-", 10);
	mem_free(f.mem);
}

Test(core_args, what_is_none) {
	static const char text[] = "python3\0x.py\0HOME=/root";
	struct fixture f;
	char buf[64];

	open_fixture(&f, text, sizeof(text), 2, 1);
	put(&f, f.at + 8, STACK + STACK_BYTES - 4); /* the first argument lies behind the environment */
	cr_assert_eq(cmdline(&f, buf, sizeof(buf)), 0);
	put(&f, f.at + 8, 8); /* … and is nowhere */
	cr_assert_eq(cmdline(&f, buf, sizeof(buf)), 0);
	f.auxv[3] = 64; /* the random bytes are at no address */
	cr_assert_eq(cmdline(&f, buf, sizeof(buf)), 0);
	f.auxv[3] = STACK + STACK_BYTES; /* another vector than the stack has */
	cr_assert_eq(cmdline(&f, buf, sizeof(buf)), 0);
	f.core.auxv.n = 0;
	cr_assert_eq(cmdline(&f, buf, sizeof(buf)), 0);
	mem_free(f.mem);
}

Test(core_args, pointers_without_an_end) {
	static const char text[] = "python3\0HOME=/root";
	struct fixture f;
	char buf[64];

	open_fixture(&f, text, sizeof(text), 1, 1);
	for (size_t at = 0; at <= f.at; at += 8)
		put(&f, at, UINT64_MAX);
	cr_assert_eq(cmdline(&f, buf, sizeof(buf)), 0);
	mem_free(f.mem);
}
