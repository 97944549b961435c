/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
#ifndef PYSPYD_BPF_KERNEL_H
#define PYSPYD_BPF_KERNEL_H

/* The kernel's types as far as the programs look into them. The loader finds each member in the running kernel's own
 * description (CO-RE), whatever its place there; what a kernel may lack is asked for with bpf_core_field_exists. */

#include <linux/types.h>

#define CORE __attribute__((preserve_access_index))

struct ns_common {
	unsigned int inum;
} CORE;

struct pid_namespace {
	struct ns_common ns;
} CORE;

struct upid {
	int nr;
	struct pid_namespace *ns;
} CORE;

struct pid {
	unsigned int level;
	struct upid numbers[1];
} CORE;

struct task_struct___5_13 {
	long state;
} CORE;

struct task_struct___5_15 {
	unsigned int cpu;
} CORE;

struct thread_info {
	unsigned int cpu;
} CORE;

struct sched_entity {
	unsigned long long sum_exec_runtime;
} CORE;

struct thread_struct {
#if defined(__TARGET_ARCH_x86)
	unsigned long fsbase;
#elif defined(__TARGET_ARCH_arm64)
	struct {
		unsigned long tp_value;
	} uw;
#endif
} CORE;

struct sched_info {
	unsigned long pcount;
	unsigned long long run_delay;
} CORE;

struct signal_struct {
	struct {
		int counter;
	} live;
	unsigned int flags;
	int group_exit_code;
} CORE;

union __sifields {
	struct {
		void *_addr;
	} _sigfault;
} CORE;

struct kernel_siginfo {
	int si_code;
	union __sifields _sifields;
} CORE;

struct inode {
	unsigned long i_ino;
} CORE;

struct file {
	struct inode *f_inode;
} CORE;

struct fdtable {
	struct file **fd;
} CORE;

struct files_struct {
	struct fdtable *fdt;
} CORE;

struct task_struct {
	struct thread_info thread_info; /* the CPU is there since 5.16 */
	int pid, tgid;
	unsigned int flags;
	unsigned int __state; /* before 5.14 a long called state */
	int exit_state, exit_code;
	unsigned long nvcsw, nivcsw;
	unsigned long long start_time, start_boottime; /* the first by CLOCK_MONOTONIC */
	struct task_struct *real_parent, *group_leader;
	struct signal_struct *signal;
	struct pid *thread_pid;
	struct files_struct *files;
	struct sched_entity se;
	struct sched_info sched_info;
	struct thread_struct thread;
} CORE;

/* What a program that is called for each task is given. */
struct bpf_iter_meta {
	struct seq_file *seq;
} CORE;

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} CORE;

/* The registers as the kernel's headers name them. */
struct pt_regs___kernel {
#if defined(__TARGET_ARCH_x86)
	unsigned long di, si, dx, r10, r8, orig_ax;
#elif defined(__TARGET_ARCH_arm64)
	unsigned long long regs[31], orig_x0;
	int syscallno;
#endif
} CORE;

#if defined(__TARGET_ARCH_x86)
#define CALL_FIELD orig_ax
#define ARG0_FIELD di
#define CALL_NUMBER(regs) ((regs)->orig_ax)
#define ARG0(regs) ((regs)->di)
#define ARG1(regs) ((regs)->si)
#define ARG2(regs) ((regs)->dx)
#define ARG3(regs) ((regs)->r10)
#elif defined(__TARGET_ARCH_arm64)
#define CALL_FIELD syscallno
#define ARG0_FIELD orig_x0
#define CALL_NUMBER(regs) ((unsigned long)(regs)->syscallno)
#define ARG0(regs) ((regs)->orig_x0)
#define ARG1(regs) ((regs)->regs[1])
#define ARG2(regs) ((regs)->regs[2])
#define ARG3(regs) ((regs)->regs[3])
#endif

#endif
