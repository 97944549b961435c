/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROC_ACCESS_H
#define PYSPYD_PROC_ACCESS_H

#include "engine/proc/proc.h"

/* Why the kernel refuses to let us read a process, and what to do about it. */

enum access_layer {
	ACCESS_OK,
	ACCESS_UID,        /* another user's process and no CAP_SYS_PTRACE */
	ACCESS_CAPABILITY, /* the target has capabilities, or is set-uid, that we lack */
	ACCESS_YAMA,       /* kernel.yama.ptrace_scope */
	ACCESS_USERNS,     /* we are privileged only in a user namespace that does not own the target's */
	ACCESS_DUMPABLE,   /* the target made itself undumpable (PR_SET_DUMPABLE, set-uid exec) */
	ACCESS_SECCOMP, /* a seccomp filter of ours forbids process_vm_readv / ptrace (a container runtime's default) */
	ACCESS_LSM,     /* none of the above: a security module */
};

/* Facts in, verdict out: pure, for tests. */
struct access_facts {
	uid_t our_euid;
	uint64_t our_caps;      /* effective */
	bool same_userns;       /* target's user namespace is ours or a descendant's */
	bool in_initial_userns; /* ours is the initial one */
	int our_seccomp;        /* as in /proc/self/status */
	int yama_scope;         /* 0 to 3; -1: no yama */
	bool descendant;        /* the target descends from us */
	uid_t target_uid[3];    /* real, effective, saved */
	uint64_t target_caps;   /* permitted */
	bool target_dumpable; /* guessed from the owner of /proc/PID/stat… (root: not dumpable for a non-root uid) */
	int error;            /* errno of the read that failed: EPERM, EACCES, ENOSYS */
};
enum access_layer access_judge(const struct access_facts *facts);

/* Tries to read one byte of the target and, where that fails, explains: layer, reason and the exact command that
 * permits it in `err`. Return: 0; PYSPYD_E_DENIED; PYSPYD_E_GONE; negative errno. */
int access_check(const struct proc *proc, enum access_layer *ret_layer, struct err *err);

/* Writes the explanation for a layer: one line why, one line how to permit it. */
void access_explain(enum access_layer layer, const struct access_facts *facts, pid_t pid, struct err *err);

#endif
