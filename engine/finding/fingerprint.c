/* SPDX-License-Identifier: MIT */
/* Who is who among findings: the same fault in the same program has one fingerprint on every host and in every run;
 * each finding has an id of its own.
 *
 * What changes from run to run is taken out before hashing: numbers in file names and units (pids, dates, temporary
 * names), versions of the interpreter, folders, lines. Two faults that differ in such a number only share a
 * fingerprint; that is the cheaper mistake. The hash is FNV-1a of 128 bits, since fingerprints are stored: it must
 * never change. */
#include "engine/finding/fingerprint.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define SITE_FRAMES 3        /* the site and its callers */
#define SITE_SHARE 0.9       /* of the samples shown, that must share the site */
#define IDENTITY_TEXT 65536U /* bytes of one part that are looked at */

/* Taking out what changes. */

void fingerprint_text(struct strbuf *sb, const char *s) {
	size_t n = strnlen(s, IDENTITY_TEXT);

	for (size_t i = 0; i < n;) {
		bool hex = s[i] == '0' && i + 2 < n && (s[i + 1] == 'x' || s[i + 1] == 'X') &&
			isxdigit((unsigned char)s[i + 2]);

		if (!isdigit((unsigned char)s[i])) {
			strbuf_add(sb, s + i++, 1);
			continue;
		}
		strbuf_adds(sb, "#");
		i += hex ? 2 : 0;
		while (i < n && (hex ? isxdigit((unsigned char)s[i]) : isdigit((unsigned char)s[i])))
			i++;
	}
}

static const char *base_name(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

/* "site-packages/x/y.py" and the like: from there on; else the base name. Two folders of packages: the inner one. */
static const char *file_identity(const char *file) {
	static const char *const folders[] = { "/site-packages/", "/dist-packages/" };
	const char *found = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		for (const char *at = strstr(file, folders[i]); at; at = strstr(at + 1, folders[i]))
			found = !found || at > found ? at + strlen(folders[i]) : found;
	return found ? found : base_name(file);
}

/* The program. */

static bool is_python_name(const char *name) {
	static const char python[] = "python";
	const char *rest;

	if (strncmp(name, python, sizeof(python) - 1) != 0)
		return false;
	rest = name + sizeof(python) - 1;
	rest += strspn(rest, "0123456789.");
	return !*rest || !strcmp(rest, "t") || !strcmp(rest, "d") || !strcmp(rest, "-dbg") || *rest == ' ';
}

/* What an interpreter was told to run. */
struct script {
	enum { SCRIPT_NONE, SCRIPT_FILE, SCRIPT_MODULE, SCRIPT_COMMAND } kind;
	const char *text;
};

/* One argument of flags: "-Im", "-Wignore". Return: true where it ends the options (*ret set); *ret_skip is set where
 * its value is the next argument. */
static bool scan_flags(const char *flags, const char *next, struct script *ret, bool *ret_skip) {
	for (const char *flag = flags; *flag; flag++) {
		const char *value = flag[1] ? flag + 1 : next;

		if (*flag == 'W' || *flag == 'X') {
			*ret_skip = !flag[1];
			return false;
		}
		if (*flag != 'c' && *flag != 'm')
			continue;
		if (value)
			*ret = (struct script){ *flag == 'c' ? SCRIPT_COMMAND : SCRIPT_MODULE, value };
		return true;
	}
	return false;
}

static struct script find_script(char *const *cmdline) {
	struct script script = { 0 };

	for (size_t i = 1; cmdline && cmdline[0] && cmdline[i]; i++) {
		const char *argument = cmdline[i];
		bool skip = false;

		if (argument[0] != '-' || !argument[1])
			return (struct script){ SCRIPT_FILE, argument };
		if (argument[1] == '-')
			skip = !strcmp(argument, "--check-hash-based-pycs");
		else if (scan_flags(argument + 1, cmdline[i + 1], &script, &skip))
			return script;
		if (skip && !cmdline[++i])
			break;
	}
	return script;
}

static void add_script(struct strbuf *sb, const struct script *script) {
	static const char *const prefix[] = { "", "script ", "module ", "command " };

	strbuf_adds(sb, prefix[script->kind]);
	if (script->kind == SCRIPT_COMMAND)
		fingerprint_text(sb, script->text);
	else if (script->kind == SCRIPT_MODULE)
		strbuf_adds(sb, script->text);
	else if (script->kind == SCRIPT_FILE)
		fingerprint_text(sb, base_name(script->text));
}

static void add_exe(struct strbuf *sb, const char *name) {
	static const char deleted[] = " (deleted)";
	size_t n = strlen(name);

	if (is_python_name(name)) {
		strbuf_adds(sb, "python");
		return;
	}
	if (n > sizeof(deleted) - 1 && !strcmp(name + n - (sizeof(deleted) - 1), deleted))
		n -= sizeof(deleted) - 1;
	strbuf_add(sb, name, n);
}

void fingerprint_program(struct strbuf *sb, const struct pyspyd_process *process) {
	const char *argv0 = process->cmdline && process->cmdline[0] ? process->cmdline[0] : "";
	const char *exe = base_name(process->exe && *process->exe ? process->exe : argv0);
	struct script script = { 0 };

	add_exe(sb, exe);
	strbuf_adds(sb, "\n");
	if (is_python_name(exe))
		script = find_script(process->cmdline);
	/* A program that writes its own title ("gunicorn: worker [app]") has no other name left. */
	if (script.kind != SCRIPT_NONE)
		add_script(sb, &script);
	else if (*argv0 && !is_python_name(base_name(argv0)))
		fingerprint_text(sb, base_name(argv0));
	strbuf_adds(sb, "\n");
	fingerprint_text(sb, process->unit ? process->unit : "");
	strbuf_adds(sb, "\n");
}

/* The site. */

/* Frames from the outermost call, whatever order they are stored in. */
static const struct detect_frame *frame_at(const struct detect_stack *stack, size_t depth) {
	return depth < stack->frames_n ? &stack->frames[stack->frames_n - 1 - depth] : NULL;
}

static bool is_same_function(const struct detect_frame *a, const struct detect_frame *b) {
	return a && b && a->lang == b->lang && !strcmp(a->qualname, b->qualname) && !strcmp(a->function, b->function) &&
		!strcmp(a->file, b->file);
}

static size_t shared_calls(const struct detect_stack *a, const struct detect_stack *b) {
	size_t depth = 0;

	while (is_same_function(frame_at(a, depth), frame_at(b, depth)))
		depth++;
	return depth;
}

/* How many of the hottest stack's outermost calls SITE_SHARE of the samples have in common. */
static size_t common_depth(const struct detect_stack *stacks, size_t n) {
	size_t shared[DETECT_STACKS_MAX], best = 0;
	double total = 0;

	/* Without their outermost calls stacks cannot be laid side by side. */
	if (stacks->truncated)
		return stacks->frames_n;
	for (size_t i = 0; i < n; i++) {
		shared[i] = shared_calls(stacks, &stacks[i]);
		total += stacks[i].share;
	}
	for (size_t i = 0; i < n; i++) {
		double share = 0;

		for (size_t j = 0; j < n; j++)
			share += shared[j] >= shared[i] ? stacks[j].share : 0;
		if (share >= SITE_SHARE * total)
			best = max_of(best, shared[i]);
	}
	return best;
}

static bool is_library(const char *file) {
	static const char *const folders[] = { "/lib/python3", "/lib64/python3" };
	bool library = !strncmp(file, "<frozen ", 8);

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		library = library || strstr(file, folders[i]);
	return library && !strstr(file, "/site-packages/") && !strstr(file, "/dist-packages/");
}

enum site_choice { SITE_APPLICATION, SITE_PYTHON, SITE_ANY };

static bool is_chosen(const struct detect_frame *frame, enum site_choice choice) {
	if (choice == SITE_ANY)
		return frame->lang != PYSPYD_KERNEL;
	return frame->lang == PYSPYD_PYTHON && (choice == SITE_PYTHON || !is_library(frame->file));
}

static size_t add_site(struct strbuf *sb, const struct detect_stack *stack, size_t depth, enum site_choice choice) {
	size_t added = 0;

	while (depth-- && added < SITE_FRAMES) {
		const struct detect_frame *frame = frame_at(stack, depth);

		if (!is_chosen(frame, choice))
			continue;
		strbuf_adds(sb, *frame->qualname ? frame->qualname : frame->function);
		strbuf_adds(sb, " ");
		fingerprint_text(sb, file_identity(frame->file));
		strbuf_adds(sb, "\n");
		added++;
	}
	return added;
}

void fingerprint_site(struct strbuf *sb, const struct detect_stack *stacks, size_t n) {
	size_t depth;

	if (!n)
		return;
	depth = common_depth(stacks, min_of(n, (size_t)DETECT_STACKS_MAX));
	for (enum site_choice choice = SITE_APPLICATION; choice <= SITE_ANY; choice++)
		if (add_site(sb, stacks, depth, choice))
			return;
}

/* The numbers. */

__extension__ typedef unsigned __int128 u128;

static u128 fnv1a(const char *data, size_t n) {
	const u128 prime = (u128)1 << 88 | 0x13b;
	u128 hash = (u128)0x6c62272e07bb0142ULL << 64 | 0x62b821756295c58dULL;

	for (size_t i = 0; i < n; i++)
		hash = (hash ^ (unsigned char)data[i]) * prime;
	return hash;
}

int fingerprint(
	const char *kind, const struct pyspyd_process *process, const struct strbuf *site, char out[FINGERPRINT_SIZE]) {
	struct strbuf sb = { 0 };
	bool failed;
	u128 hash;

	strbuf_adds(&sb, kind);
	strbuf_adds(&sb, "\n");
	fingerprint_program(&sb, process);
	strbuf_add(&sb, strbuf_str(site), site->len);
	failed = sb.failed || site->failed;
	hash = fnv1a(strbuf_str(&sb), sb.len);
	strbuf_deinit(&sb);
	if (failed)
		return -ENOMEM;
	snprintf(out, FINGERPRINT_SIZE, "%016llx%016llx", (unsigned long long)(hash >> 64), (unsigned long long)hash);
	return 0;
}

int ulid_new(uint64_t real_ns, char out[ULID_SIZE]) {
	static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
	unsigned char random[10];
	u128 value = real_ns / NS_PER_MS;
	ssize_t n;

	do
		n = getrandom(random, sizeof(random), 0);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(random))
		return n < 0 ? -errno : -EIO;
	for (size_t i = 0; i < sizeof(random); i++)
		value = value << 8 | random[i];
	for (int i = ULID_SIZE - 2; i >= 0; i--, value >>= 5)
		out[i] = digits[value & 31];
	out[ULID_SIZE - 1] = '\0';
	return 0;
}
