/* SPDX-License-Identifier: MIT */
/* One core file: opened, its files looked for where there are none, its memory read, its tree of /proc written. The
 * first byte says how much of that, since writing trees is slow. */
#include "engine/mem/core.h"

#include <string.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask(struct core *core, bool with_tree) {
	struct captured *tree;
	struct mem *mem;
	char line[256];
	uint8_t bytes[64];

	if (core_find_files(core, "/proc/self/fdinfo", NULL, NULL) || core_mem_new(core, &mem))
		return;
	for (size_t i = 0; i < core->segments.n && i < 64; i++) {
		(void)!mem_read(mem, core->segments.items[i].start, bytes, sizeof(bytes));
		(void)!mem_read(mem, core->segments.items[i].end - 8, bytes, sizeof(bytes));
	}
	for (size_t i = 0; i < core->mappings.n && i < 64; i++)
		(void)!mem_read(mem, core->mappings.items[i].end - 8, bytes, sizeof(bytes));
	for (size_t i = 0; i < core->threads.n && i < 64; i++)
		core_thread_syscall(&core->threads.items[i], mem, line, sizeof(line));
	if (with_tree && core->threads.n < 64 && !core_tree(core, mem, &tree, NULL))
		captured_free(tree);
	mem_free(mem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct core *core;
	int fd;

	if (!size)
		return 0;
	fd = memfd_create("core", MFD_CLOEXEC);
	if (fd < 0)
		return 0;
	if (write(fd, data + 1, size - 1) != (ssize_t)(size - 1)) {
		close(fd);
		return 0;
	}
	if (core_open_fd(fd, "core", &core, NULL))
		return 0;
	ask(core, data[0] & 1);
	core_free(core);
	return 0;
}
