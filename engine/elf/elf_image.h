/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_ELF_ELF_IMAGE_H
#define PYSPYD_ELF_ELF_IMAGE_H

#include "engine/base/util.h"
#include "engine/proc/proc.h"
#include <stddef.h>
#include <stdint.h>

/* One ELF file of a target: where its sections and symbols lie, and where the process has them.
 *
 * vaddr is an address as the file has it; raddr = vaddr + bias. The file belongs to the target and may be anything, and
 * may change while it is read: it is only ever read (never mapped), every size is bounded, and what is broken is an
 * error or not found. Errors of all functions besides those named: -EIO where the file ends too early, -ENOMEM, other
 * negative errno of pread. */

struct elf_image;

/* ELF64 in this machine's byte order, executables and shared objects, up to 4 GiB. `fd` stays the caller's and open as
 * long as the image is used; its file position does not matter. Section headers that cannot be read count as none; for
 * a file that has none, those sections that matter here are guessed from its segments (elf_guess.h).
 * Return: 0; -ENOEXEC it is none of these or broken; -EFBIG. */
int elf_image_open(int fd, struct elf_image **ret);
void elf_image_free(struct elf_image *img);

/* EM_X86_64, EM_AARCH64 … */
uint16_t elf_image_machine(const struct elf_image *img);

/* A section that is loaded into memory, by its name (".PyRuntime"). Return: 0; -ENOENT. */
int elf_image_section(struct elf_image *img, const char *name, uint64_t *ret_vaddr, uint64_t *ret_size);

/* The bytes of a section, loaded or not. *ret_data is the caller's to free, with a NUL behind it. Return: 0; -ENOENT
 * there is none, or it is compressed, or the file has no bytes for it; -EFBIG above max. */
int elf_image_section_read(
	struct elf_image *img, const char *name, size_t max, void *ret_data, size_t *ret_len, uint64_t *ret_vaddr);

/* Whether the sections are guessed: those of code are whole segments then. */
bool elf_image_is_guessed(const struct elf_image *img);

/* Whether there is a section of that name, loaded or not. */
bool elf_image_has_section(const struct elf_image *img, const char *name);

/* The first segment of a type (PT_GNU_EH_FRAME …). Return: 0; -ENOENT. */
int elf_image_segment(const struct elf_image *img, uint32_t type, uint64_t *ret_vaddr, uint64_t *ret_size);

/* From the first to behind the last byte that may run. Return: 0; -ENOENT. */
int elf_image_code(const struct elf_image *img, uint64_t *ret_start, uint64_t *ret_end);

/* A defined function or object by its name, in .dynsym first, then in .symtab; a global one goes before local ones of
 * that name. Thread-local symbols have no address and are not found. The tables are read at the first call and kept.
 * Return: 0; -ENOENT. */
int elf_image_symbol(struct elf_image *img, const char *name, uint64_t *ret_vaddr, uint64_t *ret_size);

/* A symbol of code: a function, or a label in assembler. */
struct elf_symbol {
	const char *name; /* the image's */
	uint64_t vaddr, size;
	uint64_t limit; /* the end of its section */
	bool local, weak;
	bool label; /* no function */
};
/* Return: 0 to go on; anything else ends it. */
typedef int (*elf_symbol_fn)(const struct elf_symbol *symbol, void *userdata);

/* Calls `fn` for each defined symbol of code with a name: of .symtab, or (dynamic) of .dynsym. Tables that are missing
 * or broken have none. Return: 0; what `fn` returned; -ENOMEM; errors of reading. */
int elf_image_each_symbol(struct elf_image *img, bool dynamic, elf_symbol_fn fn, void *userdata);

/* A place that the loader fills in with the address of a function or object. */
struct elf_slot {
	const char *name; /* the image's */
	uint64_t vaddr;
	uint32_t order; /* among those that are filled in when they are first called; UINT32_MAX: it is none of them */
};
typedef int (*elf_slot_fn)(const struct elf_slot *slot, void *userdata);

/* Calls `fn` for each one with a name. Return: as elf_image_each_symbol. */
int elf_image_each_slot(struct elf_image *img, elf_slot_fn fn, void *userdata);

/* The GNU build id. Return: 0; -ENOENT; -ENOSPC where it is longer than cap. */
int elf_image_build_id(struct elf_image *img, uint8_t *buf, size_t cap, size_t *ret_len);

/* Where the process has the file: the difference between addresses in memory and in the file, modulo 2^64. `maps` are
 * the process's mappings, ascending as proc_maps_read gives them, `of` is one of the file's. A file may be mapped
 * several times, and partly, and as plain bytes: the bias taken is the one under which most of its segments lie where
 * they belong and none is missing, and among equals the one whose image `of` is in. Return: 0; -ENOENT. */
int elf_image_bias(
	const struct elf_image *img, const proc_map_vec *maps, const struct proc_map *of, uint64_t *ret_bias);

struct elf_load {
	uint64_t vaddr;
	uint64_t memsz;  /* bytes in memory; vaddr + memsz does not wrap */
	uint64_t filesz; /* of these, from the file; the rest starts as zeros */
};

/* The writable segments (data and bss), at most cap of them; *ret_n says how many were stored. Return: 0. */
int elf_image_writable_loads(const struct elf_image *img, struct elf_load *loads, size_t cap, size_t *ret_n);

/* The bytes that the file has for [vaddr, vaddr + len), which lie in one segment: initial values. Return: 0; -EFAULT
 * where the file has none for all of them (bss, or outside). */
int elf_image_read_vaddr(const struct elf_image *img, uint64_t vaddr, void *buf, size_t len);

#endif
