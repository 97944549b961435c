/* SPDX-License-Identifier: MIT */
/* /proc/PID/status: "Key:\tvalue" lines, of which a table names those that we use.
 *
 *	Uid:	1000	1000	1000	1000
 *	NSpid:	7187	12
 *	CapEff:	000001ffffffffff
 *
 * The kernel escapes the name in the first line, so that no line is the target's to forge. Keys that an older kernel
 * lacks leave zero; Uid and Gid have to be there. */
#include "engine/proc/files.h"

#include "engine/proc/text.h"
#include <string.h>

struct fields {
	struct proc_status status;
	bool uid, gid, ns_pid;
};

static bool parse_ids(struct text *t, unsigned *ret_real, unsigned *ret_effective) {
	uint64_t real, effective;

	text_blanks(t);
	if (!text_u64(t, &real))
		return false;
	text_blanks(t);
	if (!text_u64(t, &effective) || real > UINT32_MAX || effective > UINT32_MAX)
		return false;
	*ret_real = (unsigned)real;
	*ret_effective = (unsigned)effective;
	return true;
}

static bool parse_uid(struct text *t, struct fields *f) {
	f->uid = true;
	return parse_ids(t, &f->status.uid, &f->status.euid);
}

static bool parse_gid(struct text *t, struct fields *f) {
	unsigned effective;

	f->gid = true;
	return parse_ids(t, &f->status.gid, &effective);
}

static bool parse_tracer(struct text *t, struct fields *f) {
	return text_int(t, &f->status.tracer);
}

static bool parse_seccomp(struct text *t, struct fields *f) {
	return text_int(t, &f->status.seccomp);
}

static bool parse_cap_eff(struct text *t, struct fields *f) {
	return text_hex(t, &f->status.cap_eff);
}

static bool parse_voluntary(struct text *t, struct fields *f) {
	return text_u64(t, &f->status.voluntary_switches);
}

static bool parse_involuntary(struct text *t, struct fields *f) {
	return text_u64(t, &f->status.involuntary_switches);
}

/* One pid for each namespace, ours first. */
static bool parse_ns_pid(struct text *t, struct fields *f) {
	f->status.ns_depth = 0;
	for (; text_int(t, &f->status.ns_pid); text_blanks(t))
		f->status.ns_depth++;
	f->ns_pid = true;
	return f->status.ns_depth > 0;
}

/* Before Linux 4.1 there is no NSpid. */
static bool parse_pid_line(struct text *t, struct fields *f) {
	f->status.ns_depth = 1;
	return f->ns_pid || text_int(t, &f->status.ns_pid);
}

static const struct {
	const char *key;
	bool (*parse)(struct text *t, struct fields *f);
} keys[] = {
	{ "Pid:", parse_pid_line },
	{ "TracerPid:", parse_tracer },
	{ "Uid:", parse_uid },
	{ "Gid:", parse_gid },
	{ "NSpid:", parse_ns_pid },
	{ "CapEff:", parse_cap_eff },
	{ "Seccomp:", parse_seccomp },
	{ "voluntary_ctxt_switches:", parse_voluntary },
	{ "nonvoluntary_ctxt_switches:", parse_involuntary },
};

static bool parse_line(struct text line, struct fields *f) {
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		size_t n = strlen(keys[i].key);

		if (text_left(&line) < n || memcmp(line.at, keys[i].key, n))
			continue;
		line.at += n;
		text_blanks(&line);
		return keys[i].parse(&line, f);
	}
	return true;
}

int proc_status_parse(const char *text, size_t len, struct proc_status *ret) {
	struct text t = text_of(text, len), line;
	struct fields f = { 0 };

	while (text_line(&t, &line))
		if (!parse_line(line, &f))
			return -EINVAL;
	if (!f.uid || !f.gid)
		return -EINVAL;
	*ret = f.status;
	return 0;
}

int proc_status_read(const struct proc *proc, struct proc_status *ret) {
	_free_ char *data = NULL;
	size_t len;
	int r = proc_read_file(proc, "status", FILES_STATUS_MAX, &data, &len);

	return r ? r : proc_status_parse(data, len, ret);
}
