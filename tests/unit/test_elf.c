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

static int count_symbol(const struct elf_symbol *symbol, void *userdata) {
	*(size_t *)userdata += strlen(symbol->name) > 0;
	return 0;
}

static int count_slot(const struct elf_slot *slot, void *userdata) {
	*(size_t *)userdata += strlen(slot->name) > 0;
	return 0;
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
	elf_image_each_symbol(img, true, count_symbol, &n);
	elf_image_each_slot(img, count_slot, &n);
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

/* What is known of a file's code, as one number; and how much that is. */
struct account {
	uint64_t sum;
	size_t symbols, slots;
};

static uint64_t sum_of(uint64_t sum, const char *name, uint64_t vaddr, uint64_t size) {
	for (; *name; name++)
		sum = sum * 31 + (unsigned char)*name;
	return (sum * 31 + vaddr) * 31 + size;
}

static int add_symbol(const struct elf_symbol *symbol, void *userdata) {
	struct account *account = userdata;

	if (symbol->label)
		return 0;
	account->sum = sum_of(account->sum, symbol->name, symbol->vaddr, symbol->size);
	account->symbols++;
	cr_assert(symbol->limit >= symbol->vaddr + symbol->size);
	return 0;
}

static int add_slot(const struct elf_slot *slot, void *userdata) {
	struct account *account = userdata;

	account->sum = sum_of(account->sum, slot->name, slot->vaddr, slot->order);
	account->slots++;
	return 0;
}

static struct account account_of(struct elf_image *img) {
	struct account account = { 0 };

	cr_assert_eq(elf_image_each_symbol(img, true, add_symbol, &account), 0);
	cr_assert_eq(elf_image_each_slot(img, add_slot, &account), 0);
	return account;
}

static void same_section(struct elf_image *a, struct elf_image *b, const char *name) {
	uint64_t at, other;
	size_t len, other_len;
	uint8_t *data, *other_data;

	if (elf_image_section_read(a, name, SIZE_MAX - 1, &data, &len, &at))
		return;
	cr_assert_eq(elf_image_section_read(b, name, SIZE_MAX - 1, &other_data, &other_len, &other), 0, "%s", name);
	cr_expect_eq(at, other, "%s", name);
	/* The end mark of .eh_frame is its section's, not the table's. */
	cr_expect(other_len == len || other_len + 4 == len, "%s: %zu, not %zu", name, other_len, len);
	cr_expect(!memcmp(data, other_data, min_of(len, other_len)), "%s", name);
	free(data);
	free(other_data);
}

Test(elf, without_section_headers) {
	static const char *const sections[] = { ".dynsym", ".dynstr", ".rela.dyn", ".rela.plt", ".eh_frame_hdr",
		".eh_frame" };
	size_t len;
	_free_ uint8_t *bytes = read_library(&len);
	Elf64_Ehdr header;
	struct account with, without;
	struct elf_image *img, *bare;
	int fd = memory_file(bytes, len), bare_fd = memory_file(bytes, len);

	memcpy(&header, bytes, sizeof(header));
	header.e_shoff = 0;
	header.e_shnum = header.e_shstrndx = 0;
	cr_assert_eq(pwrite(bare_fd, &header, sizeof(header), 0), (ssize_t)sizeof(header));
	cr_assert_eq(elf_image_open(fd, &img), 0);
	cr_assert_eq(elf_image_open(bare_fd, &bare), 0);
	cr_expect_not(elf_image_is_guessed(img));
	cr_expect(elf_image_is_guessed(bare));
	with = account_of(img);
	without = account_of(bare);
	cr_expect_gt(with.symbols + with.slots, 10);
	cr_expect_eq(with.symbols, without.symbols);
	cr_expect_eq(with.slots, without.slots);
	cr_expect_eq(with.sum, without.sum);
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++)
		same_section(img, bare, sections[i]);
	elf_image_free(img);
	elf_image_free(bare);
	close(fd);
	close(bare_fd);
}

/* Bends what the guesses are made of. */
Test(elf, bent_copies_without_section_headers) {
	size_t len;
	_free_ uint8_t *bytes = read_library(&len);
	uint64_t state = 20261121, dynamic, size, places[2];
	struct elf_image *img;
	Elf64_Ehdr header;
	int fd = memory_file(bytes, len);

	cr_assert_eq(elf_image_open(fd, &img), 0);
	cr_assert_eq(elf_image_segment(img, PT_DYNAMIC, &dynamic, &size), 0);
	cr_assert_eq(elf_image_segment(img, PT_GNU_EH_FRAME, &places[1], &(uint64_t){ 0 }), 0);
	/* Where these lie in the file is told by the bytes. */
	for (places[0] = 0; places[0] + 64 < len; places[0] += 8) {
		uint8_t want[64];

		cr_assert_eq(elf_image_read_vaddr(img, dynamic, want, sizeof(want)), 0);
		if (!memcmp(bytes + places[0], want, sizeof(want)))
			break;
	}
	elf_image_free(img);
	memcpy(&header, bytes, sizeof(header));
	header.e_shoff = 0;
	header.e_shnum = header.e_shstrndx = 0;
	cr_assert_eq(pwrite(fd, &header, sizeof(header), 0), (ssize_t)sizeof(header));
	for (int i = 0; i < 500; i++) {
		off_t at =
			(off_t)(i % 2 ? places[0] + next_random(&state) % 512 : places[1] + next_random(&state) % 16);
		uint64_t value = next_random(&state) >> (next_random(&state) % 64);

		if ((size_t)at + sizeof(value) > len)
			continue;
		cr_assert_eq(pwrite(fd, &value, sizeof(value), at), (ssize_t)sizeof(value));
		ask_everything(fd);
		cr_assert_eq(pwrite(fd, bytes + at, sizeof(value), at), (ssize_t)sizeof(value));
	}
	close(fd);
}
