/* SPDX-License-Identifier: MIT */
/* The test's own executable, cut and bent copies of it, and places in memory made by hand. */
#include "engine/elf/elf_image.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* Symbols to be found in this very file. */
extern const char test_elf_marker[16];
extern char test_elf_zeros[4096];
const char test_elf_marker[16] = "marker of a test";
char test_elf_zeros[4096];
static __thread int test_elf_local __attribute__((used)) = 1;

static struct elf_image *open_self(int *ret_fd) {
	struct elf_image *img;

	*ret_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	cr_assert_eq(elf_image_open(*ret_fd, &img), 0);
	return img;
}

static uint64_t bias_of_self(const struct elf_image *img) {
	const struct proc_map *of = NULL;
	proc_map_vec maps;
	struct proc proc;
	uint64_t bias;

	cr_assert_eq(proc_open("/proc", getpid(), &proc), 0);
	cr_assert_eq(proc_maps_read(&proc, &maps), 0);
	vec_foreach (map, &maps)
		if (map->start <= (uintptr_t)test_elf_marker && (uintptr_t)test_elf_marker < map->end)
			of = map;
	cr_assert_not_null(of);
	cr_assert_eq(elf_image_bias(img, &maps, of, &bias), 0);
	proc_maps_free(&maps);
	proc_close(&proc);
	return bias;
}

Test(elf, finds_symbols_where_they_are) {
	uint64_t vaddr, size, bias;
	char bytes[16];
	int fd;
	struct elf_image *img = open_self(&fd);

	bias = bias_of_self(img);
	cr_assert_eq(elf_image_symbol(img, "test_elf_marker", &vaddr, &size), 0);
	cr_assert_eq(vaddr + bias, (uintptr_t)test_elf_marker);
	cr_assert_geq(size, sizeof(test_elf_marker)); /* a sanitizer adds its red zone */
	cr_assert_eq(elf_image_read_vaddr(img, vaddr, bytes, sizeof(bytes)), 0);
	cr_assert_arr_eq(bytes, test_elf_marker, sizeof(bytes));
	cr_assert_eq(elf_image_symbol(img, "test_elf_zeros", &vaddr, &size), 0);
	cr_assert_eq(vaddr + bias, (uintptr_t)test_elf_zeros);
	cr_assert_eq(elf_image_read_vaddr(img, vaddr + 2048, bytes, sizeof(bytes)), -EFAULT);
	cr_assert_eq(elf_image_symbol(img, "test_elf_local", &vaddr, &size), -ENOENT, "thread-local");
	cr_assert_eq(elf_image_symbol(img, "memfd_create", &vaddr, &size), -ENOENT, "undefined");
	cr_assert_eq(elf_image_symbol(img, "", &vaddr, &size) || vaddr, 1);
	cr_assert_eq(elf_image_read_vaddr(img, UINT64_MAX - 4, bytes, sizeof(bytes)), -EFAULT);
	elf_image_free(img);
	close(fd);
}

Test(elf, finds_sections_loads_and_build_id) {
	uint64_t vaddr, size, data;
	struct elf_load loads[4];
	uint8_t id[64];
	size_t n, len;
	int fd;
	struct elf_image *img = open_self(&fd);

	cr_assert(elf_image_machine(img) == EM_X86_64 || elf_image_machine(img) == EM_AARCH64);
	cr_assert_eq(elf_image_section(img, ".text", &vaddr, &size), 0);
	cr_assert_neq(size, 0);
	cr_assert_eq(elf_image_section(img, ".symtab", &vaddr, &size), -ENOENT, "is not loaded");
	cr_assert_eq(elf_image_section(img, ".data", &data, &size), 0);
	cr_assert_eq(elf_image_writable_loads(img, loads, 4, &n), 0);
	cr_assert_eq(n, 1);
	cr_assert(loads[0].vaddr <= data && data < loads[0].vaddr + loads[0].filesz);
	cr_assert_leq(loads[0].filesz, loads[0].memsz);
	cr_assert_eq(elf_image_writable_loads(img, loads, 0, &n), 0);
	cr_assert_eq(n, 0);
	if (!elf_image_build_id(img, id, sizeof(id), &len)) {
		cr_assert_geq(len, 8);
		cr_assert_eq(elf_image_build_id(img, id, len - 1, &len), -ENOSPC);
	}
	elf_image_free(img);
	close(fd);
}

/* A small file made by hand: header, two segments (text at 0, data at 0x1e00 for vaddr 0x2e00), no sections. */
struct small {
	Elf64_Ehdr header;
	Elf64_Phdr segments[2];
	uint8_t bytes[0x3000];
};

static void small_init(struct small *small) {
	memset(small, 0, sizeof(*small));
	memcpy(small->header.e_ident, ELFMAG, SELFMAG);
	small->header.e_ident[EI_CLASS] = ELFCLASS64;
	small->header.e_ident[EI_DATA] = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB;
	small->header.e_ident[EI_VERSION] = EV_CURRENT;
	small->header.e_type = ET_DYN;
	small->header.e_phoff = offsetof(struct small, segments);
	small->header.e_phentsize = sizeof(Elf64_Phdr);
	small->header.e_phnum = 2;
	small->segments[0] =
		(Elf64_Phdr){ .p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_filesz = 0x1800, .p_memsz = 0x1800 };
	small->segments[1] = (Elf64_Phdr){ .p_type = PT_LOAD,
		.p_flags = PF_R | PF_W,
		.p_offset = 0x1e00,
		.p_vaddr = 0x2e00,
		.p_filesz = 0x400,
		.p_memsz = 0x4000 };
}

static int memory_file(const void *bytes, size_t len) {
	int fd = memfd_create("elf", MFD_CLOEXEC);

	cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
	return fd;
}

static int open_small(const struct small *small, struct elf_image **ret) {
	int fd = memory_file(small, sizeof(*small));
	int r = elf_image_open(fd, ret);

	if (r)
		close(fd);
	return r;
}

static struct proc_map map_of(raddr start, raddr end, uint64_t offset, bool exec) {
	return (struct proc_map){ .start = start,
		.end = end,
		.offset = offset,
		.inode = 7,
		.read = true,
		.exec = exec,
		.path = (char[]){ "/x" } };
}

Test(elf, bias_by_hand) {
	/* a plain copy of the file, the image, and the image once more with its data split by mprotect */
	static char path[] = "/x", other[] = "/y";
	struct proc_map items[] = {
		map_of(0x10000, 0x14000, 0, false),
		map_of(0x50000, 0x52000, 0, true),
		map_of(0x52000, 0x54000, 0x1000, false),
		map_of(0x54000, 0x57000, 0, false),
		map_of(0x90000, 0x92000, 0, true),
		map_of(0x92000, 0x93000, 0x1000, false),
		map_of(0x93000, 0x94000, 0x2000, false),
	};
	proc_map_vec maps = { .items = items, .n = ARRAY_SIZE(items) };
	struct elf_image *img;
	struct small small;
	uint64_t bias;

	if (sysconf(_SC_PAGESIZE) != 4096)
		cr_skip_test("made for pages of 4 KiB");
	for (size_t i = 0; i < ARRAY_SIZE(items); i++)
		items[i].path = path;
	items[3].path = other;
	small_init(&small);
	cr_assert_eq(open_small(&small, &img), 0);
	cr_assert_eq(elf_image_bias(img, &maps, &items[1], &bias), 0);
	cr_assert_eq(bias, 0x50000);
	cr_assert_eq(elf_image_bias(img, &maps, &items[2], &bias), 0);
	cr_assert_eq(bias, 0x50000);
	cr_assert_eq(elf_image_bias(img, &maps, &items[6], &bias), 0);
	cr_assert_eq(bias, 0x90000);
	cr_assert_eq(elf_image_bias(img, &maps, &items[0], &bias), 0);
	cr_assert_eq(bias, 0x50000, "a plain copy is not the image");
	maps.n = 1;
	bias = 42;
	cr_assert_eq(elf_image_bias(img, &maps, &items[1], &bias), -ENOENT);
	cr_assert_eq(bias, 42);
	elf_image_free(img);
	/* linked to a fixed address */
	small.header.e_type = ET_EXEC;
	small.segments[0].p_vaddr = 0x50000;
	small.segments[1].p_vaddr = 0x52e00;
	maps.n = 3;
	cr_assert_eq(open_small(&small, &img), 0);
	cr_assert_eq(elf_image_bias(img, &maps, &items[1], &bias), 0);
	cr_assert_eq(bias, 0);
	elf_image_free(img);
}

Test(elf, refuses_what_it_is_not) {
	struct small small;
	struct elf_image *img = NULL;
	int fd;

	small_init(&small);
	small.header.e_ident[EI_CLASS] = ELFCLASS32;
	cr_assert_eq(open_small(&small, &img), -ENOEXEC);
	small_init(&small);
	small.header.e_ident[EI_DATA] ^= 3;
	cr_assert_eq(open_small(&small, &img), -ENOEXEC);
	small_init(&small);
	small.header.e_type = ET_REL;
	cr_assert_eq(open_small(&small, &img), -ENOEXEC);
	small_init(&small);
	small.header.e_phoff = UINT64_MAX - 8;
	cr_assert_eq(open_small(&small, &img), -ENOEXEC);
	small_init(&small);
	small.segments[1].p_memsz = UINT64_MAX;
	cr_assert_eq(open_small(&small, &img), -ENOEXEC);
	small_init(&small);
	small.segments[1].p_filesz = small.segments[1].p_memsz + 1;
	cr_assert_eq(open_small(&small, &img), -ENOEXEC);
	cr_assert_null(img);
	fd = memory_file(&small, sizeof(small));
	cr_assert_eq(ftruncate(fd, (4LL << 30) + 1), 0);
	cr_assert_eq(elf_image_open(fd, &img), -EFBIG);
	close(fd);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	cr_assert_eq(elf_image_open(fd, &img), -ENOEXEC);
	close(fd);
	cr_assert_eq(elf_image_open(-1, &img), -EBADF);
}

Test(elf, a_file_that_shrinks_is_an_error) {
	uint8_t bytes[16];
	struct elf_image *img;
	struct small small;
	int fd;

	small_init(&small);
	fd = memory_file(&small, sizeof(small));
	cr_assert_eq(elf_image_open(fd, &img), 0);
	cr_assert_eq(elf_image_read_vaddr(img, 0x2e00, bytes, sizeof(bytes)), 0);
	cr_assert_eq(ftruncate(fd, 64), 0);
	cr_assert_eq(elf_image_read_vaddr(img, 0x2e00, bytes, sizeof(bytes)), -EIO);
	elf_image_free(img);
	close(fd);
}

/* Asks everything of whatever the file is: nothing is expected but to come back. */
static void ask_everything(int fd) {
	uint64_t vaddr, size;
	struct elf_load loads[8];
	uint8_t bytes[64];
	struct elf_image *img;
	size_t n;

	if (elf_image_open(fd, &img))
		return;
	elf_image_section(img, ".text", &vaddr, &size);
	elf_image_symbol(img, "test_elf_nothing", &vaddr, &size);
	elf_image_build_id(img, bytes, sizeof(bytes), &n);
	elf_image_writable_loads(img, loads, ARRAY_SIZE(loads), &n);
	for (size_t i = 0; i < n; i++)
		elf_image_read_vaddr(img, loads[i].vaddr, bytes, sizeof(bytes));
	elf_image_free(img);
}

static uint8_t *read_library(size_t *ret_len) {
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *bytes;

	cr_assert_eq(fstat(fd, &st), 0);
	bytes = malloc((size_t)st.st_size);
	cr_assert_eq(read(fd, bytes, (size_t)st.st_size), st.st_size);
	close(fd);
	*ret_len = (size_t)st.st_size;
	return bytes;
}

Test(elf, cut_copies) {
	size_t len;
	_free_ uint8_t *bytes = read_library(&len);
	int fd = memory_file(bytes, len);

	for (size_t cut = len; cut; cut = cut * 15 / 16) {
		cr_assert_eq(ftruncate(fd, (off_t)cut), 0);
		ask_everything(fd);
	}
	close(fd);
}

static uint64_t next_random(uint64_t *state) {
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Bends headers, which decide everything: the first bytes and the section headers at the end. */
Test(elf, bent_copies) {
	size_t len;
	_free_ uint8_t *bytes = read_library(&len);
	uint64_t state = 20260131, sections;
	int fd = memory_file(bytes, len);

	memcpy(&sections, bytes + offsetof(Elf64_Ehdr, e_shoff), sizeof(sections));
	for (int i = 0; i < 2000; i++) {
		off_t at = (off_t)(next_random(&state) % 2 ? next_random(&state) % 1024
							   : sections + next_random(&state) % (len - sections));
		uint64_t value = next_random(&state) >> (next_random(&state) % 64);
		size_t n = 1 + next_random(&state) % sizeof(value);

		if ((size_t)at + n > len)
			continue;
		cr_assert_eq(pwrite(fd, &value, n, at), (ssize_t)n);
		ask_everything(fd);
		cr_assert_eq(pwrite(fd, bytes + at, n, at), (ssize_t)n);
	}
	close(fd);
}
