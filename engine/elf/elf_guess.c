/* SPDX-License-Identifier: MIT */
/* Sections out of segments: PT_DYNAMIC has the addresses of the dynamic symbols, their names and the relocations,
 * PT_GNU_EH_FRAME leads to .eh_frame. How many symbols there are says a hash table, where .eh_frame ends its own end
 * mark. Relocations without addends, as no 64-bit machine of ours has them, are not looked for. */
#include "engine/elf/elf_guess.h"

#include "engine/base/cursor.h"

#include <dwarf.h>
#include <string.h>

#define DYNAMIC_MAX 1024         /* entries */
#define BUCKETS_MAX (1U << 20)   /* of a hash table */
#define CHAIN_MAX 4096           /* symbols in one bucket */
#define FRAMES_MAX (64ULL << 20) /* bytes of .eh_frame */
#define SECTIONS_MAX 80          /* the named ones, and a segment each */
#define NAMES_ROOM 1024
#define TAGS 48

struct guess {
	const struct elf_image *img;
	const Elf64_Phdr *loads;
	size_t loads_n;
	uint64_t tags[TAGS], gnu_hash;
	struct elf_sections out;
};

/* The segment whose bytes in the file begin at or before an address, and how many are left from there on. */
static const Elf64_Phdr *load_at(const struct guess *g, uint64_t vaddr, uint64_t *ret_left) {
	for (size_t i = 0; i < g->loads_n; i++)
		if (vaddr >= g->loads[i].p_vaddr && vaddr - g->loads[i].p_vaddr < g->loads[i].p_filesz) {
			*ret_left = g->loads[i].p_filesz - (vaddr - g->loads[i].p_vaddr);
			return &g->loads[i];
		}
	return NULL;
}

/* Return: its index; 0: it is not in the file. */
static size_t add(struct guess *g, const char *name, Elf64_Shdr section) {
	size_t len = strlen(name) + 1;
	uint64_t left;
	const Elf64_Phdr *load = load_at(g, section.sh_addr, &left);

	if (!load || !section.sh_size || section.sh_size > left || g->out.n == SECTIONS_MAX ||
		len > NAMES_ROOM - g->out.names_len)
		return 0;
	section.sh_offset = load->p_offset + (section.sh_addr - load->p_vaddr);
	section.sh_flags |= SHF_ALLOC;
	section.sh_name = (Elf64_Word)g->out.names_len;
	memcpy(g->out.names + g->out.names_len, name, len);
	g->out.names_len += len;
	g->out.items[g->out.n] = section;
	return g->out.n++;
}

static bool read_u32(const struct guess *g, uint64_t vaddr, uint32_t *ret) {
	return !elf_image_read_vaddr(g->img, vaddr, ret, sizeof(*ret));
}

static int read_tags(struct guess *g) {
	_free_ Elf64_Dyn *entries = NULL;
	uint64_t vaddr, size;
	size_t n;

	if (elf_image_segment(g->img, PT_DYNAMIC, &vaddr, &size))
		return 0;
	n = min_of((size_t)(size / sizeof(*entries)), (size_t)DYNAMIC_MAX);
	entries = calloc(n + 1, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	if (elf_image_read_vaddr(g->img, vaddr, entries, n * sizeof(*entries)))
		return 0;
	for (size_t i = 0; i < n && entries[i].d_tag != DT_NULL; i++) {
		if (entries[i].d_tag > 0 && entries[i].d_tag < TAGS)
			g->tags[entries[i].d_tag] = entries[i].d_un.d_val;
		if (entries[i].d_tag == DT_GNU_HASH)
			g->gnu_hash = entries[i].d_un.d_val;
	}
	return 0;
}

/* The highest symbol that a bucket begins with. */
static int highest_bucket(const struct guess *g, uint64_t vaddr, uint32_t n, uint32_t *ret_highest) {
	_free_ uint32_t *buckets = NULL;

	if (n > BUCKETS_MAX)
		return 0;
	buckets = calloc((size_t)n + 1, sizeof(*buckets));
	if (!buckets)
		return -ENOMEM;
	if (elf_image_read_vaddr(g->img, vaddr, buckets, (size_t)n * sizeof(*buckets)))
		return 0;
	for (uint32_t i = 0; i < n; i++)
		*ret_highest = max_of(*ret_highest, buckets[i]);
	return 0;
}

/* Counted up to the end of the last bucket's chain. Symbols in front of the table are those that are not defined here.
 */
static int count_by_gnu_hash(const struct guess *g, uint64_t *ret_n) {
	uint64_t buckets, chain;
	uint32_t head[4], last = 0, word; /* buckets, first symbol, words of the filter, shift */
	int r;

	if (elf_image_read_vaddr(g->img, g->gnu_hash, head, sizeof(head)))
		return 0;
	buckets = g->gnu_hash + sizeof(head) + 8ULL * head[2];
	r = highest_bucket(g, buckets, head[0], &last);
	if (r)
		return r;
	if (last < head[1]) {
		*ret_n = head[1];
		return 0;
	}
	chain = buckets + 4ULL * head[0] + 4ULL * (last - head[1]);
	for (unsigned i = 0; i < CHAIN_MAX && read_u32(g, chain + 4ULL * i, &word); i++) {
		*ret_n = (uint64_t)last + i + 1;
		if (word & 1)
			return 0;
	}
	return 0;
}

static int add_symbols(struct guess *g) {
	Elf64_Shdr symbols = { .sh_type = SHT_DYNSYM, .sh_addr = g->tags[DT_SYMTAB], .sh_entsize = sizeof(Elf64_Sym) };
	const Elf64_Shdr strings = {
		.sh_type = SHT_STRTAB, .sh_addr = g->tags[DT_STRTAB], .sh_size = g->tags[DT_STRSZ]
	};
	uint64_t n = 0;
	uint32_t chains;
	int r = 0;

	if (g->tags[DT_HASH] && read_u32(g, g->tags[DT_HASH] + 4, &chains))
		n = chains;
	else if (g->gnu_hash)
		r = count_by_gnu_hash(g, &n);
	if (r || !symbols.sh_addr)
		return r;
	symbols.sh_link = (Elf64_Word)add(g, ".dynstr", strings);
	symbols.sh_size = n * sizeof(Elf64_Sym);
	if (symbols.sh_link)
		add(g, ".dynsym", symbols);
	return 0;
}

static void add_relocations(struct guess *g) {
	Elf64_Shdr section = { .sh_type = SHT_RELA, .sh_entsize = sizeof(Elf64_Rela) };

	section.sh_addr = g->tags[DT_RELA];
	section.sh_size = g->tags[DT_RELASZ];
	add(g, ".rela.dyn", section);
	section.sh_addr = g->tags[DT_PLTREL] == DT_RELA ? g->tags[DT_JMPREL] : 0;
	section.sh_size = g->tags[DT_PLTRELSZ];
	add(g, ".rela.plt", section);
}

/* Return: the bytes of .eh_frame up to its end mark, or to where it makes no sense any more. */
static size_t frames_len(const uint8_t *data, size_t len) {
	size_t at = 0;

	while (len - at >= 8) {
		uint64_t record = peek_u32(data, len, at), head = 4;

		if (!record)
			break;
		if (record == UINT32_MAX) {
			record = peek_u64(data, len, at + 4);
			head = 12;
		}
		if (record > len - at || head > len - at - record)
			break;
		at += (size_t)(head + record);
	}
	return at;
}

/* The header says where .eh_frame begins, as far from itself. */
static int add_frames(struct guess *g) {
	Elf64_Shdr header = { .sh_type = SHT_PROGBITS }, frames = { .sh_type = SHT_PROGBITS };
	_free_ uint8_t *data = NULL;
	uint8_t head[8];
	uint64_t left;

	if (elf_image_segment(g->img, PT_GNU_EH_FRAME, &header.sh_addr, &header.sh_size) ||
		elf_image_read_vaddr(g->img, header.sh_addr, head, sizeof(head)) || head[0] != 1 ||
		head[1] != (DW_EH_PE_pcrel | DW_EH_PE_sdata4))
		return 0;
	frames.sh_addr = header.sh_addr + 4 + (uint64_t)(int64_t)(int32_t)peek_u32(head, sizeof(head), 4);
	add(g, ".eh_frame_hdr", header);
	if (!load_at(g, frames.sh_addr, &left))
		return 0;
	left = min_of(left, (uint64_t)FRAMES_MAX);
	data = malloc((size_t)left);
	if (!data)
		return -ENOMEM;
	if (elf_image_read_vaddr(g->img, frames.sh_addr, data, (size_t)left))
		return 0;
	frames.sh_size = frames_len(data, (size_t)left);
	add(g, ".eh_frame", frames);
	return 0;
}

static void add_code(struct guess *g) {
	for (size_t i = 0; i < g->loads_n; i++) {
		const Elf64_Shdr section = { .sh_type = SHT_PROGBITS,
			.sh_flags = SHF_EXECINSTR,
			.sh_addr = g->loads[i].p_vaddr,
			.sh_size = g->loads[i].p_filesz };

		if (g->loads[i].p_flags & PF_X)
			add(g, ".text", section);
	}
}

int elf_sections_guess(
	const struct elf_image *img, const Elf64_Phdr *loads, size_t loads_n, struct elf_sections *ret_sections) {
	struct guess g = { .img = img, .loads = loads, .loads_n = loads_n };
	int r;

	/* The first one is none, and has the empty name. */
	g.out = (struct elf_sections){ .items = calloc(SECTIONS_MAX, sizeof(*g.out.items)),
		.n = 1,
		.names = calloc(1, NAMES_ROOM + 1),
		.names_len = 1 };
	r = g.out.items && g.out.names ? read_tags(&g) : -ENOMEM;
	if (!r)
		r = add_symbols(&g);
	if (!r)
		r = add_frames(&g);
	if (r) {
		free(g.out.items);
		free(g.out.names);
		return r;
	}
	add_relocations(&g);
	add_code(&g);
	*ret_sections = g.out;
	return 0;
}
