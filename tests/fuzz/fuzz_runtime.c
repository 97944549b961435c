/* SPDX-License-Identifier: MIT */
/* The scan for interpreters in a hostile process, and attaching to what it finds: the input is the writable memory of
 * the executable, from BASE on. The candidates are tried through py_runtime_attach on a proc tree whose list of
 * mappings says so; files cannot be opened there. */
#include "engine/cpython/find.h"
#include "engine/cpython/runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BASE UINT64_C(0x7f0000000000)
#define SIZE_MAX_BYTES (64U << 10)
#define PID 100

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char root[] = "/tmp/pyspyd-fuzz-XXXXXX";
static struct proc proc = { .dir_fd = -1, .pidfd = -1 };

static void write_file(const char *name, const char *text) {
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%d/%s", root, PID, name);
	file = fopen(path, "w");
	if (!file || fputs(text, file) < 0 || fclose(file))
		abort();
}

static void make_folder(const char *name) {
	char path[128];

	snprintf(path, sizeof(path), "%s/%d%s", root, PID, name);
	if (mkdir(path, 0700))
		abort();
}

static void remove_tree(void) {
	static const char *const names[] = { "/task/100", "/task", "/maps", "/status", "/stat", "" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char path[128];

		snprintf(path, sizeof(path), "%s/%d%s", root, PID, names[i]);
		remove(path);
	}
	remove(root);
}

static void make_tree(void) {
	char maps[256];

	if (!mkdtemp(root))
		abort();
	atexit(remove_tree);
	make_folder("");
	make_folder("/task");
	make_folder("/task/100");
	write_file("stat",
		"100 (python3) S 1 1 1 0 -1 4194304 1 0 0 0 4 1 3 1 20 0 3 0 136519 16961536 3335 1 1 1 0 0 0 0 0 0 2 "
		"0 "
		"0 0 17 5 0 0 0 0 0 1 2 3 4 5 6 7 0\n");
	write_file("status", "Name:\tpython3\nTracerPid:\t0\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nNSpid:\t100\n");
	snprintf(maps, sizeof(maps), "%llx-%llx rw-p 00001000 08:01 77 /usr/bin/python3\n", (unsigned long long)BASE,
		(unsigned long long)BASE + SIZE_MAX_BYTES);
	write_file("maps", maps);
	if (proc_open(root, PID, &proc))
		abort();
}

static void scan(struct mem *mem) {
	py_candidate_vec candidates = { 0 };
	proc_map_vec maps = { 0 };

	if (!proc_maps_read(&proc, &maps) && !py_find(&proc, mem, &maps, PY_FIND_SCAN, &candidates) &&
		candidates.n > 16)
		abort();
	vec_free(&candidates);
	proc_maps_free(&maps);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	static uint8_t image[SIZE_MAX_BYTES];
	const struct mem_segment segment = { BASE, sizeof(image), image };
	struct py_interp_view view;
	struct py_runtime rt;
	struct err err = { 0 };
	struct mem *mem;

	if (proc.dir_fd < 0)
		make_tree();
	memset(image, 0, sizeof(image));
	memcpy(image, data, min_of(size, sizeof(image)));
	if (mem_bytes_new(&segment, 1, &mem))
		return 0;
	scan(mem);
	if (!py_runtime_attach(&proc, mem, &rt, &err)) {
		py_interp_vec interps = { 0 };

		py_runtime_check(&rt);
		if (!py_interps_read(&rt, &interps) && interps.n)
			py_interp_view(&rt, interps.items[0].addr, &view);
		vec_free(&interps);
	}
	mem_free(mem);
	return 0;
}
