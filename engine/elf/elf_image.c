/* SPDX-License-Identifier: MIT */
/* Headers, sections, symbols and the build id of one ELF file, and its place in memory.
 *
 * The headers are copied once and checked, and everything later is decided from the copy: the file's owner may rewrite
 * it under our hands, so that a size that was checked must not be read a second time. This is why the file is read with
 * pread on the plain structures of elf.h: libelf sizes its own tables by what it reads itself, and a sparse file can
 * claim 60 million sections.
 *
 * Does not read extended numbering (more than 65,279 sections or 65,534 segments: no linked file has it), compressed
 * sections, or symbol versions. */
#include "engine/elf/elf_image.h"

#include "engine/elf/elf_guess.h"

#include <elf.h>
#include <endian.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_MAX (4ULL << 30)
#define NAMES_MAX (1U << 20)     /* section names */
#define SYMBOLS_MAX (256U << 20) /* bytes of one symbol table, and of its strings */
#define NOTES_MAX (64U << 10)
#define RELOCATIONS_MAX (64U << 20) /* bytes of one section */
#define LOADS_MAX 64                /* segments looked at */
#define BIAS_MAPS_MAX 1024          /* mappings of one file looked at */
#define NOTE_ALIGN_DEFAULT 4        /* p_align 8 means 8, everything else 4 */
#define NATIVE_DATA (__BYTE_ORDER == __LITTLE_ENDIAN ? ELFDATA2LSB : ELFDATA2MSB)

struct symbols {
	bool read;
	Elf64_Sym *items;
	size_t n;
	char *names; /* ends with NUL */
	size_t names_len;
};

struct elf_image {
	int fd;
	uint64_t size;
	Elf64_Ehdr header;
	Elf64_Phdr loads[LOADS_MAX];
	size_t loads_n;
	Elf64_Phdr *segments;
	size_t segments_n;
	Elf64_Shdr *sections;
	size_t sections_n;
	char *section_names; /* ends with NUL */
	size_t section_names_len;
	bool guessed; /* the sections are */
	struct symbols dynamic, full;
};

static int read_at(const struct elf_image *img, uint64_t offset, void *buf, size_t len) {
	uint8_t *out = buf;

	if (offset > img->size || len > img->size - offset)
		return -EIO;
	while (len) {
		ssize_t n = pread(img->fd, out, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		out += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* Reads into new memory, with a NUL behind. Return: 0; -EFBIG above max; as read_at. */
static int read_new(const struct elf_image *img, uint64_t offset, uint64_t len, size_t max, void *ret_data) {
	_free_ char *data = NULL;
	int r;

	if (len > max)
		return -EFBIG;
	if (offset > img->size || len > img->size - offset)
		return -EIO;
	data = malloc((size_t)len + 1);
	if (!data)
		return -ENOMEM;
	r = read_at(img, offset, data, (size_t)len);
	if (r)
		return r;
	data[len] = '\0';
	*(char **)ret_data = take_ptr(data);
	return 0;
}

static int read_header(struct elf_image *img) {
	Elf64_Ehdr *header = &img->header;
	int r = read_at(img, 0, header, sizeof(*header));

	if (r)
		return r == -EIO ? -ENOEXEC : r;
	if (memcmp(header->e_ident, ELFMAG, SELFMAG) || header->e_ident[EI_CLASS] != ELFCLASS64 ||
		header->e_ident[EI_DATA] != NATIVE_DATA || header->e_ident[EI_VERSION] != EV_CURRENT)
		return -ENOEXEC;
	return header->e_type == ET_EXEC || header->e_type == ET_DYN ? 0 : -ENOEXEC;
}

static bool load_is_sane(const Elf64_Phdr *load) {
	uint64_t end;

	return load->p_filesz <= load->p_memsz && !__builtin_add_overflow(load->p_vaddr, load->p_memsz, &end) &&
		!__builtin_add_overflow(load->p_offset, load->p_filesz, &end);
}

static int read_segments(struct elf_image *img) {
	const Elf64_Ehdr *header = &img->header;
	int r;

	if (!header->e_phnum || header->e_phnum == PN_XNUM || header->e_phentsize != sizeof(Elf64_Phdr))
		return -ENOEXEC;
	r = read_new(img, header->e_phoff, header->e_phnum * sizeof(Elf64_Phdr), SIZE_MAX - 1, &img->segments);
	if (r)
		return r == -EIO ? -ENOEXEC : r;
	img->segments_n = header->e_phnum;
	for (size_t i = 0; i < img->segments_n; i++) {
		const Elf64_Phdr *segment = &img->segments[i];

		if (segment->p_type != PT_LOAD)
			continue;
		if (img->loads_n == LOADS_MAX || !load_is_sane(segment))
			return -ENOEXEC;
		img->loads[img->loads_n++] = *segment;
	}
	return img->loads_n ? 0 : -ENOEXEC;
}

/* Return: 0 also where there are none to be had; -ENOMEM and errors of reading. */
static int read_sections(struct elf_image *img) {
	const Elf64_Ehdr *header = &img->header;
	const Elf64_Shdr *names;
	int r;

	if (!header->e_shnum || header->e_shentsize != sizeof(Elf64_Shdr) || header->e_shstrndx >= header->e_shnum)
		return 0;
	r = read_new(img, header->e_shoff, header->e_shnum * sizeof(Elf64_Shdr), SIZE_MAX - 1, &img->sections);
	if (r)
		return r == -EIO ? 0 : r;
	names = &img->sections[header->e_shstrndx];
	r = read_new(img, names->sh_offset, names->sh_size, NAMES_MAX, &img->section_names);
	if (r)
		return r == -EIO || r == -EFBIG ? 0 : r;
	img->section_names_len = (size_t)names->sh_size;
	img->sections_n = header->e_shnum;
	return 0;
}

/* Return: as read_sections. */
static int guess_sections(struct elf_image *img) {
	struct elf_sections guessed;
	int r;

	if (img->sections_n)
		return 0;
	r = elf_sections_guess(img, img->loads, img->loads_n, &guessed);
	if (r)
		return r;
	free(img->sections);
	free(img->section_names);
	img->sections = guessed.items;
	img->sections_n = guessed.n;
	img->section_names = guessed.names;
	img->section_names_len = guessed.names_len;
	img->guessed = true;
	return 0;
}

int elf_image_open(int fd, struct elf_image **ret) {
	struct elf_image *img;
	struct stat st;
	int r;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -ENOEXEC;
	if ((uint64_t)st.st_size > FILE_MAX)
		return -EFBIG;
	img = calloc(1, sizeof(*img));
	if (!img)
		return -ENOMEM;
	img->fd = fd;
	img->size = (uint64_t)st.st_size;
	r = read_header(img);
	if (!r)
		r = read_segments(img);
	if (!r)
		r = read_sections(img);
	if (!r)
		r = guess_sections(img);
	if (r) {
		elf_image_free(img);
		return r;
	}
	*ret = img;
	return 0;
}

static void symbols_deinit(struct symbols *symbols) {
	free(symbols->items);
	free(symbols->names);
	*symbols = (struct symbols){ 0 };
}

void elf_image_free(struct elf_image *img) {
	if (!img)
		return;
	symbols_deinit(&img->dynamic);
	symbols_deinit(&img->full);
	free(img->segments);
	free(img->sections);
	free(img->section_names);
	free(img);
}

uint16_t elf_image_machine(const struct elf_image *img) {
	return img->header.e_machine;
}

int elf_image_section(struct elf_image *img, const char *name, uint64_t *ret_vaddr, uint64_t *ret_size) {
	for (size_t i = 0; i < img->sections_n; i++) {
		const Elf64_Shdr *section = &img->sections[i];

		if (!(section->sh_flags & SHF_ALLOC) || section->sh_name >= img->section_names_len ||
			strcmp(img->section_names + section->sh_name, name))
			continue;
		*ret_vaddr = section->sh_addr;
		*ret_size = section->sh_size;
		return 0;
	}
	return -ENOENT;
}

static const Elf64_Shdr *section_named(const struct elf_image *img, const char *name) {
	for (size_t i = 0; i < img->sections_n; i++) {
		const Elf64_Shdr *section = &img->sections[i];

		if (section->sh_name < img->section_names_len && !strcmp(img->section_names + section->sh_name, name))
			return section;
	}
	return NULL;
}

bool elf_image_is_guessed(const struct elf_image *img) {
	return img->guessed;
}

bool elf_image_has_section(const struct elf_image *img, const char *name) {
	const Elf64_Shdr *section = section_named(img, name);

	return section && section->sh_type != SHT_NOBITS;
}

int elf_image_section_read(
	struct elf_image *img, const char *name, size_t max, void *ret_data, size_t *ret_len, uint64_t *ret_vaddr) {
	const Elf64_Shdr *section = section_named(img, name);
	int r;

	if (!section || section->sh_type == SHT_NOBITS || section->sh_flags & SHF_COMPRESSED)
		return -ENOENT;
	r = read_new(img, section->sh_offset, section->sh_size, max, ret_data);
	if (r)
		return r;
	*ret_len = (size_t)section->sh_size;
	*ret_vaddr = section->sh_addr;
	return 0;
}

int elf_image_segment(const struct elf_image *img, uint32_t type, uint64_t *ret_vaddr, uint64_t *ret_size) {
	for (size_t i = 0; i < img->segments_n; i++)
		if (img->segments[i].p_type == type) {
			*ret_vaddr = img->segments[i].p_vaddr;
			*ret_size = img->segments[i].p_memsz;
			return 0;
		}
	return -ENOENT;
}

int elf_image_code(const struct elf_image *img, uint64_t *ret_start, uint64_t *ret_end) {
	uint64_t start = UINT64_MAX, end = 0;

	for (size_t i = 0; i < img->loads_n; i++) {
		const Elf64_Phdr *load = &img->loads[i];

		if (!(load->p_flags & PF_X))
			continue;
		start = min_of(start, load->p_vaddr);
		end = max_of(end, load->p_vaddr + load->p_memsz);
	}
	if (start >= end)
		return -ENOENT;
	*ret_start = start;
	*ret_end = end;
	return 0;
}

static int load_symbols(struct elf_image *img, const Elf64_Shdr *table, struct symbols *symbols) {
	struct symbols read = { .read = true };
	const Elf64_Shdr *names;
	int r;

	if (table->sh_entsize != sizeof(Elf64_Sym) || table->sh_link >= img->sections_n)
		return -ENOENT;
	names = &img->sections[table->sh_link];
	if (table->sh_type == SHT_NOBITS || names->sh_type != SHT_STRTAB)
		return -ENOENT;
	r = read_new(img, table->sh_offset, table->sh_size, SYMBOLS_MAX, &read.items);
	if (!r)
		r = read_new(img, names->sh_offset, names->sh_size, SYMBOLS_MAX, &read.names);
	if (r) {
		symbols_deinit(&read);
		return r;
	}
	read.n = (size_t)(table->sh_size / sizeof(Elf64_Sym));
	read.names_len = (size_t)names->sh_size;
	*symbols = read;
	return 0;
}

/* Reads the first table of a type. A broken one counts as none. Return: 0; -ENOMEM and errors of reading. */
static int need_symbols(struct elf_image *img, uint32_t type, struct symbols *symbols) {
	if (symbols->read)
		return 0;
	for (size_t i = 0; i < img->sections_n; i++) {
		int r;

		if (img->sections[i].sh_type != type)
			continue;
		r = load_symbols(img, &img->sections[i], symbols);
		if (r && r != -ENOENT && r != -EFBIG && r != -EIO)
			return r;
		break;
	}
	symbols->read = true;
	return 0;
}

static bool symbol_is(const struct symbols *symbols, const Elf64_Sym *symbol, const char *name) {
	unsigned type = ELF64_ST_TYPE(symbol->st_info);

	return symbol->st_name < symbols->names_len && !strcmp(symbols->names + symbol->st_name, name) &&
		symbol->st_shndx != SHN_UNDEF && symbol->st_shndx != SHN_ABS && symbol->st_shndx != SHN_COMMON &&
		type != STT_TLS && type != STT_SECTION && type != STT_FILE;
}

static const Elf64_Sym *find_symbol(const struct symbols *symbols, const char *name) {
	const Elf64_Sym *local = NULL;

	for (size_t i = 0; i < symbols->n; i++) {
		const Elf64_Sym *symbol = &symbols->items[i];

		if (!symbol_is(symbols, symbol, name))
			continue;
		if (ELF64_ST_BIND(symbol->st_info) != STB_LOCAL)
			return symbol;
		if (!local)
			local = symbol;
	}
	return local;
}

int elf_image_symbol(struct elf_image *img, const char *name, uint64_t *ret_vaddr, uint64_t *ret_size) {
	const struct {
		uint32_t type;
		struct symbols *symbols;
	} tables[] = { { SHT_DYNSYM, &img->dynamic }, { SHT_SYMTAB, &img->full } };

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		int r = need_symbols(img, tables[i].type, tables[i].symbols);
		const Elf64_Sym *symbol;

		if (r)
			return r;
		symbol = find_symbol(tables[i].symbols, name);
		if (!symbol)
			continue;
		*ret_vaddr = symbol->st_value;
		*ret_size = symbol->st_size;
		return 0;
	}
	return -ENOENT;
}

/* The section that a symbol is in; NULL: none. */
static const Elf64_Shdr *section_of(const struct elf_image *img, const Elf64_Sym *symbol) {
	if (!img->guessed)
		return symbol->st_shndx < img->sections_n ? &img->sections[symbol->st_shndx] : NULL;
	for (size_t i = 0; i < img->sections_n; i++)
		if (img->sections[i].sh_flags & SHF_EXECINSTR &&
			symbol->st_value - img->sections[i].sh_addr < img->sections[i].sh_size)
			return &img->sections[i];
	return NULL;
}

/* Return: its section; NULL: it is none. */
static const Elf64_Shdr *code_of_symbol(
	const struct elf_image *img, const struct symbols *symbols, const Elf64_Sym *symbol) {
	unsigned type = ELF64_ST_TYPE(symbol->st_info);
	const char *name = symbols->names + symbol->st_name;
	const Elf64_Shdr *section;

	if (symbol->st_name >= symbols->names_len || symbol->st_shndx == SHN_UNDEF || !*name)
		return NULL;
	section = section_of(img, symbol);
	if (!section || type == STT_FUNC || type == STT_GNU_IFUNC)
		return section;
	/* "$x" and the like tell code from data on aarch64 */
	return type == STT_NOTYPE && *name != '$' && section->sh_flags & SHF_EXECINSTR ? section : NULL;
}

int elf_image_each_symbol(struct elf_image *img, bool dynamic, elf_symbol_fn fn, void *userdata) {
	struct symbols *symbols = dynamic ? &img->dynamic : &img->full;
	int r = need_symbols(img, dynamic ? SHT_DYNSYM : SHT_SYMTAB, symbols);

	for (size_t i = 0; !r && i < symbols->n; i++) {
		const Elf64_Sym *symbol = &symbols->items[i];
		const Elf64_Shdr *section = code_of_symbol(img, symbols, symbol);
		struct elf_symbol found = {
			.vaddr = symbol->st_value,
			.size = symbol->st_size,
			.local = ELF64_ST_BIND(symbol->st_info) == STB_LOCAL,
			.weak = ELF64_ST_BIND(symbol->st_info) == STB_WEAK,
			.label = ELF64_ST_TYPE(symbol->st_info) == STT_NOTYPE,
		};

		if (!section)
			continue;
		found.name = symbols->names + symbol->st_name;
		found.limit = section->sh_addr + section->sh_size;
		r = fn(&found, userdata);
	}
	return r;
}

static bool fills_slot(const struct elf_image *img, uint64_t type) {
	return img->header.e_machine == EM_X86_64     ? type == R_X86_64_JUMP_SLOT || type == R_X86_64_GLOB_DAT
		: img->header.e_machine == EM_AARCH64 ? type == R_AARCH64_JUMP_SLOT || type == R_AARCH64_GLOB_DAT
						      : false;
}

static int slots_in(struct elf_image *img, const char *section, bool lazy, elf_slot_fn fn, void *userdata) {
	const struct symbols *symbols = &img->dynamic;
	_free_ Elf64_Rela *items = NULL;
	uint64_t ignored;
	size_t len = 0;
	int r = elf_image_section_read(img, section, RELOCATIONS_MAX, &items, &len, &ignored);

	if (r)
		return r == -ENOENT || r == -EFBIG || r == -EIO ? 0 : r;
	for (size_t i = 0; !r && i < len / sizeof(*items); i++) {
		struct elf_slot slot = { .vaddr = items[i].r_offset, .order = lazy ? (uint32_t)i : UINT32_MAX };
		uint64_t symbol = ELF64_R_SYM(items[i].r_info);

		if (!fills_slot(img, ELF64_R_TYPE(items[i].r_info)) || symbol >= symbols->n ||
			symbols->items[symbol].st_name >= symbols->names_len)
			continue;
		slot.name = symbols->names + symbols->items[symbol].st_name;
		if (*slot.name)
			r = fn(&slot, userdata);
	}
	return r;
}

int elf_image_each_slot(struct elf_image *img, elf_slot_fn fn, void *userdata) {
	int r = need_symbols(img, SHT_DYNSYM, &img->dynamic);

	if (!r)
		r = slots_in(img, ".rela.plt", true, fn, userdata);
	return r ? r : slots_in(img, ".rela.dyn", false, fn, userdata);
}

static size_t align_up(size_t n, size_t align) {
	return (n + align - 1) / align * align;
}

/* Looks for the build id in the bytes of notes. Sizes are below 2^32 and the buffer below NOTES_MAX: nothing wraps. */
static const uint8_t *find_build_id(const uint8_t *notes, size_t len, size_t align, size_t *ret_len) {
	size_t pos = 0;

	while (pos < len && len - pos >= sizeof(Elf64_Nhdr)) {
		size_t name_pos = pos + sizeof(Elf64_Nhdr), desc_pos;
		Elf64_Nhdr note;

		memcpy(&note, notes + pos, sizeof(note));
		desc_pos = align_up(name_pos + note.n_namesz, align);
		if (desc_pos > len || note.n_descsz > len - desc_pos)
			return NULL;
		if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof(ELF_NOTE_GNU) && note.n_descsz &&
			!memcmp(notes + name_pos, ELF_NOTE_GNU, sizeof(ELF_NOTE_GNU))) {
			*ret_len = note.n_descsz;
			return notes + desc_pos;
		}
		pos = align_up(desc_pos + note.n_descsz, align);
	}
	return NULL;
}

static int build_id_in(const struct elf_image *img, uint64_t offset, uint64_t len, uint64_t align, uint8_t *buf,
	size_t cap, size_t *ret_len) {
	_free_ uint8_t *notes = NULL;
	const uint8_t *id;
	size_t id_len;
	int r = read_new(img, offset, len, NOTES_MAX, &notes);

	if (r)
		return r == -ENOMEM ? r : -ENOENT;
	id = find_build_id(notes, (size_t)len, align == 8 ? 8 : NOTE_ALIGN_DEFAULT, &id_len);
	if (!id)
		return -ENOENT;
	if (id_len > cap)
		return -ENOSPC;
	memcpy(buf, id, id_len);
	*ret_len = id_len;
	return 0;
}

int elf_image_build_id(struct elf_image *img, uint8_t *buf, size_t cap, size_t *ret_len) {
	int r = -ENOENT;

	for (size_t i = 0; r == -ENOENT && i < img->segments_n; i++) {
		const Elf64_Phdr *s = &img->segments[i];

		if (s->p_type == PT_NOTE)
			r = build_id_in(img, s->p_offset, s->p_filesz, s->p_align, buf, cap, ret_len);
	}
	for (size_t i = 0; r == -ENOENT && i < img->sections_n; i++) {
		const Elf64_Shdr *s = &img->sections[i];

		if (s->sh_type == SHT_NOTE)
			r = build_id_in(img, s->sh_offset, s->sh_size, s->sh_addralign, buf, cap, ret_len);
	}
	return r;
}

int elf_image_writable_loads(const struct elf_image *img, struct elf_load *loads, size_t cap, size_t *ret_n) {
	size_t n = 0;

	for (size_t i = 0; i < img->loads_n && n < cap; i++) {
		const Elf64_Phdr *load = &img->loads[i];

		if (load->p_flags & PF_W)
			loads[n++] = (struct elf_load){
				.vaddr = load->p_vaddr,
				.memsz = load->p_memsz,
				.filesz = load->p_filesz,
			};
	}
	*ret_n = n;
	return 0;
}

int elf_image_read_vaddr(const struct elf_image *img, uint64_t vaddr, void *buf, size_t len) {
	for (size_t i = 0; i < img->loads_n; i++) {
		const Elf64_Phdr *load = &img->loads[i];
		uint64_t at = vaddr - load->p_vaddr;

		if (vaddr >= load->p_vaddr && at <= load->p_filesz && len <= load->p_filesz - at)
			return read_at(img, load->p_offset + at, buf, len);
	}
	return -EFAULT;
}

/* What elf_image_bias works on. The kernel maps whole pages of the page size of this machine, which is the target's. */
struct place {
	const struct elf_image *img;
	const proc_map_vec *maps;
	const struct proc_map *of;
	uint64_t page_mask;
};

static bool same_file(const struct proc_map *a, const struct proc_map *b) {
	return a->inode == b->inode && a->dev == b->dev && !strcmp(a->path, b->path);
}

static const struct proc_map *map_at(const struct place *place, raddr addr) {
	size_t low = 0, high = place->maps->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (place->maps->items[middle].end <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low < place->maps->n && place->maps->items[low].start <= addr ? &place->maps->items[low] : NULL;
}

enum fit {
	FIT_NONE,     /* nothing there, or another part of the file */
	FIT_REPLACED, /* something else: programs move their code to huge pages */
	FIT_IN_PLACE,
};

/* How the segment's first page lies. What runs has to be executable there, so that a plain copy of the file in memory
 * is not taken for the image; data may have become read-only. */
static enum fit fit_of(const struct place *place, const Elf64_Phdr *load, uint64_t bias) {
	raddr addr = (load->p_vaddr + bias) & place->page_mask;
	const struct proc_map *map = map_at(place, addr);

	if (!map || ((load->p_flags & PF_X) && !map->exec))
		return FIT_NONE;
	if (!same_file(map, place->of))
		return FIT_REPLACED;
	return map->offset + (addr - map->start) == (load->p_offset & place->page_mask) ? FIT_IN_PLACE : FIT_NONE;
}

/* Segments in place, doubled, and one more where `of` is inside of the image; 0 where a segment has no place. */
static unsigned score_of(const struct place *place, uint64_t bias) {
	const struct elf_image *img = place->img;
	unsigned score = 0;
	bool inside = false;

	for (size_t i = 0; i < img->loads_n; i++) {
		const Elf64_Phdr *load = &img->loads[i];
		uint64_t first = load->p_vaddr & place->page_mask;
		enum fit fit = load->p_filesz ? fit_of(place, load, bias) : FIT_REPLACED;

		if (fit == FIT_NONE)
			return 0;
		score += fit == FIT_IN_PLACE ? 2 : 0;
		inside |= place->of->start - bias - first < load->p_vaddr - first + load->p_memsz;
	}
	return score ? score + inside : 0;
}

static bool contains_offset(const struct proc_map *map, uint64_t offset) {
	return offset >= map->offset && offset - map->offset < map->end - map->start;
}

/* Tries each segment whose first page a mapping of the file holds. */
static void look_at_map(const struct place *place, const struct proc_map *map, unsigned *best, uint64_t *bias) {
	for (size_t i = 0; i < place->img->loads_n; i++) {
		const Elf64_Phdr *load = &place->img->loads[i];
		uint64_t offset = load->p_offset & place->page_mask, candidate;
		unsigned score;

		if (!load->p_filesz || !contains_offset(map, offset))
			continue;
		candidate = map->start + (offset - map->offset) - (load->p_vaddr & place->page_mask);
		score = score_of(place, candidate);
		if (score > *best) {
			*best = score;
			*bias = candidate;
		}
	}
}

int elf_image_bias(
	const struct elf_image *img, const proc_map_vec *maps, const struct proc_map *of, uint64_t *ret_bias) {
	struct place place = { .img = img, .maps = maps, .of = of };
	unsigned best = 0, looked_at = 0;
	uint64_t bias = 0;

	place.page_mask = ~((uint64_t)sysconf(_SC_PAGESIZE) - 1);
	for (size_t i = 0; i < maps->n && looked_at < BIAS_MAPS_MAX; i++) {
		if (!same_file(&maps->items[i], of))
			continue;
		looked_at++;
		look_at_map(&place, &maps->items[i], &best, &bias);
	}
	if (!best)
		return -ENOENT;
	*ret_bias = bias;
	return 0;
}
