/* SPDX-License-Identifier: MIT */
/* The eBPF program's unwinder on x86-64. */
#define PYB_ARM64 0
#define SUITE bpf_unwind
#include "tests/unit/bpf_unwind_cases.h"
