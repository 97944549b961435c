/* SPDX-License-Identifier: MIT */
/* Opens live processes and core files, so that nobody else has to know the difference; and says what a core tells. */
#include "engine/pipeline/subject.h"

#include "engine/base/strbuf.h"
#include <errno.h>
#include <signal.h>
#include <string.h>

#define FILES_SHOWN_MAX 1024

/* Linux man 2 sigaction. */
static const char *reason_of(const struct core_signal *signal) {
	static const struct {
		int number, code;
		const char *reason;
	} reasons[] = {
		{ SIGSEGV, SEGV_MAPERR, "address not mapped" },
		{ SIGSEGV, SEGV_ACCERR, "access not permitted" },
		{ SIGSEGV, SI_KERNEL, "no address that can be: not canonical, or a protection fault" },
		{ SIGBUS, BUS_ADRALN, "address not aligned" },
		{ SIGBUS, BUS_ADRERR, "address behind the end of its file" },
		{ SIGBUS, BUS_OBJERR, "hardware error" },
		{ SIGILL, ILL_ILLOPC, "illegal opcode" },
		{ SIGILL, ILL_ILLOPN, "illegal operand" },
		{ SIGILL, ILL_PRVOPC, "privileged opcode" },
		{ SIGFPE, FPE_INTDIV, "integer division by zero" },
		{ SIGFPE, FPE_INTOVF, "integer overflow" },
		{ SIGFPE, FPE_FLTDIV, "division by zero" },
		{ SIGFPE, FPE_FLTINV, "invalid operation" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
		if (reasons[i].number == signal->number && reasons[i].code == signal->code)
			return reasons[i].reason;
	if (!signal->has_sender)
		return NULL;
	return signal->code == SI_TKILL ? "sent to the thread" : "sent to the process";
}

static char *name_of_signal(int number) {
	const char *abbreviation = sigabbrev_np(number);
	char *name;
	int n = abbreviation ? asprintf(&name, "SIG%s", abbreviation) : asprintf(&name, "signal %d", number);

	return n < 0 ? NULL : name;
}

/* Notes come first in a core: how the process died is known even where its Python is not. */
static int truncated(const struct core *core, const struct pyspyd_core_source *source, int r, struct err *err) {
	_free_ char *name = core->signal.number ? name_of_signal(core->signal.number) : NULL;
	const char *reason = reason_of(&core->signal);

	if (name)
		err_wrap(err, r, "killed by %s (%s) in thread %d; what is left does not show its Python", name,
			reason ? reason : "for an unknown reason", (int)core->threads.items[0].tid);
	return err_wrap(err, r, "%s is truncated, %llu of %llu bytes", source->core, (unsigned long long)core->bytes,
		(unsigned long long)core->expected_bytes);
}

/* A Python whose files are not there cannot be found, or not be read: the remedy belongs to the message. */
static int add_remedy(const struct core *core, const struct pyspyd_core_source *source, int r, struct err *err) {
	const struct core_file *exe = core->exe == SIZE_MAX ? NULL : &core->files.items[core->exe];

	if (r != PYSPYD_E_UNSUPPORTED && r != PYSPYD_E_STARTING)
		return r;
	if (core_is_truncated(core))
		return truncated(core, source, r, err);
	if (exe && exe->state == CORE_FILE_MISSING)
		return err_wrap(
			err, r, "its executable %.200s is not here (--exe or --root names another place)", exe->path);
	if (exe && exe->state == CORE_FILE_DIFFERENT)
		return err_wrap(err, r,
			"its executable %.200s is another one by now (--exe or --root names another place)", exe->path);
	return err_wrap(err, r, "%s", source->core);
}

static bool registers_of(void *userdata, pid_t tid, struct native_regs *ret_regs) {
	const struct core_thread *thread = core_thread(userdata, tid);

	if (!thread)
		return false;
	*ret_regs = native_regs_of_user(&thread->regs);
	return true;
}

static int open_offline(struct subject *subject, const struct pyspyd_core_source *source, struct err *err) {
	struct proc proc = { .dir_fd = -1, .pidfd = -1 };
	struct mem *mem = NULL;
	int r = core_mem_new(subject->core, &mem);

	if (!r)
		r = core_tree(subject->core, mem, &subject->tree, err);
	if (r == -E2BIG)
		err_set(err, r, "%s has more mappings than can be looked at", source->core);
	if (!r)
		r = proc_open(captured_root(subject->tree),
			subject->core->pid > 0 ? subject->core->pid : subject->core->threads.items[0].tid, &proc);
	if (r) {
		mem_free(mem);
		return r;
	}
	r = sample_target_new_offline(captured_root(subject->tree), &proc, mem, &subject->target, err);
	if (r)
		return add_remedy(subject->core, source, r, err);
	subject->target->registers = registers_of;
	subject->target->registers_userdata = subject->core;
	return 0;
}

static int open_core(struct subject *subject, const struct pyspyd_core_source *source, struct err *err) {
	int r = core_open(source->core, &subject->core, err);

	if (!r)
		r = core_find_files(subject->core, source->root, source->exe, err);
	if (!r) {
		subject->path = strdup(source->core);
		r = subject->path ? open_offline(subject, source, err) : -ENOMEM;
	}
	return r;
}

int subject_open(pid_t pid, const struct pyspyd_core_source *source, uint64_t wait_ns, struct subject *ret_subject,
	struct err *err) {
	struct subject subject = { 0 };
	int r = source->core ? open_core(&subject, source, err) : sample_target_new(pid, wait_ns, &subject.target, err);

	if (r) {
		subject_close(&subject);
		return r;
	}
	*ret_subject = subject;
	return 0;
}

void subject_close(struct subject *subject) {
	sample_target_free(subject->target);
	captured_free(subject->tree);
	core_free(subject->core);
	free(subject->path);
	*subject = (struct subject){ 0 };
}

static int add_path(char ***paths, size_t *n, const char *path) {
	char **grown;

	if (*n == FILES_SHOWN_MAX)
		return 0;
	grown = realloc(*paths, (*n + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	*paths = grown;
	grown[*n] = strdup(path);
	return grown[*n] ? (*n)++, 0 : -ENOMEM;
}

static int add_files(const struct core *core, struct pyspyd_core *ret) {
	int r = 0;

	vec_foreach (file, &core->files) {
		if (!r && file->state == CORE_FILE_MISSING)
			r = add_path(&ret->missing, &ret->missing_n, file->path);
		if (!r && file->state == CORE_FILE_DIFFERENT)
			r = add_path(&ret->different, &ret->different_n, file->path);
		ret->unverified_n += file->state == CORE_FILE_UNVERIFIED;
	}
	return r;
}

#ifdef __aarch64__
static const char *const names[] = { "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12",
	"x13", "x14", "x15", "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28",
	"x29", "x30", "sp", "pc" };

static size_t take_registers(const struct user_regs_struct *regs, uint64_t *values) {
	for (size_t i = 0; i < 31; i++)
		values[i] = regs->regs[i];
	values[31] = regs->sp;
	values[32] = regs->pc;
	return ARRAY_SIZE(names);
}
#else
static const char *const names[] = { "rip", "rsp", "rbp", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10",
	"r11", "r12", "r13", "r14", "r15", "eflags" };

static size_t take_registers(const struct user_regs_struct *regs, uint64_t *values) {
	const uint64_t all[] = { regs->rip, regs->rsp, regs->rbp, regs->rax, regs->rbx, regs->rcx, regs->rdx, regs->rsi,
		regs->rdi, regs->r8, regs->r9, regs->r10, regs->r11, regs->r12, regs->r13, regs->r14, regs->r15,
		regs->eflags };

	memcpy(values, all, sizeof(all));
	return ARRAY_SIZE(all);
}
#endif

static int add_registers(const struct core *core, struct pyspyd_core *ret) {
	uint64_t values[ARRAY_SIZE(names)];
	size_t n = take_registers(&core->threads.items[0].regs, values);

	ret->registers = calloc(n, sizeof(*ret->registers));
	if (!ret->registers)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		ret->registers[i] = (struct pyspyd_register){ names[i], values[i] };
	ret->registers_n = n;
	return 0;
}

static int describe_core(const struct core *core, struct pyspyd_core *ret) {
	const struct core_signal *signal = &core->signal;
	int r;

	ret->bytes = core->bytes;
	ret->expected_bytes = core->expected_bytes;
	if (signal->number) {
		ret->tid = core->threads.items[0].tid;
		ret->signal = signal->number;
		ret->signal_name = name_of_signal(signal->number);
		ret->code = signal->code;
		ret->reason = reason_of(signal);
		ret->has_address = signal->has_address;
		ret->address = signal->address;
		ret->has_sender = signal->has_sender;
		ret->sender = signal->sender;
		ret->sender_uid = signal->sender_uid;
		if (!ret->signal_name)
			return -ENOMEM;
	}
	r = add_registers(core, ret);
	return r ? r : add_files(core, ret);
}

char *subject_build_id(const struct subject *subject, const char *path) {
	size_t len = strlen(path);

	if (!subject->core)
		return NULL;
	vec_foreach (file, &subject->core->files) {
		struct strbuf hex = { 0 };

		if (!file->build_id_len || strncmp(file->path, path, len) ||
			(file->path[len] && strcmp(file->path + len, " (deleted)")))
			continue;
		for (size_t i = 0; i < file->build_id_len; i++)
			strbuf_addf(&hex, "%02x", file->build_id[i]);
		return strbuf_take(&hex);
	}
	return NULL;
}

int subject_add_core(const struct subject *subject, struct pyspyd_process *process) {
	const struct core *core = subject->core;
	int r = 0;

	if (!core)
		return 0;
	process->start_real_ns = 0; /* not in a core */
	process->core = calloc(1, sizeof(*process->core));
	if (!process->core)
		return -ENOMEM;
	process->core->path = strdup(subject->path);
	if (core->exe != SIZE_MAX) {
		free(process->exe);
		process->exe = strdup(core->files.items[core->exe].path);
		r = process->exe ? 0 : -ENOMEM;
	}
	if (!process->core->path)
		r = -ENOMEM;
	return r ? r : describe_core(core, process->core);
}

void pyspyd_core_tidy(void) {
	captured_remove_all();
}
