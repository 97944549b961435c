/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_TESTS_UNIT_CORE_FILE_H
#define PYSPYD_TESTS_UNIT_CORE_FILE_H

#include "engine/base/strbuf.h"
#include "engine/mem/core.h"

/* A core file by hand: a process 4711 with two threads (4711 died of SIGSEGV at 0x10, 4712 is in a futex), a page of a
 * mapped file, a stack and a heap. */

#define CORE_HEAP UINT64_C(0x10000)
#define CORE_LIBRARY UINT64_C(0x7f0000000000) /* header page, then code that was not dumped, then data that was not */
#define CORE_STACK UINT64_C(0x7ff000000000)
#define CORE_PAGE 4096U

struct core_recipe {
	const char *library;        /* path that the process had; NULL: /nowhere/lib.so */
	const uint8_t *header_page; /* its first page; NULL: zeros */
	bool many;                  /* the number of segments is in a section header */
	int signal;                 /* 0: SIGSEGV */
	int code;                   /* si_code; 0: SEGV_MAPERR */
};

/* The whole file; *ret_len bytes, the caller's to free(). */
uint8_t *core_file_new(const struct core_recipe *recipe, size_t *ret_len);

/* A descriptor of a file with these bytes. */
int core_file_fd(const void *bytes, size_t len);

#endif
