/* SPDX-License-Identifier: MIT */
/* What a process died of, over a table of deaths: the cause, the words that must be there, and those that must not. */
#include "engine/detect/triage.h"

#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>

#define STACK 0x7ffd00000000ULL
#define TOP 0x7ffd00800000ULL
#define HEAP 0x7f0000000000ULL

static const struct pyspyd_register dead[] = { { "rax", 0xdddddddddddddde5 }, { "rbx", 1 } };
static const struct pyspyd_register fresh[] = { { "rax", 0xcdcdcdcdcdcdcdcd } };
static const struct pyspyd_register fence[] = { { "rdi", 0xfdfdfdfdfdfdfdfd } };
static const struct pyspyd_register letters[] = { { "eflags", 0x4242424242424242 }, { "rdx", 0x4141414141414141 } };
static const struct pyspyd_register odd[] = { { "rcx", 0x1234567812345678 }, { "rdx", UINT64_MAX } };

static const struct triage_frame plain[] = { { "encode", "/srv/codec.so" }, { "main", "/usr/bin/python3" } };
static const struct triage_frame in_libc[] = { { "strlen", "/lib/libc.so.6" }, { "encode", "/srv/codec.so" } };
static const struct triage_frame aborts[] = { { "raise", "/lib/libc.so.6" }, { "abort", "/lib/libc.so.6" },
	{ "encode", "/srv/codec.so" } };
static const struct triage_frame fatal[] = { { "abort", "/lib/libc.so.6" }, { "fatal_error", "/usr/bin/python3" },
	{ "_Py_FatalErrorFunc", "/usr/bin/python3" }, { "new_threadstate", "/usr/bin/python3" } };
static const struct triage_frame collects_inlined[] = { { "collect", "/usr/lib/libpython3.9.so.1.0" } };
static const struct triage_frame collects_taxes[] = { { "collect", "/srv/app/_taxes.so" } };
static const struct triage_frame collects[] = { { "visit_decref.cold", "/usr/bin/python3" },
	{ "list_traverse", "/usr/bin/python3" }, { "subtract_refs", "/usr/bin/python3" } };
static const struct triage_frame finalizes[] = { { "close_codec", "/srv/codec.so" },
	{ "slot_tp_finalize", "/usr/bin/python3" }, { "_Py_Dealloc", "/usr/bin/python3" },
	{ "list_clear", "/usr/bin/python3" }, { "delete_garbage", "/usr/bin/python3" },
	{ "gc_collect_main", "/usr/bin/python3" } };
static const struct triage_frame frees[] = { { "_Py_Dealloc", "/usr/bin/python3" } };
static const struct triage_frame debug[] = { { "abort", "/lib/libc.so.6" }, { "_PyMem_DebugCheckAddress", "python3" },
	{ "_PyMem_DebugRawFree", "python3" } };
static const struct triage_frame throws[] = { { "abort", "/lib/libc.so.6" }, { "std::terminate()", "libstdc++.so.6" } };

#define FRAMES(f) .frames = f, .frames_n = ARRAY_SIZE(f)
#define REGISTERS(r) .registers = r, .registers_n = ARRAY_SIZE(r), .registers_known = true
#define OWN .has_sender = true, .sender = 7
#define STACK_MAP \
	{ true, STACK, TOP, true, true, false, "[stack]" }
#define CODE_MAP \
	{ true, 0x400000, 0x500000, true, false, true, "/usr/bin/python3" }

static const struct {
	const char *name;
	struct triage_facts facts;
	const char *cause, *has[5], *lacks[2];
} deaths[] = {
	{ "null", { .signal = SIGSEGV, .code = SEGV_MAPERR, .has_address = true, .address = 24, FRAMES(in_libc) },
		"null-pointer", { "24 (0x18) bytes behind", "strlen (libc.so.6), called by encode (codec.so)" },
		{ 0 } },
	{ "null itself, written",
		{ .signal = SIGSEGV,
			.code = SEGV_MAPERR,
			.has_address = true,
			.access = TRIAGE_ACCESS_WRITE,
			FRAMES(plain) },
		"null-pointer", { "was written to" }, { "behind" } },
	{ "overflow",
		{ .signal = SIGSEGV,
			.code = SEGV_MAPERR,
			.has_address = true,
			.address = STACK - 8,
			.registers_known = true,
			.sp = STACK,
			.pc = 0x400100,
			.code_map = CODE_MAP,
			.stack = STACK_MAP,
			.python_depth = 900,
			FRAMES(plain) },
		"stack-overflow", { "8 bytes below", "stack of 8.0 MiB", "900 frames of Python" }, { 0 } },
	{ "overflow in a guard page",
		{ .signal = SIGSEGV,
			.code = SEGV_ACCERR,
			.has_address = true,
			.address = STACK - 4000,
			.registers_known = true,
			.sp = STACK - 4000,
			.pc = 0x400100,
			.code_map = CODE_MAP,
			.stack = STACK_MAP,
			.at = { true, STACK - 4096, STACK, false, false, false, "" },
			FRAMES(plain) },
		"stack-overflow", { "guard page" }, { 0 } },
	{ "below the stack, but far from its pointer",
		{ .signal = SIGSEGV,
			.code = SEGV_MAPERR,
			.has_address = true,
			.address = STACK - 8,
			.registers_known = true,
			.sp = TOP - 4096,
			.pc = 0x400100,
			.code_map = CODE_MAP,
			.stack = STACK_MAP,
			FRAMES(plain) },
		"bad-address", { "nothing is mapped there" }, { "used up" } },
	{ "freed", { .signal = SIGSEGV, .code = SI_KERNEL, REGISTERS(dead), FRAMES(plain) }, "freed-memory",
		{ "rax holds 0xdddddddddddddde5", "freed memory" }, { 0 } },
	{ "unset", { .signal = SIGSEGV, .code = SI_KERNEL, REGISTERS(fresh), FRAMES(plain) }, "unset-memory",
		{ "not written yet" }, { 0 } },
	{ "overrun", { .signal = SIGSEGV, .code = SI_KERNEL, REGISTERS(fence), FRAMES(plain) }, "overrun",
		{ "guard bytes" }, { 0 } },
	{ "overwritten", { .signal = SIGSEGV, .code = SI_KERNEL, REGISTERS(letters), FRAMES(plain) }, "overwritten",
		{ "rdx holds", "0x41 all over" }, { "eflags" } },
	{ "not canonical", { .signal = SIGSEGV, .code = SI_KERNEL, REGISTERS(odd), FRAMES(plain) }, "bad-address",
		{ "rcx holds 0x1234567812345678" }, { "rdx" } },
	{ "unmapped",
		{ .signal = SIGSEGV,
			.code = SEGV_MAPERR,
			.has_address = true,
			.address = HEAP,
			REGISTERS(dead),
			.pc = 0x400100,
			.code_map = CODE_MAP,
			FRAMES(plain) },
		"bad-address", { "nothing is mapped there" }, { "freed memory" } },
	{ "read-only",
		{ .signal = SIGSEGV,
			.code = SEGV_ACCERR,
			.has_address = true,
			.address = 0x400200,
			.registers_known = true,
			.pc = 0x400100,
			.code_map = CODE_MAP,
			.at = CODE_MAP,
			FRAMES(plain) },
		"read-only", { "not be written to", "/usr/bin/python3" }, { 0 } },
	{ "jump",
		{ .signal = SIGSEGV,
			.code = SEGV_ACCERR,
			.has_address = true,
			.address = HEAP,
			.registers_known = true,
			.pc = HEAP,
			.code_map = { true, HEAP, HEAP + 4096, true, true, false, "" },
			.at = { true, HEAP, HEAP + 4096, true, true, false, "" },
			FRAMES(plain) },
		"bad-jump", { "must not be executed" }, { 0 } },
	{ "null call",
		{ .signal = SIGSEGV, .code = SEGV_MAPERR, .has_address = true, .registers_known = true, FRAMES(plain) },
		"null-pointer", { "called through a null pointer" }, { 0 } },
	{ "collector",
		{ .signal = SIGSEGV,
			.code = SEGV_MAPERR,
			.has_address = true,
			.address = 16,
			.collecting = true,
			.object = { HEAP, NULL, true, 1, 16 },
			.referrers = (struct triage_object[]){ { HEAP + 64, "app.Ledger", true, 1, HEAP },
				{ HEAP + 128, "list", true, 1, HEAP } },
			.referrers_n = 2,
			.reached_by = "app.ledgers[7]",
			.referrers_cut = true,
			FRAMES(collects) },
		"corrupted-object",
		{ "visit_decref", "has no type: 0x10",
			"A app.Ledger at 0x7f0000000040, a list at 0x7f0000000080 refer to it",
			"held by app.ledgers[7]", "cut short" },
		{ 0 } },
	{ "collector, freed object",
		{ .signal = SIGSEGV,
			.code = SI_KERNEL,
			.object = { HEAP, NULL, true, 1, 0xdddddddddddddddd },
			FRAMES(collects) },
		"corrupted-object", { "Its type holds 0xdddddddddddddddd", "freed memory" }, { 0 } },
	{ "while an exception is handled",
		{ .signal = SIGSEGV,
			.code = SEGV_MAPERR,
			.has_address = true,
			.address = 8,
			.exception = &(struct pyspyd_exception){ .state = PYSPYD_EXCEPTION_HANDLED,
				.type = (char[]){ "ValueError" },
				.message = (char[]){ "7 apples" },
				.traceback = &(struct pyspyd_frame){ .qualname = (char[]){ "load" },
					.file = (char[]){ "/srv/shop.py" },
					.line = 10 },
				.traceback_n = 1 },
			FRAMES(plain) },
		"null-pointer", { "It was handling ValueError: 7 apples (raised in load, shop.py:10)" },
		{ "On its way" } },
	{ "collector, all in one function",
		{ .signal = SIGSEGV,
			.code = SEGV_MAPERR,
			.has_address = true,
			.address = 48,
			FRAMES(collects_inlined) },
		"corrupted-object", { "collector (collect)" }, { "held by" } },
	{ "another function of that name",
		{ .signal = SIGSEGV, .code = SEGV_MAPERR, .has_address = true, .address = 48, FRAMES(collects_taxes) },
		"null-pointer", { "48" }, { "collector" } },
	{ "a finalizer that the collector calls",
		{ .signal = SIGSEGV,
			.code = SEGV_MAPERR,
			.has_address = true,
			.address = 8,
			.collecting = true,
			FRAMES(finalizes) },
		"null-pointer", { "close_codec", "was collecting garbage" }, { "broken" } },
	{ "free", { .signal = SIGSEGV, .code = SEGV_MAPERR, .has_address = true, .address = 48, FRAMES(frees) },
		"corrupted-object", { "to free an object (_Py_Dealloc)" }, { "collector" } },
	{ "double free",
		{ .signal = SIGABRT, OWN, .abort_message = "free(): double free detected in tcache 2", FRAMES(aborts) },
		"heap-corruption", { "double free detected", "freed twice", "encode" }, { 0 } },
	{ "heap", { .signal = SIGABRT, OWN, .abort_message = "malloc(): corrupted top size", FRAMES(aborts) },
		"heap-corruption", { "were overwritten" }, { 0 } },
	{ "smashed",
		{ .signal = SIGABRT,
			OWN,
			.abort_message = "*** stack smashing detected ***: terminated",
			FRAMES(aborts) },
		"stack-smashing", { "array on its stack" }, { 0 } },
	{ "assertion",
		{ .signal = SIGABRT,
			OWN,
			.abort_message = "a.c:3: f: Assertion `x > 0\x1b[m' failed.",
			FRAMES(aborts) },
		"assertion", { "Assertion `x > 0\\x1b" }, { "\x1b" } },
	{ "abort", { .signal = SIGABRT, OWN, FRAMES(aborts) }, "abort", { "in encode" }, { "overwritten" } },
	{ "fatal", { .signal = SIGABRT, OWN, .fatal_message = "the GIL is released", FRAMES(fatal) }, "fatal-error",
		{ "reported by _Py_FatalErrorFunc", "the GIL is released" }, { 0 } },
	{ "debug allocator", { .signal = SIGABRT, OWN, FRAMES(debug) }, "heap-corruption", { "debug allocator" },
		{ 0 } },
	{ "C++", { .signal = SIGABRT, OWN, FRAMES(throws) }, "cxx-exception", { "C++ exception" }, { 0 } },
	{ "aborted by another",
		{ .signal = SIGABRT,
			.has_sender = true,
			.sender = 9,
			.sender_uid = 1000,
			.collecting = true,
			FRAMES(collects) },
		"sent", { "Process 9 of user 1000" }, { "broken", "garbage" } },
	{ "aborted, by way of a handler", { .signal = SIGABRT, OWN, .resent = true, FRAMES(plain) }, "sent",
		{ "Somebody sent" }, { "heap" } },
	{ "a fault that it sent itself", { .signal = SIGSEGV, OWN, FRAMES(plain) }, "sent", { "itself" }, { "null" } },
	{ "truncated file",
		{ .signal = SIGBUS,
			.code = BUS_ADRERR,
			.has_address = true,
			.address = HEAP + 5000,
			.at = { true, HEAP, HEAP + 8192, true, true, false, "/srv/data" },
			.file_bytes = 100,
			.file_offset = 5000,
			FRAMES(plain) },
		"truncated-file", { "byte 5000 of the file", "but 100 bytes", "/srv/data" }, { 0 } },
	{ "file of unknown size",
		{ .signal = SIGBUS,
			.code = BUS_ADRERR,
			.has_address = true,
			.address = HEAP + 5000,
			.at = { true, HEAP, HEAP + 8192, true, true, false, "/srv/data" },
			.file_bytes = UINT64_MAX,
			.file_offset = 5000,
			FRAMES(plain) },
		"truncated-file", { "ends before it" }, { "has but" } },
	{ "instruction", { .signal = SIGILL, .code = ILL_ILLOPN, .has_address = true, .pc = 0x400100, FRAMES(plain) },
		"bad-instruction", { "0x400100" }, { 0 } },
	{ "division", { .signal = SIGFPE, .code = FPE_INTDIV, FRAMES(plain) }, "bad-calculation", { "by zero" },
		{ 0 } },
	{ "seccomp", { .signal = SIGSYS, .code = 1, FRAMES(plain) }, "forbidden-call", { "seccomp" }, { 0 } },
	{ "CPU", { .signal = SIGXCPU, .code = SI_KERNEL, FRAMES(plain) }, "limit", { "RLIMIT_CPU" }, { 0 } },
	{ "nothing known", { .signal = SIGQUIT }, "unknown", { "died of" }, { 0 } },
};

static char *words_of(const struct pyspyd_triage *triage) {
	static char words[8192];

	words[0] = '\0';
	for (size_t i = 0; i < triage->statements_n; i++) {
		strcat(words, triage->statements[i].text);
		strcat(words, "\n");
	}
	return words;
}

Test(triage, table) {
	for (size_t i = 0; i < ARRAY_SIZE(deaths); i++) {
		struct triage_facts facts = deaths[i].facts;
		struct pyspyd_triage *triage;
		const char *words;

		facts.pid = facts.tid = 7;
		facts.signal_name = "SIGNAL";
		cr_assert_eq(triage_decide(&facts, &triage), 0);
		cr_assert_not_null(triage);
		words = words_of(triage);
		cr_expect_str_eq(triage->cause, deaths[i].cause, "%s: %s: %s", deaths[i].name, triage->cause, words);
		for (size_t k = 0; k < ARRAY_SIZE(deaths[i].has) && deaths[i].has[k]; k++)
			cr_expect(strstr(words, deaths[i].has[k]), "%s: no \"%s\" in: %s", deaths[i].name,
				deaths[i].has[k], words);
		for (size_t k = 0; k < 2 && deaths[i].lacks[k]; k++)
			cr_expect(!strstr(words, deaths[i].lacks[k]), "%s: \"%s\" in: %s", deaths[i].name,
				deaths[i].lacks[k], words);
		pyspyd_triage_free(triage);
	}
}

Test(triage, recursion_is_named) {
	struct triage_frame frames[40];
	struct triage_facts facts = { .signal = SIGSEGV,
		.signal_name = "SIGSEGV",
		.code = SEGV_MAPERR,
		.has_address = true,
		.address = STACK - 8,
		.registers_known = true,
		.sp = STACK,
		.stack = STACK_MAP,
		.frames = frames,
		.frames_n = 40 };
	struct pyspyd_triage *triage;

	for (size_t i = 0; i < 40; i++)
		frames[i] = (struct triage_frame){ i % 4 == 3 ? "call" : "descend", "/srv/codec.so" };
	cr_assert_eq(triage_decide(&facts, &triage), 0);
	cr_expect(strstr(words_of(triage), "descend stands 30 times among the 40"), "%s", words_of(triage));
	pyspyd_triage_free(triage);
}

Test(triage, nothing_of_the_living) {
	const struct triage_facts facts = { .pid = 7 };
	struct pyspyd_triage *triage;

	cr_assert_eq(triage_decide(&facts, &triage), 0);
	cr_assert_null(triage);
}
