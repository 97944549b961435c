/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_ELF_ELF_GUESS_H
#define PYSPYD_ELF_ELF_GUESS_H

#include "engine/elf/elf_image.h"
#include <elf.h>

/* Section headers for a file that has none (sstrip, some packers): what the loader goes by tells where those sections
 * lie that matter to us. */

struct elf_sections {
	Elf64_Shdr *items;
	size_t n;
	char *names; /* ends with NUL */
	size_t names_len;
};

/* .dynsym, .dynstr, .rela.dyn, .rela.plt, .eh_frame_hdr, .eh_frame as far as they are there, and a .text for each
 * segment that may run. `img` has its segments already. What is broken is left out. Return: 0, both arrays are the
 * caller's to free; -ENOMEM; errors of reading. */
int elf_sections_guess(
	const struct elf_image *img, const Elf64_Phdr *loads, size_t loads_n, struct elf_sections *ret_sections);

#endif
