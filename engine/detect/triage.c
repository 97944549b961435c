/* SPDX-License-Identifier: MIT */
/* What a process died of, told from its signal, the address, registers, mappings and frames of its thread.
 *
 * The order of the questions matters: who sent the signal; what the program said itself (a message of abort); whether
 * the stack was used up; what kind of address it was; what the interpreter was doing. The first that has an answer
 * names the cause, the others only add sentences. What a core shows is "read"; what follows from it is "inferred", with
 * the reason. Whose fault it is is never said: a collector that meets a broken object is the one that suffers.
 *
 *	Triage: null-pointer. Thread 4711 (MainThread) died of SIGSEGV in strlen (libc.so.6), called by Python's load
 *	(codec.py:9) (read). …
 *
 * No memory is read here. */
#include "engine/detect/triage.h"

#include "engine/base/strbuf.h"
#include "engine/base/util.h"
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NULL_BYTES 65536      /* vm.mmap_min_addr: nothing is mapped below */
#define OVERFLOW_BYTES 262144 /* how far one frame may reach beyond the stack's end */
#define WALK_DEPTH 4          /* frames between a broken object and the function that follows references */
#define RECURSION_MIN 16
#define STATEMENT_BYTES 640

struct story {
	const struct triage_facts *facts;
	struct pyspyd_triage *triage;
	bool failed; /* out of memory */
};

/* Adds a sentence; foreign text in it comes out printable. Those that there is no room for are left out. */
static void __attribute__((format(printf, 3, 4))) say(struct story *story, const char *why, const char *format, ...) {
	struct pyspyd_triage *triage = story->triage;
	struct strbuf sb = { 0 };
	char text[STATEMENT_BYTES];
	va_list args;

	if (triage->statements_n == PYSPYD_TRIAGE_STATEMENTS_MAX)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	strbuf_add_printable(&sb, text, strlen(text));
	triage->statements[triage->statements_n].why = why;
	triage->statements[triage->statements_n].text = strbuf_take(&sb);
	if (triage->statements[triage->statements_n].text)
		triage->statements_n++;
	else
		story->failed = true;
}

static bool has_any(const struct triage_frame *frame, const char *const *names, size_t n) {
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(names[i]);

		/* compilers append ".cold", ".constprop.0", ".lto_priv.0" to parts of a function */
		if (!strncmp(frame->function, names[i], len) && (!frame->function[len] || frame->function[len] == '.'))
			return true;
	}
	return false;
}

static size_t find_any(
	const struct triage_frame *frames, size_t frames_n, size_t depth, const char *const *names, size_t n) {
	for (size_t i = 0; i < min_of(frames_n, depth); i++)
		if (has_any(&frames[i], names, n))
			return i;
	return SIZE_MAX;
}

/* CPython 3.6 to 3.15 Modules/gcmodule.c, Python/gc.c, Python/gc_free_threading.c. */
static const char *const walkers[] = { "visit_decref", "visit_reachable", "visit_move", "visit_add_to_container",
	"visit_decref_unreachable", "visit_clear_unreachable", "update_refs", "subtract_refs", "move_unreachable",
	"deduce_unreachable", "move_legacy_finalizer_reachable", "untrack_tuples", "untrack_dicts", "mark_reachable",
	"mark_all_reachable", "expand_region_transitively_reachable", "gc_mark_traverse_list", "gc_mark_traverse_tuple",
	"mark_heap_visitor", "validate_gc_objects", "scan_heap_visitor" };
/* The innermost frame only: what they call may be anybody's. */
static const char *const freers[] = { "_Py_Dealloc", "_PyTrash_thread_destroy_chain", "_PyTrash_destroy_chain",
	"subtype_dealloc", "list_dealloc", "tuple_dealloc", "tupledealloc", "dict_dealloc", "set_dealloc",
	"_PyFrame_ClearLocals", "_PyFrame_ClearExceptCode", "frame_dealloc", "cell_dealloc", "delete_garbage" };
/* The innermost frame only, and the interpreter's own: they have become one with those above (inlined), or ask each
 * object for its type themselves. */
static const char *const collectors[] = { "collect", "collect_main", "gc_collect_main", "gc_collect_region",
	"gc_collect_young", "gc_collect_increment", "gc_collect_full", "gc_collect_internal" };
static const char *const fatals[] = { "_Py_FatalErrorFunc", "_Py_FatalErrorFormat", "Py_FatalError",
	"_Py_FatalRefcountErrorFunc", "_Py_FatalError_TstateNULL", "fatal_error" };
static const char *const objects[] = { "_PyObject_AssertFailed", "_Py_NegativeRefcount",
	"_PyObject_ASSERT_FAILED_MSG" };
static const char *const allocators[] = { "_PyMem_DebugCheckAddress", "_PyMem_DebugRawFree", "_PyMem_DebugFree",
	"_PyMem_DebugCheckGIL", "_PyObject_DebugDumpAddress" };
static const char *const throwers[] = { "std::terminate()", "std::terminate", "__cxa_throw", "__gxx_personality_v0",
	"__cxxabiv1::__terminate", "_ZSt9terminatev", "__gnu_cxx::__verbose_terminate_handler()" };

/* Return: the frame that follows references for the collector; SIZE_MAX: none. */
static size_t find_walker(const struct triage_frame *frames, size_t n) {
	size_t walker = find_any(frames, n, WALK_DEPTH, walkers, ARRAY_SIZE(walkers));
	const char *file;

	if (walker != SIZE_MAX || find_any(frames, n, 1, collectors, ARRAY_SIZE(collectors)) == SIZE_MAX)
		return walker;
	file = strrchr(frames[0].module, '/');
	return file && strstr(file, "python") ? 0 : SIZE_MAX;
}

bool triage_meets_objects(const struct triage_frame *frames, size_t n) {
	return find_walker(frames, n) != SIZE_MAX || find_any(frames, n, 1, freers, ARRAY_SIZE(freers)) != SIZE_MAX;
}

bool triage_reports_fatal(const struct triage_frame *frames, size_t n, size_t *ret_frame) {
	bool found = false;

	for (size_t i = 0; i < n; i++)
		if (has_any(&frames[i], fatals, ARRAY_SIZE(fatals))) {
			*ret_frame = i; /* the outermost of a run of them */
			found = true;
		} else if (found) {
			break;
		}
	return found;
}

static void set_cause(struct story *story, const char *cause) {
	if (!story->triage->cause)
		story->triage->cause = cause;
}

/* Functions that are there to end the process, whoever called them. */
static const char *const enders[] = { "abort", "raise", "__pthread_kill_implementation", "__pthread_kill",
	"__pthread_kill_internal", "pthread_kill", "gsignal", "__libc_message", "malloc_printerr", "__assert_fail",
	"__assert_fail_base", "__fortify_fail", "__stack_chk_fail" };

static bool is_aborting(const struct triage_facts *facts) {
	return find_any(facts->frames, facts->frames_n, 4, enders, ARRAY_SIZE(enders)) != SIZE_MAX;
}

/* Abort. */

static const struct {
	const char *text, *cause, *says;
} messages[] = {
	{ "stack smashing detected", "stack-smashing", "A function has written beyond an array on its stack" },
	{ "buffer overflow detected", "buffer-overflow", "A function of the C library was to write beyond a buffer" },
	{ "double free", "heap-corruption", "Memory was freed twice" },
	{ "free(): invalid pointer", "heap-corruption", "Something was freed that the allocator has not given out" },
	{ "munmap_chunk()", "heap-corruption", "Something was freed that the allocator has not given out" },
	{ "free()", "heap-corruption", "The allocator's own data were overwritten" },
	{ "malloc()", "heap-corruption", "The allocator's own data were overwritten" },
	{ "malloc_consolidate()", "heap-corruption", "The allocator's own data were overwritten" },
	{ "realloc()", "heap-corruption", "The allocator's own data were overwritten" },
	{ "corrupted ", "heap-corruption", "The allocator's own data were overwritten" },
	{ "tcache", "heap-corruption", "The allocator's own data were overwritten" },
	{ "Assertion ", "assertion", "An assertion of native code did not hold" },
};

static void judge_message(struct story *story) {
	const char *message = story->facts->abort_message;

	say(story, NULL, "The C library's message of abort: \"%.300s\"", message);
	for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
		if (!strstr(message, messages[i].text))
			continue;
		set_cause(story, messages[i].cause);
		say(story, "that is what the message means", "%s; it may have happened long before", messages[i].says);
		return;
	}
}

static void judge_abort(struct story *story) {
	const struct triage_facts *facts = story->facts;
	size_t at;

	if (facts->resent && !is_aborting(facts)) {
		set_cause(story, "sent");
		say(story, "none of the frames has called abort()", "Somebody sent it the signal");
		return;
	}
	if (facts->abort_message)
		judge_message(story);
	if (find_any(facts->frames, facts->frames_n, SIZE_MAX, objects, ARRAY_SIZE(objects)) != SIZE_MAX) {
		set_cause(story, "corrupted-object");
		say(story, NULL, "A check of the debug interpreter found an object that is broken");
	}
	if (find_any(facts->frames, facts->frames_n, SIZE_MAX, allocators, ARRAY_SIZE(allocators)) != SIZE_MAX) {
		set_cause(story, "heap-corruption");
		say(story, NULL,
			"CPython's debug allocator found a block that was written beyond its ends, or freed "
			"by another allocator");
	}
	if (triage_reports_fatal(facts->frames, facts->frames_n, &at)) {
		set_cause(story, "fatal-error");
		say(story, NULL, "The interpreter gave up: a fatal Python error, reported by %.72s",
			facts->frames[at].function);
		if (facts->fatal_message)
			say(story, "the text was found on the stack of that function", "Its text: \"%.200s\"",
				facts->fatal_message);
	}
	if (find_any(facts->frames, facts->frames_n, SIZE_MAX, throwers, ARRAY_SIZE(throwers)) != SIZE_MAX) {
		set_cause(story, "cxx-exception");
		say(story, "std::terminate is among the frames", "A C++ exception was not caught");
	}
	set_cause(story, "abort");
}

/* Addresses. */

static const struct {
	uint8_t byte;
	const char *cause, *means;
} fills[] = {
	{ 0xdd, "freed-memory", "the fill of freed memory of CPython's debug allocator" },
	{ 0xdb, "freed-memory", "the fill of freed memory of CPython's debug allocator (up to 3.7)" },
	{ 0xcd, "unset-memory", "the fill of new memory, not written yet, of CPython's debug allocator" },
	{ 0xcb, "unset-memory", "the fill of new memory, not written yet, of CPython's debug allocator (up to 3.7)" },
	{ 0xfd, "overrun", "the guard bytes around the blocks of CPython's debug allocator" },
	{ 0xfb, "overrun", "the guard bytes around the blocks of CPython's debug allocator (up to 3.7)" },
};

/* One byte all over, but for an offset that was added to it. Return: that byte; -1: it is none. */
static int fill_of(uint64_t value) {
	uint8_t byte = (uint8_t)(value >> 56);

	if (!byte || byte == 0xff || value >> 16 != (0x0101010101010101ULL * byte) >> 16)
		return -1;
	return byte;
}

static void say_fill(struct story *story, const char *where, uint64_t value) {
	unsigned byte = (unsigned)fill_of(value);

	for (size_t i = 0; i < ARRAY_SIZE(fills); i++) {
		if (fills[i].byte != byte)
			continue;
		say(story, NULL, "%s holds 0x%" PRIx64 ": 0x%02x is %s", where, value, byte, fills[i].means);
		say(story, "of the value that the pointer has", "A pointer was taken out of such memory");
		set_cause(story, fills[i].cause);
		return;
	}
	say(story, NULL, "%s holds 0x%" PRIx64 ", the byte 0x%02x all over", where, value, byte);
	say(story, "no pointer looks so",
		"A pointer was overwritten with data, or taken out of memory that the allocator has filled "
		"(MALLOC_PERTURB_)");
	set_cause(story, "overwritten");
}

static bool is_address_register(const char *name) {
	return strcmp(name, "eflags") != 0;
}

static bool is_canonical(uint64_t value) {
	return value >> 47 == 0 || value >> 47 == 0x1ffff;
}

/* The processor does not say which address it was: it is one that cannot be, and must come from a register. */
static void judge_no_address(struct story *story) {
	const struct triage_facts *facts = story->facts;
	unsigned said = 0;

	for (size_t i = 0; i < facts->registers_n && !said; i++)
		if (is_address_register(facts->registers[i].name) && fill_of(facts->registers[i].value) >= 0) {
			say_fill(story, facts->registers[i].name, facts->registers[i].value);
			said++;
		}
	for (size_t i = 0; i < facts->registers_n && said < 2; i++) {
		const struct pyspyd_register *reg = &facts->registers[i];

		if (!is_address_register(reg->name) || is_canonical(reg->value) || fill_of(reg->value) >= 0)
			continue;
		say(story, NULL, "%s holds 0x%" PRIx64 ", which can be no address", reg->name, reg->value);
		said++;
	}
	set_cause(story, "bad-address");
}

/* The stack is used up: what was touched lies beyond its end, where the stack pointer is. */
static bool is_overflow(const struct triage_facts *facts) {
	uint64_t start = facts->stack.start;

	if (facts->signal != SIGSEGV || !facts->has_address || !facts->registers_known || !facts->stack.known)
		return false;
	if (facts->address >= start || start - facts->address > OVERFLOW_BYTES)
		return false;
	if (facts->at.known && facts->at.write) /* another mapping, not what guards the stack */
		return false;
	return facts->sp < start + OVERFLOW_BYTES && facts->sp + OVERFLOW_BYTES > start &&
		facts->address + 256 >= facts->sp && facts->address - facts->sp + 256 < OVERFLOW_BYTES;
}

/* The function that stands there most often. */
static const char *recursing(const struct triage_facts *facts, size_t *ret_times) {
	size_t n = min_of(facts->frames_n, (size_t)512), best = 0;
	const char *name = NULL;

	for (size_t i = 0; i < min_of(n, (size_t)32); i++) {
		size_t times = 0;

		for (size_t j = 0; j < n; j++)
			times += *facts->frames[i].function &&
				!strcmp(facts->frames[i].function, facts->frames[j].function);
		if (times > best) {
			best = times;
			name = facts->frames[i].function;
		}
	}
	*ret_times = best;
	return best >= RECURSION_MIN ? name : NULL;
}

static void judge_overflow(struct story *story) {
	const struct triage_facts *facts = story->facts;
	size_t times;
	const char *name = recursing(facts, &times);

	set_cause(story, "stack-overflow");
	say(story, NULL,
		"The address that faulted, 0x%" PRIx64 ", is %" PRIu64
		" bytes below the thread's stack of %.1f MiB (%s)",
		facts->address, facts->stack.start - facts->address,
		(double)(facts->stack.end - facts->stack.start) / 1048576,
		facts->at.known && !facts->at.read ? "in its guard page" : "nothing is mapped there");
	say(story, "the stack pointer stands at the lower end of the stack", "The stack is used up");
	if (name)
		say(story, NULL, "%.72s stands %zu times among the %zu newest native frames", name, times,
			min_of(facts->frames_n, (size_t)512));
	if (facts->python_depth)
		say(story, NULL, "The thread has %zu frames of Python", facts->python_depth);
}

static const char *verb_of(enum triage_access access) {
	switch (access) {
	case TRIAGE_ACCESS_READ: return "was read";
	case TRIAGE_ACCESS_WRITE: return "was written to";
	case TRIAGE_ACCESS_EXECUTE: return "was jumped to";
	case TRIAGE_ACCESS_UNKNOWN: break;
	}
	return "was used";
}

static bool is_jump(const struct triage_facts *facts) {
	if (facts->access == TRIAGE_ACCESS_EXECUTE)
		return true;
	return facts->registers_known && facts->has_address && facts->pc == facts->address && !facts->code_map.exec;
}

static void judge_jump(struct story *story) {
	const struct triage_facts *facts = story->facts;

	if (facts->pc < NULL_BYTES) {
		set_cause(story, "null-pointer");
		say(story, "the program counter stands there",
			"A function was called through a null pointer (0x%" PRIx64 ")", facts->pc);
		return;
	}
	set_cause(story, "bad-jump");
	say(story, NULL, "The program counter stands at 0x%" PRIx64 ", where %s", facts->pc,
		facts->code_map.known ? "memory must not be executed" : "nothing is mapped");
	if (fill_of(facts->pc) >= 0)
		say_fill(story, "The program counter", facts->pc);
	say(story, "no call leads there", "A pointer to a function, or an address to return to, was overwritten");
}

static void judge_null(struct story *story) {
	const struct triage_facts *facts = story->facts;

	set_cause(story, "null-pointer");
	if (facts->address)
		say(story, "nothing is ever mapped so low",
			"A null pointer %s, %" PRIu64 " (0x%" PRIx64 ") bytes behind it", verb_of(facts->access),
			facts->address, facts->address);
	else
		say(story, NULL, "A null pointer %s", verb_of(facts->access));
}

static void judge_mapped(struct story *story) {
	const struct triage_facts *facts = story->facts;
	const char *of = facts->at.path && *facts->at.path ? facts->at.path : "no file";

	if (facts->at.write || facts->code != SEGV_ACCERR) {
		set_cause(story, "bad-address");
		say(story, NULL, "0x%" PRIx64 " %s; a mapping of %.200s is there", facts->address,
			verb_of(facts->access), of);
		return;
	}
	set_cause(story, "read-only");
	say(story, NULL, "0x%" PRIx64 " %s, in a mapping of %.200s that may %s", facts->address, verb_of(facts->access),
		of, facts->at.read ? "be read, but not be written to" : "not be used at all");
}

static void judge_unmapped(struct story *story) {
	const struct triage_facts *facts = story->facts;

	say(story, NULL, "0x%" PRIx64 " %s, and nothing is mapped there", facts->address, verb_of(facts->access));
	if (fill_of(facts->address) >= 0)
		say_fill(story, "The address", facts->address);
	else
		say(story, "of the address alone",
			"The memory was given back, or the pointer was overwritten or never set");
	set_cause(story, "bad-address");
}

/* Linux man 2 mmap: beyond the page that has the file's end. */
static bool is_truncated_file(const struct triage_facts *facts) {
	return facts->signal == SIGBUS && facts->code == BUS_ADRERR && facts->at.known && facts->at.path &&
		*facts->at.path == '/';
}

static void judge_truncated(struct story *story) {
	const struct triage_facts *facts = story->facts;

	set_cause(story, "truncated-file");
	say(story, NULL, "0x%" PRIx64 " %s, in a mapping of %.200s, at byte %" PRIu64 " of the file", facts->address,
		verb_of(facts->access), facts->at.path, facts->file_offset);
	if (facts->file_bytes == UINT64_MAX)
		say(story, "of the signal's code", "The file ends before it: it was cut short while it was mapped");
	else if (facts->file_bytes <= facts->file_offset)
		say(story, "of the size that the file has now",
			"The file has but %" PRIu64 " bytes: it was cut short while it was mapped", facts->file_bytes);
	else
		say(story, "the file is long enough now", "It could not be read, or was shorter at that time");
}

static void judge_address(struct story *story) {
	const struct triage_facts *facts = story->facts;

	if (is_overflow(facts))
		judge_overflow(story);
	else if (is_truncated_file(facts))
		judge_truncated(story);
	else if (is_jump(facts))
		judge_jump(story);
	else if (!facts->has_address)
		judge_no_address(story);
	else if (facts->address < NULL_BYTES)
		judge_null(story);
	else if (facts->at.known)
		judge_mapped(story);
	else
		judge_unmapped(story);
}

/* What the interpreter was doing. */

static void say_referrers(struct story *story) {
	const struct triage_facts *facts = story->facts;
	struct strbuf all = { 0 };

	for (size_t i = 0; i < min_of(facts->referrers_n, (size_t)TRIAGE_REFERRERS_MAX); i++)
		strbuf_addf(&all, "%s %.72s at 0x%" PRIx64, i ? ", a" : "A", facts->referrers[i].type,
			facts->referrers[i].address);
	if (facts->referrers_more)
		strbuf_adds(&all, " and others");
	if (all.failed)
		story->failed = true;
	else if (facts->referrers_n)
		say(story, NULL, "%s %s to it", strbuf_str(&all),
			facts->referrers_n > 1 || facts->referrers_more ? "refer" : "refers");
	strbuf_deinit(&all);
	if (facts->reached_by)
		say(story, NULL, "It is held by %.300s", facts->reached_by);
	if (facts->referrers_cut)
		say(story, NULL, "The search for who refers to it was cut short: there may be more");
}

static void say_object(struct story *story) {
	const char *why = "a register of the innermost function led there";
	const struct triage_object *object = &story->facts->object;

	if (object->address && object->type)
		say(story, why, "The object is a %.72s at 0x%" PRIx64, object->type, object->address);
	else if (object->readable)
		say(story, why, "The object, at 0x%" PRIx64 ", has no type: 0x%" PRIx64 " stands in the place of it",
			object->address, object->type_address);
	else if (object->address)
		say(story, why, "The object would be at 0x%" PRIx64 ", where nothing can be read", object->address);
	say_referrers(story);
}

static void say_first_words(struct story *story) {
	const struct triage_object *object = &story->facts->object;

	if (object->readable && fill_of(object->type_address) >= 0)
		say_fill(story, "Its type", object->type_address);
	else if (object->address && !object->readable && fill_of(object->address) >= 0)
		say_fill(story, "The reference", object->address);
}

/* Return: whether the interpreter met a broken object. */
static bool judge_object(struct story *story) {
	const struct triage_facts *facts = story->facts;
	size_t walker = find_walker(facts->frames, facts->frames_n);
	size_t freer = find_any(facts->frames, facts->frames_n, 1, freers, ARRAY_SIZE(freers));

	if (walker == SIZE_MAX && freer == SIZE_MAX)
		return false;
	set_cause(story, "corrupted-object");
	if (walker != SIZE_MAX)
		say(story, "it only follows references there, and all sound ones can be followed",
			"The garbage collector (%.72s) met an object, or a reference, that is broken: it was damaged "
			"before, by other code",
			facts->frames[walker].function);
	else
		say(story, "nothing but the object's own data is used there",
			"The interpreter was to free an object (%.72s) that is broken: freed before, or overwritten",
			facts->frames[freer].function);
	say_object(story);
	say_first_words(story);
	return true;
}

/* Signals. */

static void judge_calculation(struct story *story) {
	const struct triage_facts *facts = story->facts;

	set_cause(story, "bad-calculation");
	if (facts->code == FPE_INTDIV)
		say(story, NULL, "Native code divided an integer by zero, or the lowest one by -1");
	else
		say(story, NULL, "A calculation of native code cannot be done (code %d)", facts->code);
}

static void judge_signal(struct story *story) {
	switch (story->facts->signal) {
	case SIGABRT: judge_abort(story); break;
	case SIGSEGV:
	case SIGBUS:
		if (!is_overflow(story->facts))
			judge_object(story);
		judge_address(story);
		break;
	case SIGILL:
		set_cause(story, "bad-instruction");
		say(story, NULL,
			"The instruction at 0x%" PRIx64 " does not exist on this processor, or is a trap of the "
			"compiler (__builtin_trap)",
			story->facts->pc);
		break;
	case SIGFPE: judge_calculation(story); break;
	case SIGSYS:
		set_cause(story, "forbidden-call");
		say(story, NULL, "A seccomp filter forbids the system call");
		break;
	case SIGXCPU:
		set_cause(story, "limit");
		say(story, NULL, "It has used up its limit of CPU time (RLIMIT_CPU)");
		break;
	case SIGXFSZ:
		set_cause(story, "limit");
		say(story, NULL, "It was to write a file beyond its limit (RLIMIT_FSIZE)");
		break;
	case SIGTRAP: set_cause(story, "trap"); break;
	default: break;
	}
	set_cause(story, "unknown");
}

static bool is_from_outside(const struct triage_facts *facts) {
	return facts->has_sender && facts->sender != facts->pid;
}

static void judge_sender(struct story *story) {
	const struct triage_facts *facts = story->facts;

	set_cause(story, "sent");
	say(story, NULL, "Process %d of user %u sent it the signal", (int)facts->sender, (unsigned)facts->sender_uid);
	say(story, "of the signal's sender", "Nothing says that the program is at fault");
}

/* abort() has a signal that is sent by the thread itself; other signals that a program sends itself are no faults. */
static bool is_own(const struct triage_facts *facts) {
	return facts->has_sender && facts->sender == facts->pid && facts->signal != SIGABRT;
}

static void judge_own(struct story *story) {
	set_cause(story, "sent");
	say(story, NULL, "The process sent the signal itself: no fault of the processor's");
}

static const char *base_name(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool is_libc(const char *module) {
	const char *name = base_name(module);

	return !strncmp(name, "libc.so", 7) || !strncmp(name, "libc-2.", 7) || !strncmp(name, "libpthread", 10) ||
		!strncmp(name, "ld-", 3);
}

/* The innermost function that is not there to end the process, and, where that is the C library's, who called it. */
static void add_site(struct strbuf *sb, const struct triage_facts *facts) {
	const struct triage_frame *site = NULL, *caller = NULL;

	for (size_t i = 0; i < facts->frames_n && !caller; i++) {
		const struct triage_frame *frame = &facts->frames[i];

		if (!*frame->function || has_any(frame, enders, ARRAY_SIZE(enders)))
			continue;
		if (!site)
			site = frame;
		if (!is_libc(frame->module))
			caller = frame;
	}
	if (site)
		strbuf_addf(sb, " in %.120s (%.64s)", site->function, base_name(site->module));
	if (site && caller && caller != site)
		strbuf_addf(sb, ", called by %.120s (%.64s)", caller->function, base_name(caller->module));
}

static void say_where(struct story *story) {
	const struct triage_facts *facts = story->facts;
	struct strbuf sb = { 0 };

	strbuf_addf(&sb, "Thread %d", (int)facts->tid);
	if (facts->thread_name)
		strbuf_addf(&sb, " (%.64s)", facts->thread_name);
	strbuf_addf(&sb, " died of %s", facts->signal_name);
	add_site(&sb, facts);
	if (facts->python)
		strbuf_addf(&sb, ", below Python's %.72s (%.64s:%d)", facts->python->qualname,
			base_name(facts->python->file), facts->python->line);
	if (facts->resent)
		strbuf_adds(&sb, "; a handler (faulthandler is one) took the signal and sent it again");
	say(story, NULL, "%s", strbuf_str(&sb));
	story->failed = story->failed || sb.failed;
	strbuf_deinit(&sb);
}

void pyspyd_triage_free(struct pyspyd_triage *triage) {
	for (size_t i = 0; triage && i < triage->statements_n; i++)
		free(triage->statements[i].text);
	free(triage);
}

/* What it was about, for whoever reads nothing but this: an exception is often why rare code was run at all. */
static void say_exception(struct story *story) {
	const struct pyspyd_exception *exception = story->facts->exception;
	const struct pyspyd_frame *raised = exception && exception->traceback_n ? &exception->traceback[0] : NULL;
	const char *doing =
		!exception || exception->state == PYSPYD_EXCEPTION_HANDLED ? "It was handling" : "On its way was";
	struct strbuf sb = { 0 };

	if (!exception || !exception->type)
		return;
	strbuf_addf(&sb, "%s %.72s", doing, exception->type);
	if (exception->message && *exception->message)
		strbuf_addf(&sb, ": %.160s", exception->message);
	if (raised)
		strbuf_addf(
			&sb, " (raised in %.72s, %.64s:%d)", raised->qualname, base_name(raised->file), raised->line);
	say(story, NULL, "%s", strbuf_str(&sb));
	story->failed = story->failed || sb.failed;
	strbuf_deinit(&sb);
}

int triage_decide(const struct triage_facts *facts, struct pyspyd_triage **ret_triage) {
	struct story story = { .facts = facts };

	*ret_triage = NULL;
	if (!facts->signal)
		return 0;
	story.triage = calloc(1, sizeof(*story.triage));
	if (!story.triage)
		return -ENOMEM;
	say_where(&story);
	if (is_from_outside(facts))
		judge_sender(&story);
	else if (is_own(facts))
		judge_own(&story);
	else
		judge_signal(&story);
	if (facts->collecting && !is_from_outside(facts))
		say(&story, NULL, "The interpreter was collecting garbage");
	say_exception(&story);
	if (story.failed) {
		pyspyd_triage_free(story.triage);
		return -ENOMEM;
	}
	*ret_triage = story.triage;
	return 0;
}
