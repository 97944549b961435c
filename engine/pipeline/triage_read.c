/* SPDX-License-Identifier: MIT */
/* What a program has left of its end in its memory: the message of abort, texts on the stack, the frame of a signal. */
#include "engine/pipeline/triage_internal.h"

#include "engine/base/util.h"
#include "engine/elf/elf_image.h"
#include <signal.h>
#include <string.h>

#define STACK_WORDS_MAX 8192
#define LIBC "libc.so.6"
#define PROTECTION_ERROR 1 /* x86: a bit of the error code of a page fault: something is mapped there */

/* glibc Include/assert.h, assert/__libc_fatal: struct abort_msg_s { unsigned int size; char msg[]; } */
#define MESSAGE_AT 4

static bool is_libc(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash && (!strcmp(slash + 1, LIBC) || !strncmp(slash + 1, "libc-2.", 7));
}

static void free_image(struct elf_image **img) {
	elf_image_free(*img);
}

static bool find_message(struct native_look *look, const struct native_module *module, raddr *ret_variable) {
	struct elf_image _cleanup_(free_image) *img = NULL;
	_close_ int fd = -1;
	uint64_t vaddr, size;

	if (native_module_open(look->modules, module, &fd) || elf_image_open(fd, &img))
		return false;
	if (elf_image_symbol(img, "__abort_msg", &vaddr, &size) || size != sizeof(uint64_t))
		return false;
	*ret_variable = vaddr + module->bias;
	return true;
}

static void trim(char *text) {
	size_t len = strlen(text);

	while (len && (text[len - 1] == '\n' || text[len - 1] == ' '))
		text[--len] = '\0';
}

bool triage_abort_message(struct native_look *look, char text[TRIAGE_TEXT_SIZE]) {
	for (size_t i = 0; i < look->modules->items.n; i++) {
		const struct native_module *module = &look->modules->items.items[i];
		raddr variable, message;

		if (!is_libc(native_module_path(look->modules, module)))
			continue;
		module = native_modules_load(look->modules, i);
		if (!module || !find_message(look, module, &variable))
			continue;
		if (mem_read_u64(look->mem, variable, &message) || !message ||
			mem_read_cstr(look->mem, message + MESSAGE_AT, text, TRIAGE_TEXT_SIZE))
			return false;
		trim(text);
		return *text;
	}
	return false;
}

/* A few words, and nothing that a sentence does not have. */
static bool is_sentence(const char *text) {
	bool blank = false;
	size_t len = 0;

	for (; text[len]; len++) {
		unsigned char c = (unsigned char)text[len];

		if (c < ' ' || c == 0x7f || c == '%')
			return false;
		blank = blank || (c == ' ' && len > 1);
	}
	return blank && len >= 6 && len < TRIAGE_TEXT_SIZE - 1 && strncmp(text, "Fatal Python error", 18) != 0;
}

bool triage_text_on_stack(struct mem *mem, raddr start, raddr end, char text[TRIAGE_TEXT_SIZE]) {
	bool found = false;

	for (raddr at = start; at + 8 <= end && (at - start) / 8 < STACK_WORDS_MAX; at += 8) {
		char candidate[TRIAGE_TEXT_SIZE];
		uint64_t word;

		if (mem_read_u64(mem, at, &word))
			break;
		if (word < 65536 || mem_read_cstr(mem, word, candidate, sizeof(candidate)))
			continue;
		trim(candidate);
		if (!is_sentence(candidate))
			continue;
		memcpy(text, candidate, sizeof(candidate));
		found = true;
	}
	return found;
}

#ifdef __x86_64__
/* Linux arch/x86/include/uapi/asm/sigcontext.h and ucontext.h: flags, link and the alternative stack come before the
 * registers, the mask of signals and then the siginfo behind them. */
struct kernel_frame_x86 {
	uint64_t head[5];
	uint64_t registers[17]; /* r8 … r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip */
	uint64_t flags, segments, error, trap, old_mask, cr2, fp, reserved[8];
	uint64_t mask;
	siginfo_t info;
};

/* Linux arch/x86/include/asm/trapnr.h. The siginfo is there only where the handler asked for it (SA_SIGINFO), which
 * faulthandler does not; what the processor said is always there. */
enum { TRAP_DIVIDE = 0, TRAP_OPCODE = 6, TRAP_PROTECTION = 13, TRAP_PAGE = 14, TRAP_X87 = 16, TRAP_SIMD = 19 };

static bool take_trap(const struct kernel_frame_x86 *frame, int signal, struct triage_signal_frame *ret) {
	bool asked = frame->info.si_signo == signal && frame->info.si_code != 0;
	bool page = frame->trap == TRAP_PAGE;

	*ret = (struct triage_signal_frame){ .error = frame->error };
	switch (signal) {
	case SIGABRT: return true;
	case SIGSEGV:
	case SIGBUS:
		if (!page && frame->trap != TRAP_PROTECTION)
			return false;
		ret->has_address = page;
		ret->address = frame->cr2;
		ret->code = !page                         ? SI_KERNEL
			: signal == SIGBUS                ? BUS_ADRERR
			: frame->error & PROTECTION_ERROR ? SEGV_ACCERR
							  : SEGV_MAPERR;
		break;
	case SIGILL:
		if (frame->trap != TRAP_OPCODE)
			return false;
		ret->code = ILL_ILLOPN;
		break;
	case SIGFPE:
		if (frame->trap != TRAP_DIVIDE && frame->trap != TRAP_X87 && frame->trap != TRAP_SIMD)
			return false;
		ret->code = frame->trap == TRAP_DIVIDE ? FPE_INTDIV : FPE_FLTINV;
		break;
	default: return false;
	}
	if (asked)
		ret->code = frame->info.si_code;
	return !asked || frame->info.si_code > 0; /* else somebody sent it */
}

bool triage_signal_frame(struct mem *mem, raddr sp, int signal, struct triage_signal_frame *ret_frame) {
	static const char *const names[] = { "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rdi", "rsi", "rbp",
		"rbx", "rdx", "rax", "rcx", "rsp", "rip" };
	struct kernel_frame_x86 frame;

	if (mem_read(mem, sp, &frame, sizeof(frame)))
		return false;
	if (!take_trap(&frame, signal, ret_frame))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		ret_frame->registers[i] = (struct pyspyd_register){ names[i], frame.registers[i] };
	return true;
}
#else
bool triage_signal_frame(struct mem *mem, raddr sp, int signal, struct triage_signal_frame *ret_frame) {
	(void)mem, (void)sp, (void)signal, (void)ret_frame;
	return false;
}
#endif
