/* SPDX-License-Identifier: MIT */
/* The eBPF program's unwinder on aarch64. */
#define PYB_ARM64 1
#define SUITE bpf_unwind_arm64
#include "tests/unit/bpf_unwind_cases.h"
