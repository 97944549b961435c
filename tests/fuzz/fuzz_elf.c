/* SPDX-License-Identifier: MIT */
/* One ELF file, whole, and the place of it among a few mappings. */
#include "engine/elf/elf_image.h"

#include <string.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask_bias(const struct elf_image *img) {
	static char path[] = "/x";
	struct proc_map items[] = {
		{ .start = 0x10000, .end = 0x14000, .inode = 7, .path = path },
		{ .start = 0x400000, .end = 0x401000, .inode = 7, .exec = true, .path = path },
		{ .start = 0x401000, .end = 0x500000, .offset = 0x1000, .inode = 7, .path = path },
	};
	proc_map_vec maps = { .items = items, .n = ARRAY_SIZE(items) };
	uint64_t bias;

	elf_image_bias(img, &maps, &items[1], &bias);
}

static void ask(struct elf_image *img) {
	struct elf_load loads[4];
	uint64_t vaddr, len;
	uint8_t bytes[64];
	size_t n;

	elf_image_machine(img);
	elf_image_section(img, ".PyRuntime", &vaddr, &len);
	elf_image_symbol(img, "_PyRuntime", &vaddr, &len);
	if (!elf_image_build_id(img, bytes, sizeof(bytes), &n) && n > sizeof(bytes))
		abort();
	elf_image_writable_loads(img, loads, ARRAY_SIZE(loads), &n);
	for (size_t i = 0; i < n; i++)
		elf_image_read_vaddr(img, loads[i].vaddr, bytes, sizeof(bytes));
	ask_bias(img);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	_close_ int fd = memfd_create("elf", MFD_CLOEXEC);
	struct elf_image *img;

	if (fd < 0 || write(fd, data, size) != (ssize_t)size || elf_image_open(fd, &img))
		return 0;
	ask(img);
	elf_image_free(img);
	return 0;
}
