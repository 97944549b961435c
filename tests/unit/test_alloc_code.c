/* SPDX-License-Identifier: MIT */
/* Where probes may stand in allocators, and where the size is found there: the beginnings of the allocators of real
 * interpreters, and code that must be refused. */
#include "engine/sample/alloc_code.h"

#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define NONE ALLOC_NO_REG

struct entry {
	const char *name;
	enum alloc_args args;
	const char *hex; /* up to the place and its instruction */
	unsigned at, a, b;
	int sp_up;
};

/* Behind the pointers of running interpreters, for objects: pymalloc; mimalloc without GIL; the hooks of debug builds.
 */
static const struct entry entries[] = {
	{ "3.11.2-system", ALLOC_MALLOC, "488d46ff4883ec18483dff010000777e", 14, 6, NONE, 24 },
	{ "3.11.2-system", ALLOC_CALLOC, "55", 0, 6, 2, 0 },
	{ "3.11.2-system", ALLOC_REALLOC, "4155", 0, 2, NONE, 0 },
	{ "3.11.2-system-dbg", ALLOC_MALLOC, "55", 0, 6, NONE, 0 },
	{ "3.11.2-system-dbg", ALLOC_CALLOC, "4154", 0, 6, 2, 0 },
	{ "3.11.2-system-dbg", ALLOC_REALLOC, "4154", 0, 2, NONE, 0 },
	{ "3.10.13-pyenv", ALLOC_MALLOC, "488d46ff53", 4, 6, NONE, 0 },
	{ "3.10.13-pyenv", ALLOC_CALLOC, "55", 0, 6, 2, 0 },
	{ "3.10.13-pyenv", ALLOC_REALLOC, "4155", 0, 2, NONE, 0 },
	{ "3.11.7-pyenv", ALLOC_MALLOC, "488d46ff53", 4, 6, NONE, 0 },
	{ "3.11.7-pyenv", ALLOC_CALLOC, "55", 0, 6, 2, 0 },
	{ "3.11.7-pyenv", ALLOC_REALLOC, "4155", 0, 2, NONE, 0 },
	{ "3.12.1-pyenv", ALLOC_MALLOC, "55", 0, 6, NONE, 0 },
	{ "3.12.1-pyenv", ALLOC_CALLOC, "4155", 0, 6, 2, 0 },
	{ "3.12.1-pyenv", ALLOC_REALLOC, "4157", 0, 2, NONE, 0 },
	{ "3.13.0-pyenv", ALLOC_MALLOC, "55", 0, 6, NONE, 0 },
	{ "3.13.0-pyenv", ALLOC_CALLOC, "4155", 0, 6, 2, 0 },
	{ "3.13.0-pyenv", ALLOC_REALLOC, "4157", 0, 2, NONE, 0 },
	{ "3.6.15-pyenv", ALLOC_MALLOC, "4889f231ffbe01000000e9e1faffff", 10, 2, NONE, 0 },
	{ "3.6.15-pyenv", ALLOC_CALLOC, "bf01000000e9d6faffff", 5, 6, 2, 0 },
	{ "3.6.15-pyenv", ALLOC_REALLOC, "4155", 0, 2, NONE, 0 },
	{ "3.7.16-pyenv", ALLOC_MALLOC, "53", 0, 6, NONE, 0 },
	{ "3.7.16-pyenv", ALLOC_CALLOC, "4154", 0, 6, 2, 0 },
	{ "3.7.16-pyenv", ALLOC_REALLOC, "4156", 0, 2, NONE, 0 },
	{ "3.8.18-pyenv", ALLOC_MALLOC, "53", 0, 6, NONE, 0 },
	{ "3.8.18-pyenv", ALLOC_CALLOC, "4154", 0, 6, 2, 0 },
	{ "3.8.18-pyenv", ALLOC_REALLOC, "4156", 0, 2, NONE, 0 },
	{ "3.9.18-pyenv", ALLOC_MALLOC, "488d46ff53", 4, 6, NONE, 0 },
	{ "3.9.18-pyenv", ALLOC_CALLOC, "55", 0, 6, 2, 0 },
	{ "3.9.18-pyenv", ALLOC_REALLOC, "4155", 0, 2, NONE, 0 },
	{ "3.9.2-bullseye", ALLOC_MALLOC, "488d46ff4883ec18483dff010000777e", 14, 6, NONE, 24 },
	{ "3.9.2-bullseye", ALLOC_CALLOC, "4155", 0, 6, 2, 0 },
	{ "3.9.2-bullseye", ALLOC_REALLOC, "4156", 0, 2, NONE, 0 },
	{ "3.9.2-bullseye-dbg", ALLOC_MALLOC, "55", 0, 6, NONE, 0 },
	{ "3.9.2-bullseye-dbg", ALLOC_CALLOC, "4154", 0, 6, 2, 0 },
	{ "3.9.2-bullseye-dbg", ALLOC_REALLOC, "4154", 0, 2, NONE, 0 },
	{ "3.13.5-trixie", ALLOC_MALLOC, "f30f1efa55", 4, 6, NONE, 0 },
	{ "3.13.5-trixie", ALLOC_CALLOC, "f30f1efa4154", 4, 6, 2, 0 },
	{ "3.13.5-trixie", ALLOC_REALLOC, "f30f1efa4155", 4, 2, NONE, 0 },
	{ "3.13.5-trixie-dbg", ALLOC_MALLOC, "f30f1efa55", 4, 6, NONE, 0 },
	{ "3.13.5-trixie-dbg", ALLOC_CALLOC, "f30f1efa55", 4, 6, 2, 0 },
	{ "3.13.5-trixie-dbg", ALLOC_REALLOC, "f30f1efa55", 4, 2, NONE, 0 },
	{ "3.13.18-sid", ALLOC_MALLOC,
		"f30f1efa4883ec184889f164488b0425e8ffffff488b40104c8b80302a0000488d46ff483dff0100007773", 41, 6, NONE,
		24 },
	{ "3.13.18-sid", ALLOC_CALLOC,
		"f30f1efa4883ec284889d14889f24989f064488b0425e8ffffff480fafd1488b40104c8b88302a0000488d42ff483dff010000"
		"7769",
		51, 6, 1, 40 },
	{ "3.13.18-sid", ALLOC_REALLOC, "f30f1efa4883ec2848895c24184889f34889d64885db0f84f8000000", 22, 2, NONE, 40 },
	{ "3.13.18-sid-dbg", ALLOC_MALLOC, "f30f1efa55", 4, 6, NONE, 0 },
	{ "3.13.18-sid-dbg", ALLOC_CALLOC, "f30f1efa55", 4, 6, 2, 0 },
	{ "3.13.18-sid-dbg", ALLOC_REALLOC, "f30f1efa55", 4, 2, NONE, 0 },
	{ "3.14.10-sid", ALLOC_MALLOC,
		"f30f1efa4883ec184889f164488b0425e8ffffff488b40104c8b80982a0000488d46ff483dff0100000f87a1000000", 41, 6,
		NONE, 24 },
	{ "3.14.10-sid", ALLOC_CALLOC,
		"f30f1efa4883ec284889d14889f24989f064488b0425e8ffffff480fafd1488b40104c8b88982a0000488d42ff483dff010000"
		"776d",
		51, 6, 1, 40 },
	{ "3.14.10-sid", ALLOC_REALLOC, "f30f1efa4883ec2848895c24184889f34889d64885db0f84f8000000", 22, 2, NONE, 40 },
	{ "3.14.10-sid-dbg", ALLOC_MALLOC, "f30f1efa55", 4, 6, NONE, 0 },
	{ "3.14.10-sid-dbg", ALLOC_CALLOC, "f30f1efa55", 4, 6, 2, 0 },
	{ "3.14.10-sid-dbg", ALLOC_REALLOC, "f30f1efa55", 4, 2, NONE, 0 },
	{ "3.15.2-sid", ALLOC_MALLOC, "f30f1efa55", 4, 6, NONE, 0 },
	{ "3.15.2-sid", ALLOC_CALLOC, "f30f1efa55", 4, 6, 2, 0 },
	{ "3.15.2-sid", ALLOC_REALLOC, "f30f1efa55", 4, 2, NONE, 0 },
	{ "3.15.2-sid-dbg", ALLOC_MALLOC, "f30f1efa55", 4, 6, NONE, 0 },
	{ "3.15.2-sid-dbg", ALLOC_CALLOC, "f30f1efa55", 4, 6, 2, 0 },
	{ "3.15.2-sid-dbg", ALLOC_REALLOC, "f30f1efa55", 4, 2, NONE, 0 },
	{ "3.13.5t-built", ALLOC_MALLOC, "48c7c0f8ffffff64488b00488bb8580100004881fe000400007725", 25, 6, NONE, 0 },
	{ "3.13.5t-built", ALLOC_CALLOC, "4889f04889d648c7c2f8ffffff64488b12488bba580100004883f8017408", 28, 0, 6, 0 },
	{ "3.13.5t-built", ALLOC_REALLOC, "48c7c0f8ffffff31c964488b00488bb858010000e907fdffff", 20, 2, NONE, 0 },
};

static size_t from_hex(const char *hex, uint8_t *code, size_t cap) {
	size_t n = 0;
	unsigned byte;

	while (*hex && n < cap) {
		if (*hex == ' ') {
			hex++;
			continue;
		}
		cr_assert_eq(sscanf(hex, "%2x", &byte), 1);
		code[n++] = (uint8_t)byte;
		hex += 2;
	}
	return n;
}

Test(alloc_code, entries_of_interpreters) {
	for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
		const struct entry *e = &entries[i];
		uint8_t code[ALLOC_CODE_BYTES];
		size_t n = from_hex(e->hex, code, sizeof(code));
		struct alloc_place place;

		cr_assert_eq(alloc_place_at_entry(code, n, e->args, &place), 0, "%s %d", e->name, (int)e->args);
		cr_expect_eq(place.at, e->at, "%s %d: at %u", e->name, (int)e->args, place.at);
		cr_expect_eq(place.size.a, e->a, "%s %d: a %u", e->name, (int)e->args, place.size.a);
		cr_expect_eq(place.size.b, e->b, "%s %d: b %u", e->name, (int)e->args, place.size.b);
		cr_expect_eq(place.sp_up, e->sp_up, "%s %d: %d", e->name, (int)e->args, place.sp_up);
		cr_expect(!place.size.load && !place.size.disp);
		for (size_t cut = 0; cut < n; cut++)
			cr_expect_neq(
				alloc_place_at_entry(code, cut, e->args, &place), 0, "%s cut at %zu", e->name, cut);
	}
}

struct refused {
	const char *what, *hex;
	enum alloc_args args;
};

static const struct refused refused[] = {
	{ "the size is gone: mov $1,%esi; push", "be01000000 55", ALLOC_MALLOC },
	{ "… by an addition: add %rax,%rsi; push", "4801c6 55", ALLOC_MALLOC },
	{ "… in half: mov %esi,%edx; xor %esi,%esi; push", "89f2 31f6 55", ALLOC_MALLOC },
	{ "… by a pop: pop %rsi; push", "5e 55", ALLOC_MALLOC },
	{ "… by a product in rdx: mul %rcx; push", "48f7e1 55", ALLOC_REALLOC },
	{ "… by movzx: movzbl %al,%esi; jmp", "0fb6f0 eb00", ALLOC_MALLOC },
	{ "it returns: test %rdi,%rdi; ret", "4885ff c3 55", ALLOC_MALLOC },
	{ "it calls: call", "e800000000 55", ALLOC_MALLOC },
	{ "it goes through a pointer: jmp *%rax", "ffe0 55", ALLOC_MALLOC },
	{ "a trap: int3", "cc 55", ALLOC_MALLOC },
	{ "what is not read: vzeroupper", "c5f877 55", ALLOC_MALLOC },
	{ "one of two is gone: xor %edx,%edx; push", "31d2 55", ALLOC_CALLOC },
	{ "the stack is moved elsewhere: mov %rdi,%rsp; push", "4889fc 55", ALLOC_MALLOC },
};

Test(alloc_code, refused) {
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		uint8_t code[ALLOC_CODE_BYTES];
		size_t n = from_hex(refused[i].hex, code, sizeof(code));
		struct alloc_place place;

		cr_expect_eq(alloc_place_at_entry(code, n, refused[i].args, &place), -ENOENT, "%s", refused[i].what);
	}
}

static bool is_chosen(const char *hex, unsigned at, unsigned a) {
	uint8_t code[ALLOC_CODE_BYTES];
	size_t n = from_hex(hex, code, sizeof(code));
	struct alloc_place place;

	return !alloc_place_at_entry(code, n, ALLOC_MALLOC, &place) && place.at == at && place.size.a == a;
}

/* Linux 6.1 arch/x86/kernel/uprobes.c: branch_setup_xol_ops, push_setup_xol_ops. */
Test(alloc_code, instructions_that_are_emulated) {
	cr_expect(is_chosen("f30f1efa 55", 4, 6), "push %rbp behind endbr64, which is not");
	cr_expect(is_chosen("0f1f00 90", 3, 6), "a nop of one byte, not a longer one");
	cr_expect(is_chosen("6690 4154", 2, 6), "not a nop with a prefix; push %r12");
	cr_expect(is_chosen("4883ec08 0f84f00f0000", 4, 6), "je, far");
	cr_expect(is_chosen("4889f2 31f6 e900000000", 5, 2), "jmp, with the size in rdx by then");
	cr_expect(is_chosen("4056 55", 2, 6), "not push with an empty prefix");
	cr_expect(is_chosen("66 55 55", 2, 6), "not push of 16 bits");
	cr_expect(is_chosen("6a00 55", 2, 6), "not push of a number");
}

struct wrapper {
	const char *name, *hex;
	uint64_t address;
	bool indirect;
	int disp;
};

/* PyObject_Malloc, at 0x400000. */
static const struct wrapper wrappers[] = {
	{ "through a pointer in memory", "4889fe 4885ff 780e 488b3d91832700 ff2593832700 90", 0x400015 + 0x278393,
		false, 0 },
	{ "of which a table has the address", "4889fe 4885ff 7816 488b05c1483700 488bb8b0000000 ffa0b8000000",
		0x40000f + 0x3748c1, true, 0xb8 },
	{ "with a comparison",
		"4883ec18 4885ff 0f88ff43f5ff 488b0564444800 4889fe 488b3d52444800 483de00b4d00 0f85db000000",
		0x400014 + 0x484464, false, 0 },
	{ "with a call", "4885ff 7819 4883ec08 4889fe 488b3de13e4a00 ff15e33e4a00 4883c408 c3", 0x400019 + 0x4a3ee3,
		false, 0 },
};

Test(alloc_code, pointers_of_wrappers) {
	for (size_t i = 0; i < ARRAY_SIZE(wrappers); i++) {
		uint8_t code[ALLOC_CODE_BYTES];
		size_t n = from_hex(wrappers[i].hex, code, sizeof(code));
		struct alloc_pointer pointer;

		cr_assert_eq(alloc_pointer_of(code, n, 0x400000, &pointer), 0, "%s", wrappers[i].name);
		cr_expect_eq(pointer.address, wrappers[i].address, "%s: %llx", wrappers[i].name,
			(unsigned long long)pointer.address);
		cr_expect_eq(pointer.indirect, wrappers[i].indirect, "%s", wrappers[i].name);
		cr_expect_eq(pointer.disp, wrappers[i].disp, "%s", wrappers[i].name);
	}
}

Test(alloc_code, no_pointer) {
	static const char *const codes[] = { "c3", "ffe0", "e800000000", "eb fe", "0f0b", "" };

	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		uint8_t code[ALLOC_CODE_BYTES];
		struct alloc_pointer pointer;

		cr_expect_eq(alloc_pointer_of(code, from_hex(codes[i], code, sizeof(code)), 0x400000, &pointer),
			-ENOENT, "%s", codes[i]);
	}
}

struct inlined {
	const char *name, *hex;
	size_t from;
	enum alloc_args args;
	int r;
	uint32_t at;
	struct alloc_size size;
};

/* The callee is at 0x4d0be0, the code at 0x500000. */
static const struct inlined inlined[] = {
	{ "size in its register", "483de00b4d00 7502 c3 90 4883c418 ffe0", 0, ALLOC_MALLOC, 0, 6,
		{ 6, NONE, false, 0 } },
	{ "size in another one", "483de00b4d00 7500 4c89e6 488b3d00000000 ffd0", 0, ALLOC_MALLOC, 0, 6,
		{ 12, NONE, false, 0 } },
	{ "a number", "483de00b4d00 7500 be38000000 ffd0", 0, ALLOC_MALLOC, 0, 6, { NONE, NONE, false, 0x38 } },
	{ "more than a register", "483de00b4d00 7500 488d7310 ffd0", 0, ALLOC_MALLOC, 0, 6, { 3, NONE, false, 16 } },
	{ "on the stack", "483de00b4d00 7500 488b742418 ffd0", 0, ALLOC_MALLOC, 0, 6, { 4, NONE, true, 24 } },
	{ "the other way around", "483de00b4d00 7404 ffd0 90 90 c3", 0, ALLOC_MALLOC, 0, 6, { 6, NONE, false, 0 } },
	{ "a product", "483de00b4d00 7500 4889da ffd0", 0, ALLOC_CALLOC, 0, 6, { 6, 3, false, 0 } },
	{ "another register, and behind a jump", "4881f9e00b4d00 7501 c3 eb01 90 ffe1", 0, ALLOC_MALLOC, 0, 7,
		{ 6, NONE, false, 0 } },
	{ "relative to the code", "488d15d90bfdff 4839d0 7500 ffd0", 0, ALLOC_MALLOC, 0, 10, { 6, NONE, false, 0 } },
	{ "another callee", "483de10b4d00 7500 ffd0", 0, ALLOC_MALLOC, -ENOENT, 0, { 0 } },
	{ "only asked", "483de00b4d00 0f94c0 c3", 0, ALLOC_MALLOC, -ENOENT, 0, { 0 } },
	{ "asked, and another way to return", "483de00b4d00 7502 ffd0 31c0 c3", 0, ALLOC_MALLOC, -ENOENT, 0, { 0 } },
	{ "another pointer is called", "483de00b4d00 7500 ffd1", 0, ALLOC_MALLOC, -ENOTSUP, 0, { 0 } },
	{ "the size is not known", "483de00b4d00 7500 89c6 ffd0", 0, ALLOC_MALLOC, -ENOTSUP, 0, { 0 } },
	{ "out of the code", "483de00b4d00 0f85ffffff7f", 0, ALLOC_MALLOC, -ENOTSUP, 0, { 0 } },
	{ "round and round", "483de00b4d00 75fe", 0, ALLOC_MALLOC, -ENOTSUP, 0, { 0 } },
};

Test(alloc_code, inlined_in_callers) {
	for (size_t i = 0; i < ARRAY_SIZE(inlined); i++) {
		const struct inlined *e = &inlined[i];
		struct alloc_place place = { 0 };
		uint8_t code[ALLOC_CODE_BYTES];
		size_t n = from_hex(e->hex, code, sizeof(code));
		int r = alloc_place_inlined(code, n, 0x500000, e->from, 0x4d0be0, e->args, &place);

		cr_expect_eq(r, e->r, "%s: %d", e->name, r);
		if (r || e->r)
			continue;
		cr_expect_eq(place.at, e->at, "%s: at %u", e->name, place.at);
		cr_expect_eq(place.size.a, e->size.a, "%s: a %u", e->name, place.size.a);
		cr_expect_eq(place.size.b, e->size.b, "%s: b %u", e->name, place.size.b);
		cr_expect_eq(place.size.load, e->size.load, "%s", e->name);
		cr_expect_eq(place.size.disp, e->size.disp, "%s: %d", e->name, place.size.disp);
	}
}
