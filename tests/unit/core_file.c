/* SPDX-License-Identifier: MIT */
/* Core files by hand, in the order in which the kernel writes one. */
#include "tests/unit/core_file.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/syscall.h>

#define SEGMENTS 7

static void add_note(struct strbuf *notes, uint32_t type, const void *body, size_t len) {
	const Elf64_Nhdr header = { .n_namesz = 5, .n_descsz = (uint32_t)len, .n_type = type };

	strbuf_add(notes, (const char *)&header, sizeof(header));
	strbuf_add(notes, "CORE\0\0\0", 8);
	strbuf_add(notes, body, len);
	strbuf_add(notes, "\0\0\0", (4 - len % 4) % 4);
}

static void add_thread(struct strbuf *notes, pid_t tid, int signal, const struct user_regs_struct *regs) {
	struct elf_prstatus status = { .pr_cursig = (short)signal, .pr_pid = tid, .pr_ppid = 1 };

	status.pr_info.si_signo = signal;
	memcpy(&status.pr_reg, regs, sizeof(*regs));
	add_note(notes, NT_PRSTATUS, &status, sizeof(status));
}

static void add_files(struct strbuf *notes, const char *path) {
	uint64_t words[] = { 3, CORE_PAGE, CORE_LIBRARY, CORE_LIBRARY + CORE_PAGE, 0, CORE_LIBRARY + CORE_PAGE,
		CORE_LIBRARY + 2 * CORE_PAGE, 1, CORE_LIBRARY + 2 * CORE_PAGE, CORE_LIBRARY + 3 * CORE_PAGE, 2 };
	struct strbuf body = { 0 };

	strbuf_add(&body, (const char *)words, sizeof(words));
	for (int i = 0; i < 3; i++)
		strbuf_add(&body, path, strlen(path) + 1);
	add_note(notes, NT_FILE, body.data, body.len);
	strbuf_deinit(&body);
}

static struct user_regs_struct died(void) {
	struct user_regs_struct regs = { 0 };

#ifdef __x86_64__
	regs.rip = CORE_HEAP + 0x20;
	regs.rsp = CORE_STACK + 0x100;
	regs.orig_rax = UINT64_MAX;
#endif
	return regs;
}

/* Behind the instruction at the heap's 0x30. */
static struct user_regs_struct asleep(void) {
	struct user_regs_struct regs = { 0 };

#ifdef __x86_64__
	regs.rip = CORE_HEAP + 0x32;
	regs.rsp = CORE_STACK + 0x200;
	regs.orig_rax = SYS_futex;
	regs.rdi = CORE_HEAP + 0x40;
#endif
	return regs;
}

static void add_notes(struct strbuf *notes, const struct core_recipe *recipe) {
	const uint64_t auxv[] = { AT_PHDR, CORE_LIBRARY + 64, AT_RANDOM, CORE_STACK + 8, AT_NULL, 0 };
	struct user_regs_struct first = died(), second = asleep();
	struct elf_prpsinfo info = { .pr_uid = 1000, .pr_gid = 100, .pr_pid = 4711, .pr_ppid = 1 };
	siginfo_t siginfo = { .si_signo = recipe->signal ? recipe->signal : SIGSEGV,
		.si_code = recipe->code ? recipe->code : SEGV_MAPERR };

	memcpy(info.pr_fname, "a) b", 4);
	memcpy(info.pr_psargs, "python3 x.py ", 13);
	if (siginfo.si_code > 0) {
		siginfo.si_addr = (void *)0x10; // NOLINT: an address of the process
	} else {
		siginfo.si_pid = 77;
		siginfo.si_uid = 5;
	}
	add_thread(notes, 4711, siginfo.si_signo, &first);
	add_note(notes, NT_PRPSINFO, &info, sizeof(info));
	add_note(notes, NT_SIGINFO, &siginfo, sizeof(siginfo));
	add_note(notes, NT_AUXV, auxv, sizeof(auxv));
	add_files(notes, recipe->library ? recipe->library : "/nowhere/lib.so");
	add_thread(notes, 4712, 0, &second);
}

static Elf64_Phdr load(raddr at, size_t pages, size_t dumped, uint32_t flags, uint64_t *offset) {
	Elf64_Phdr segment = { .p_type = PT_LOAD,
		.p_flags = flags,
		.p_offset = *offset,
		.p_vaddr = at,
		.p_filesz = dumped * CORE_PAGE,
		.p_memsz = pages * CORE_PAGE };

	*offset += segment.p_filesz;
	return segment;
}

static void add_headers(struct strbuf *out, const struct core_recipe *recipe, size_t notes_len, uint64_t data_at) {
	const uint64_t notes_at = sizeof(Elf64_Ehdr) + SEGMENTS * sizeof(Elf64_Phdr) + sizeof(Elf64_Shdr);
	const Elf64_Shdr first = { .sh_info = SEGMENTS };
	Elf64_Ehdr header = {
		.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_CORE,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(header),
		.e_ehsize = sizeof(header),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = SEGMENTS,
	};
	uint64_t at = data_at;
	const Elf64_Phdr segments[SEGMENTS] = {
		{ .p_type = PT_NOTE, .p_offset = notes_at, .p_filesz = notes_len },
		load(CORE_HEAP, 2, 2, PF_R | PF_W, &at),
		load(CORE_LIBRARY, 1, 1, PF_R, &at),
		load(CORE_LIBRARY + CORE_PAGE, 1, 0, PF_R | PF_X, &at),
		load(CORE_LIBRARY + 2 * (uint64_t)CORE_PAGE, 1, 0, PF_R | PF_W, &at),
		load(CORE_STACK, 2, 2, PF_R | PF_W, &at),
		{ .p_type = PT_NULL },
	};

	if (recipe->many) {
		header.e_phnum = PN_XNUM;
		header.e_shoff = sizeof(header) + sizeof(segments);
		header.e_shentsize = sizeof(first);
		header.e_shnum = 1;
	}
	strbuf_add(out, (const char *)&header, sizeof(header));
	strbuf_add(out, (const char *)segments, sizeof(segments));
	strbuf_add(out, (const char *)&first, sizeof(first));
}

static void add_page(struct strbuf *out, const uint8_t *bytes, char fill) {
	char page[CORE_PAGE];

	memset(page, fill, sizeof(page));
	strbuf_add(out, bytes ? (const char *)bytes : page, sizeof(page));
}

uint8_t *core_file_new(const struct core_recipe *recipe, size_t *ret_len) {
	struct strbuf notes = { 0 }, out = { 0 };
	uint8_t heap[CORE_PAGE];
	uint64_t data_at;

	memset(heap, 'h', sizeof(heap));
	memcpy(heap + 0x30, "\x0f\x05", 2);
	add_notes(&notes, recipe);
	data_at = (sizeof(Elf64_Ehdr) + SEGMENTS * sizeof(Elf64_Phdr) + sizeof(Elf64_Shdr) + notes.len + CORE_PAGE) /
		CORE_PAGE * CORE_PAGE;
	add_headers(&out, recipe, notes.len, data_at);
	strbuf_add(&out, notes.data, notes.len);
	while (out.len < data_at)
		strbuf_add(&out, "\0", 1);
	add_page(&out, heap, 0);
	add_page(&out, NULL, 'H');
	add_page(&out, recipe->header_page, 0);
	add_page(&out, NULL, 's');
	add_page(&out, NULL, 'S');
	strbuf_deinit(&notes);
	cr_assert(!out.failed);
	*ret_len = out.len;
	return (uint8_t *)strbuf_take(&out);
}

int core_file_fd(const void *bytes, size_t len) {
	int fd = memfd_create("core", MFD_CLOEXEC);

	cr_assert(fd >= 0);
	cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
	return fd;
}
