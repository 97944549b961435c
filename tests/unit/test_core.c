/* SPDX-License-Identifier: MIT */
/* Core files: what is read of a whole one, of one that is cut, packed, foreign or hostile. */
#include "tests/unit/core_file.h"

#include "engine/elf/elf_image.h"
#include "engine/proc/proc.h"
#include "engine/proc/sleep.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <lz4frame.h>
#include <lzma.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#ifdef __x86_64__ /* the cores are */

static struct core *open_bytes(const void *bytes, size_t len) {
	struct err err = { 0 };
	struct core *core = NULL;
	int r = core_open_fd(core_file_fd(bytes, len), "core", &core, &err);

	cr_assert_eq(r, 0, "%d %s", r, err.text);
	return core;
}

static struct core *open_recipe(const struct core_recipe *recipe) {
	size_t len;
	_free_ uint8_t *bytes = core_file_new(recipe, &len);

	return open_bytes(bytes, len);
}

static int fails(const void *bytes, size_t len, const char *with) {
	struct err err = { 0 };
	struct core *core = NULL;
	int r = core_open_fd(core_file_fd(bytes, len), "core", &core, &err);

	cr_assert_neq(r, 0);
	cr_assert_null(core);
	cr_assert_not_null(strstr(err.text, with), "%s", err.text);
	return r;
}

static void check_whole(const struct core *core) {
	cr_assert(!core_is_truncated(core));
	cr_assert_eq(core->pid, 4711);
	cr_assert_eq(core->uid, 1000);
	cr_assert_eq(core->gid, 100);
	cr_assert_str_eq(core->comm, "a) b");
	cr_assert_eq(core->threads.n, 2);
	cr_assert_eq(core->threads.items[0].tid, 4711);
	cr_assert_eq(core->threads.items[0].signal, SIGSEGV);
	cr_assert_eq(core->threads.items[1].tid, 4712);
	cr_assert_eq(core->signal.number, SIGSEGV);
	cr_assert_eq(core->signal.code, SEGV_MAPERR);
	cr_assert(core->signal.has_address);
	cr_assert_eq(core->signal.address, 0x10);
	cr_assert(!core->signal.has_sender);
	cr_assert_eq(core->files.n, 1);
	cr_assert_eq(core->mappings.n, 3);
	cr_assert_eq(core->mappings.items[2].offset, 2 * CORE_PAGE);
	cr_assert_eq(core->segments.n, 5);
}

Test(core, whole) {
	struct core *core = open_recipe(&(struct core_recipe){ 0 });

	check_whole(core);
	cr_assert(core->by_kernel);
	core_free(core);
}

Test(core, number_of_segments_in_a_section) {
	struct core *core = open_recipe(&(struct core_recipe){ .many = true });

	check_whole(core);
	cr_assert(core->by_kernel);
	core_free(core);
}

Test(core, sent_by_somebody) {
	struct core *core = open_recipe(&(struct core_recipe){ .code = SI_TKILL });

	cr_assert(core->signal.has_sender);
	cr_assert(!core->signal.has_address);
	cr_assert_eq(core->signal.sender, 77);
	cr_assert_eq(core->signal.sender_uid, 5);
	core_free(core);
}

/* A debugger writes section headers; what stopped the process is not what killed it. */
Test(core, of_a_living_process) {
	size_t len;
	_free_ uint8_t *bytes = core_file_new(&(struct core_recipe){ .signal = SIGTRAP }, &len);
	struct core *core = open_bytes(bytes, len);

	cr_assert_eq(core->signal.number, SIGTRAP); /* a breakpoint of its own killed it */
	core_free(core);
	((Elf64_Ehdr *)bytes)->e_shnum = 3;
	core = open_bytes(bytes, len);
	cr_assert(!core->by_kernel);
	cr_assert_eq(core->signal.number, 0);
	core_free(core);
}

Test(core, memory) {
	struct core *core = open_recipe(&(struct core_recipe){ 0 });
	char buf[3 * CORE_PAGE];
	struct mem *mem;

	cr_assert_eq(core_find_files(core, NULL, NULL, NULL), 0);
	cr_assert_eq(core->files.items[0].state, CORE_FILE_NONE); /* its first page is no ELF */
	cr_assert_eq(core_mem_new(core, &mem), 0);
	cr_assert_eq(mem_read(mem, CORE_HEAP + CORE_PAGE - 1, buf, 2), 0);
	cr_assert_eq(buf[0], 'h');
	cr_assert_eq(buf[1], 'H');
	cr_assert_eq(mem_read(mem, CORE_STACK, buf, 2 * CORE_PAGE), 0);
	cr_assert_eq(buf[2 * CORE_PAGE - 1], 'S');
	cr_assert_eq(mem_read(mem, CORE_STACK, buf, 2 * CORE_PAGE + 1), MEM_E_FAULT);
	cr_assert_eq(mem_read(mem, CORE_HEAP - 1, buf, 2), MEM_E_FAULT);
	cr_assert_eq(mem_read(mem, CORE_LIBRARY + CORE_PAGE, buf, 1), MEM_E_FAULT);
	cr_assert_eq(mem_read(mem, UINT64_MAX, buf, 1), MEM_E_FAULT);
	cr_assert_eq(mem_read(mem, UINT64_MAX - 1, buf, 16), MEM_E_FAULT);
	cr_assert_eq(mem_read(mem, 0, buf, 0), 0);
	mem_free(mem);
	core_free(core);
}

Test(core, several_ranges) {
	struct core *core = open_recipe(&(struct core_recipe){ 0 });
	char a[4], b[4], c[4];
	const struct mem_range ranges[] = { { CORE_HEAP, 4, a }, { CORE_STACK, 4, b }, { 0x10, 4, c } };
	struct mem *mem;
	size_t done;

	cr_assert_eq(core_mem_new(core, &mem), 0);
	cr_assert_eq(mem_read_many(mem, ranges, 3, &done), MEM_E_FAULT);
	cr_assert_eq(done, 2);
	cr_assert_eq(b[0], 's');
	mem_free(mem);
	core_free(core);
}

/* A file of ours stands for the library: this very program. */
static void own_page(uint8_t page[CORE_PAGE]) {
	_close_ int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	cr_assert_eq(pread(fd, page, CORE_PAGE, 0), CORE_PAGE);
}

static char *own_path(void) {
	char *path = realpath("/proc/self/exe", NULL);

	cr_assert_not_null(path);
	return path;
}

static uint8_t *build_id_in(uint8_t *page) {
	for (size_t i = 0; i + 16 < CORE_PAGE; i += 4) {
		const uint32_t gnu[] = { 4, 20, NT_GNU_BUILD_ID };

		if (!memcmp(page + i, gnu, sizeof(gnu)) && !memcmp(page + i + 12, "GNU", 4))
			return page + i + 16;
	}
	return NULL;
}

Test(core, undumped_code_of_a_proven_file) {
	uint8_t page[CORE_PAGE], code[CORE_PAGE], expected[CORE_PAGE];
	_free_ char *path = own_path();
	_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct core *core;
	struct mem *mem;

	own_page(page);
	if (!build_id_in(page))
		cr_skip_test("this program has no build id in its first page");
	core = open_recipe(&(struct core_recipe){ .library = path, .header_page = page });
	cr_assert_eq(core_find_files(core, NULL, NULL, NULL), 0);
	cr_assert_eq(core->files.items[0].state, CORE_FILE_VERIFIED);
	cr_assert_eq(core->exe, 0);
	cr_assert_eq(core_mem_new(core, &mem), 0);
	cr_assert_eq(mem_read(mem, CORE_LIBRARY + CORE_PAGE, code, sizeof(code)), 0);
	cr_assert_eq(pread(fd, expected, sizeof(expected), CORE_PAGE), CORE_PAGE);
	cr_assert_arr_eq(code, expected, sizeof(code));
	/* what could be written to, and was not dumped, is not known */
	cr_assert_eq(mem_read(mem, CORE_LIBRARY + 2 * (uint64_t)CORE_PAGE, code, 1), MEM_E_FAULT);
	mem_free(mem);
	core_free(core);
}

Test(core, another_build_id) {
	uint8_t page[CORE_PAGE], byte;
	_free_ char *path = own_path();
	struct err err = { 0 };
	struct core *core;
	struct mem *mem;

	own_page(page);
	if (!build_id_in(page))
		cr_skip_test("this program has no build id in its first page");
	build_id_in(page)[3] ^= 1;
	core = open_recipe(&(struct core_recipe){ .library = path, .header_page = page });
	cr_assert_eq(core_find_files(core, NULL, NULL, NULL), 0);
	cr_assert_eq(core->files.items[0].state, CORE_FILE_DIFFERENT);
	cr_assert_null(core->files.items[0].place);
	cr_assert_eq(core_mem_new(core, &mem), 0);
	cr_assert_eq(mem_read(mem, CORE_LIBRARY + CORE_PAGE, &byte, 1), MEM_E_FAULT);
	mem_free(mem);
	core_free(core);
	core = open_recipe(&(struct core_recipe){ .header_page = page });
	cr_assert_eq(core_find_files(core, NULL, path, &err), -ESTALE);
	cr_assert_not_null(strstr(err.text, "is not the executable of this core"), "%s", err.text);
	core_free(core);
}

Test(core, executable_by_hand) {
	uint8_t page[CORE_PAGE], byte;
	_free_ char *path = own_path();
	struct core *core;
	struct mem *mem;

	own_page(page);
	if (!build_id_in(page))
		cr_skip_test("this program has no build id in its first page");
	core = open_recipe(&(struct core_recipe){ .header_page = page });
	cr_assert_eq(core_find_files(core, NULL, path, NULL), 0);
	cr_assert_eq(core->files.items[0].state, CORE_FILE_VERIFIED);
	cr_assert_eq(core_mem_new(core, &mem), 0);
	cr_assert_eq(mem_read(mem, CORE_LIBRARY + CORE_PAGE, &byte, 1), 0);
	mem_free(mem);
	core_free(core);
}

Test(core, system_call) {
	struct core *core = open_recipe(&(struct core_recipe){ 0 });
	struct proc_sleep sleep;
	struct mem *mem;
	char line[256];

	cr_assert_eq(core_mem_new(core, &mem), 0);
	core_thread_syscall(&core->threads.items[0], mem, line, sizeof(line));
	cr_assert_str_eq(line, "running\n");
	core_thread_syscall(&core->threads.items[1], mem, line, sizeof(line));
	cr_assert_eq(proc_sleep_parse(line, strlen(line), &sleep), 0);
	cr_assert_eq(sleep.call, SLEEP_FUTEX);
	cr_assert_eq(sleep.address, CORE_HEAP + 0x40);
	cr_assert_eq(sleep.pc, CORE_HEAP + 0x32);
	mem_free(mem);
	core_free(core);
}

Test(core, tree) {
	struct core *core = open_recipe(&(struct core_recipe){ .library = "/x\ny (deleted)" });
	struct captured *tree;
	struct proc_identity id;
	struct proc_sleep sleep;
	struct proc_stat stat;
	proc_map_vec maps;
	struct proc proc;
	_free_ char *root = NULL;
	struct mem *mem;
	pid_vec tids;

	cr_assert_eq(core_find_files(core, NULL, NULL, NULL), 0);
	cr_assert_eq(core_mem_new(core, &mem), 0);
	cr_assert_eq(core_tree(core, mem, &tree, NULL), 0);
	root = strdup(captured_root(tree));
	cr_assert_eq(proc_open(root, 4711, &proc), 0);
	cr_assert(proc_alive(&proc));
	cr_assert_eq(proc_threads(&proc, &tids), 0);
	cr_assert_eq(tids.n, 2);
	cr_assert_eq(proc_thread_stat(&proc, 4712, &stat), 0);
	cr_assert_eq(stat.state, 'S');
	cr_assert_eq(proc_thread_stat(&proc, 4711, &stat), 0);
	cr_assert_eq(stat.state, 'R');
	cr_assert_str_eq(stat.comm, "a) b");
	cr_assert_eq(proc_sleep_read(&proc, 4712, &sleep), 0);
	cr_assert_eq(sleep.call, SLEEP_FUTEX);
	cr_assert_eq(proc_maps_read(&proc, &maps), 0);
	cr_assert_eq(maps.n, 5);
	cr_assert_eq(maps.items[0].start, CORE_HEAP);
	cr_assert(maps.items[0].write && !maps.items[0].exec);
	cr_assert_str_eq(maps.items[2].path, "/x\\012y (deleted)");
	cr_assert(maps.items[2].exec && maps.items[2].inode);
	cr_assert_str_eq(maps.items[4].path, "[stack]");
	cr_assert_eq(proc_identity_read(&proc, &id), 0);
	cr_assert_eq(id.uid, 1000);
	cr_assert_str_eq(id.cmdline[0], "python3");
	cr_assert_str_eq(id.cmdline[1], "x.py");
	cr_assert_null(id.cmdline[2]);
	proc_identity_free(&id);
	proc_maps_free(&maps);
	vec_free(&tids);
	proc_close(&proc);
	captured_free(tree);
	cr_assert_neq(access(root, F_OK), 0);
	mem_free(mem);
	core_free(core);
}

static size_t trees_in(const char *folder) {
	DIR *dir = opendir(folder);
	size_t n = 0;

	cr_assert(dir);
	for (const struct dirent *entry; (entry = readdir(dir));)
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n;
}

/* How a process ends that has a tree. */
enum ending { KILLED, SIGNALLED };

static void end_with_tree(enum ending ending) {
	pid_t pid = fork();

	if (!pid) {
		struct core *core = open_recipe(&(struct core_recipe){ 0 });
		struct captured *tree;
		struct mem *mem;

		if (core_find_files(core, NULL, NULL, NULL) || core_mem_new(core, &mem) ||
			core_tree(core, mem, &tree, NULL))
			_exit(1);
		if (ending == SIGNALLED)
			captured_remove_all();
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &(int){ 0 }, 0), pid);
}

Test(core, trees_left_behind) {
	struct core *core = open_recipe(&(struct core_recipe){ 0 });
	struct captured *used, *tree;
	char folder[] = "/tmp/pyspyd-test-XXXXXX", foreign[64], letter[64];
	struct mem *mem;

	cr_assert(mkdtemp(folder));
	setenv("TMPDIR", folder, 1);
	snprintf(foreign, sizeof(foreign), "%s/pyspyd-tree-letter", folder);
	snprintf(letter, sizeof(letter), "%s/pyspyd-tree-letter/mine", folder);
	cr_assert_eq(mkdir(foreign, 0700), 0);
	cr_assert_eq(symlink("/", letter), 0);
	cr_assert_eq(core_find_files(core, NULL, NULL, NULL), 0);
	cr_assert_eq(core_mem_new(core, &mem), 0);
	end_with_tree(SIGNALLED);
	cr_assert_eq(trees_in(folder), 1, "what a handler of signals removes");
	cr_assert_eq(core_tree(core, mem, &used, NULL), 0);
	end_with_tree(KILLED);
	cr_assert_eq(trees_in(folder), 3);
	cr_assert_eq(core_tree(core, mem, &tree, NULL), 0);
	cr_assert_eq(trees_in(folder), 3, "the one that was left is gone");
	cr_assert_eq(access(captured_root(used), F_OK), 0, "the one that is used is not");
	captured_free(tree);
	captured_free(used);
	cr_assert_eq(unlink(letter), 0, "what is somebody's own is not touched");
	cr_assert_eq(rmdir(foreign), 0);
	cr_assert_eq(rmdir(folder), 0);
	mem_free(mem);
	core_free(core);
}

/* Wherever it ends: a clear error, or a part that says so and answers for what is there. */
Test(core, cut_anywhere) {
	size_t len;
	_free_ uint8_t *bytes = core_file_new(&(struct core_recipe){ 0 }, &len);

	for (size_t cut = 0; cut < len; cut += cut < 8192 ? 1 : 511) {
		struct err err = { 0 };
		struct core *core = NULL;
		struct mem *mem;
		char byte;
		int r = core_open_fd(core_file_fd(bytes, cut), "core", &core, &err);

		if (r) {
			cr_assert(r == -ENODATA || r == -ENOEXEC, "%zu: %d", cut, r);
			cr_assert(*err.text);
			continue;
		}
		cr_assert(core_is_truncated(core), "%zu", cut);
		cr_assert_eq(core->bytes, cut);
		cr_assert_eq(core_find_files(core, NULL, NULL, NULL), 0);
		cr_assert_eq(core_mem_new(core, &mem), 0);
		cr_assert_eq(mem_read(mem, CORE_STACK + 2 * CORE_PAGE - 1, &byte, 1), MEM_E_FAULT);
		mem_free(mem);
		core_free(core);
	}
}

Test(core, foreign) {
	size_t len;
	_free_ uint8_t *bytes = core_file_new(&(struct core_recipe){ 0 }, &len);
	Elf64_Ehdr *header = (Elf64_Ehdr *)bytes;

	cr_assert_eq(fails("", 0, "too short"), -ENOEXEC);
	cr_assert_eq(fails("hello, this is no core but a text that is long enough to be looked at closely", 70,
			     "it is not ELF"),
		-ENOEXEC);
	header->e_machine = EM_AARCH64;
	cr_assert_eq(fails(bytes, len, "aarch64"), -ENOEXEC);
	header->e_machine = EM_X86_64;
	header->e_ident[EI_CLASS] = ELFCLASS32;
	cr_assert_eq(fails(bytes, len, "32-bit"), -ENOEXEC);
	header->e_ident[EI_CLASS] = ELFCLASS64;
	header->e_ident[EI_DATA] = ELFDATA2MSB;
	cr_assert_eq(fails(bytes, len, "big-endian"), -ENOEXEC);
	header->e_ident[EI_DATA] = ELFDATA2LSB;
	header->e_type = ET_DYN;
	cr_assert_eq(fails(bytes, len, "a program or a library"), -ENOEXEC);
	header->e_type = ET_CORE;
	header->e_phnum = 0;
	cr_assert_eq(fails(bytes, len, "0 segments"), -ENOEXEC);
}

/* Every byte of the headers and notes, one at a time, set to what hurts most. */
Test(core, hostile_bytes) {
	static const uint8_t values[] = { 0, 0x7f, 0x80, 0xff };
	size_t len;
	_free_ uint8_t *bytes = core_file_new(&(struct core_recipe){ 0 }, &len);

	for (size_t at = 16; at < 2400 && at < len; at++) {
		uint8_t was = bytes[at];

		for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
			struct core *core;
			struct mem *mem;
			char buf[64];

			bytes[at] = values[i];
			if (core_open_fd(core_file_fd(bytes, len), "core", &core, NULL))
				continue;
			cr_assert_eq(core_mem_new(core, &mem), 0);
			(void)!mem_read(mem, CORE_LIBRARY + CORE_PAGE - 8, buf, sizeof(buf));
			(void)!mem_read(mem, CORE_STACK, buf, sizeof(buf));
			mem_free(mem);
			core_free(core);
		}
		bytes[at] = was;
	}
}

typedef size_t (*pack_fn)(uint8_t *out, size_t cap, const uint8_t *in, size_t len);

static size_t pack_zstd(uint8_t *out, size_t cap, const uint8_t *in, size_t len) {
	return ZSTD_compress(out, cap, in, len, 3);
}

static size_t pack_gzip(uint8_t *out, size_t cap, const uint8_t *in, size_t len) {
	z_stream stream = { .next_in = (uint8_t *)(uintptr_t)in,
		.avail_in = (unsigned)len,
		.next_out = out,
		.avail_out = (unsigned)cap };

	cr_assert_eq(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	cr_assert_eq(deflate(&stream, Z_FINISH), Z_STREAM_END);
	deflateEnd(&stream);
	return stream.total_out;
}

static size_t pack_xz(uint8_t *out, size_t cap, const uint8_t *in, size_t len) {
	size_t n = 0;

	cr_assert_eq(lzma_easy_buffer_encode(1, LZMA_CHECK_CRC32, NULL, in, len, out, &n, cap), LZMA_OK);
	return n;
}

static size_t pack_lz4(uint8_t *out, size_t cap, const uint8_t *in, size_t len) {
	const LZ4F_preferences_t preferences = { .frameInfo = { .contentChecksumFlag = LZ4F_contentChecksumEnabled } };

	return LZ4F_compressFrame(out, cap, in, len, &preferences);
}

/* As tools that pack in parts: frame behind frame. */
static size_t pack_lz4_twice(uint8_t *out, size_t cap, const uint8_t *in, size_t len) {
	size_t n = pack_lz4(out, cap, in, len / 2);

	return n + pack_lz4(out + n, cap - n, in + len / 2, len - len / 2);
}

Test(core, packed) {
	static const pack_fn packers[] = { pack_zstd, pack_gzip, pack_xz, pack_lz4, pack_lz4_twice };
	size_t len;
	_free_ uint8_t *bytes = core_file_new(&(struct core_recipe){ 0 }, &len), *packed = malloc(2 * len);

	for (size_t i = 0; i < ARRAY_SIZE(packers); i++) {
		size_t n = packers[i](packed, 2 * len, bytes, len);
		struct core *core = open_bytes(packed, n);

		check_whole(core);
		cr_assert_eq(core->bytes, len);
		core_free(core);
		/* cut: what is before the cut, or an error */
		for (size_t cut = 8; cut < n; cut += 16) {
			if (core_open_fd(core_file_fd(packed, cut), "core", &core, NULL))
				continue;
			cr_assert(core_is_truncated(core) || core->bytes == len);
			core_free(core);
		}
		/* damaged */
		packed[12] ^= 0xff;
		if (!core_open_fd(core_file_fd(packed, n), "core", &core, NULL))
			core_free(core);
	}
}

#endif
