/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROC_KALLSYMS_H
#define PYSPYD_PROC_KALLSYMS_H

#include <stddef.h>
#include <stdint.h>

/* Names of the kernel's functions (/proc/kallsyms). */
struct kallsyms;

/* Return: 0; -EACCES: the kernel hides its addresses from us (CAP_SYSLOG, kernel.kptr_restrict); -ENOMEM; negative
 * errno. */
int kallsyms_read(struct kallsyms **ret_symbols);
void kallsyms_free(struct kallsyms *symbols);

/* Pure: the same of a text. */
int kallsyms_parse(const char *text, size_t len, struct kallsyms **ret_symbols);

/* Return: the name of the function that the address lies in, good until kallsyms_free; NULL. */
const char *kallsyms_name(const struct kallsyms *symbols, uint64_t address);

#endif
