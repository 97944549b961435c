/* SPDX-License-Identifier: MIT */
/* The files that a dead process had mapped: which they are now.
 *
 * The kernel dumps the first page of each mapped ELF file (bit 4 of coredump_filter, on by default), and linkers put
 * the build id there. A file with the same one is the one that was mapped: its read-only pages are those that are not
 * in the core. Names and times prove nothing, since packages are upgraded under running programs. */
#include "engine/mem/core_internal.h"

#include "engine/elf/elf_image.h"
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define FILES_MAX 8192 /* that are looked at */
#define HEADERS_MAX 64
#define NOTES_BYTES_MAX (16U << 10)
#define DELETED " (deleted)"

struct own_header {
	raddr bias;
	Elf64_Phdr notes[8];
	size_t notes_n;
};

/* Segments of the file whose first byte the process has at `start`. Return: 0; MEM_E_FAULT; -ENOEXEC. */
static int read_own_header(const struct core *core, raddr start, struct own_header *ret) {
	struct own_header own = { 0 };
	bool first = true;
	Elf64_Ehdr header;
	int r = core_read_dumped(core, start, &header, sizeof(header));

	if (r)
		return r;
	if (memcmp(header.e_ident, ELFMAG, SELFMAG) || header.e_ident[EI_CLASS] != ELFCLASS64 ||
		header.e_phentsize != sizeof(Elf64_Phdr))
		return -ENOEXEC;
	for (unsigned i = 0; i < min_of(header.e_phnum, (Elf64_Half)HEADERS_MAX); i++) {
		Elf64_Phdr segment;

		r = core_read_dumped(core, start + header.e_phoff + i * sizeof(segment), &segment, sizeof(segment));
		if (r)
			return r;
		if (segment.p_type == PT_LOAD && first) {
			own.bias = start - (segment.p_vaddr - segment.p_offset);
			first = false;
		}
		if (segment.p_type == PT_NOTE && own.notes_n < ARRAY_SIZE(own.notes))
			own.notes[own.notes_n++] = segment;
	}
	*ret = own;
	return first ? -ENOEXEC : 0;
}

static size_t padded(size_t len, size_t align) {
	return (len + align - 1) / align * align;
}

static bool find_build_id(const uint8_t *notes, size_t len, size_t align, struct core_file *file) {
	while (len >= sizeof(Elf64_Nhdr)) {
		size_t name_end, body, end;
		Elf64_Nhdr note;

		memcpy(&note, notes, sizeof(note));
		if (note.n_namesz > len || note.n_descsz > len)
			return false;
		name_end = sizeof(note) + note.n_namesz;
		body = padded(name_end, align);
		end = body + note.n_descsz;
		if (end > len)
			return false;
		if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && !memcmp(notes + sizeof(note), "GNU", 4) &&
			note.n_descsz && note.n_descsz <= sizeof(file->build_id)) {
			memcpy(file->build_id, notes + body, note.n_descsz);
			file->build_id_len = note.n_descsz;
			return true;
		}
		end = min_of(padded(end, align), len);
		notes += end;
		len -= end;
	}
	return false;
}

/* Return: 0, with or without a build id; MEM_E_FAULT: the core does not have the file's first page; -ENOEXEC: it is no
 * ELF file. */
static int own_build_id(const struct core *core, raddr start, struct core_file *file) {
	uint8_t notes[NOTES_BYTES_MAX];
	struct own_header own;
	int r = read_own_header(core, start, &own);

	if (r)
		return r;
	for (size_t i = 0; i < own.notes_n; i++) {
		const Elf64_Phdr *segment = &own.notes[i];

		if (segment->p_filesz > sizeof(notes) ||
			core_read_dumped(core, own.bias + segment->p_vaddr, notes, segment->p_filesz))
			continue;
		if (find_build_id(notes, segment->p_filesz, segment->p_align == 8 ? 8 : 4, file))
			break;
	}
	return 0;
}

/* What a file is that stands where the process had one. */
static enum core_file_state judge(int fd, const struct core_file *file, int own) {
	uint8_t build_id[CORE_BUILD_ID_MAX];
	struct elf_image *image;
	size_t len = 0;

	if (elf_image_open(fd, &image))
		return own ? CORE_FILE_NONE : CORE_FILE_DIFFERENT;
	if (elf_image_build_id(image, build_id, sizeof(build_id), &len))
		len = 0;
	elf_image_free(image);
	if (own == -ENOEXEC)
		return CORE_FILE_DIFFERENT;
	if (own || (!len && !file->build_id_len))
		return CORE_FILE_UNVERIFIED;
	return len == file->build_id_len && !memcmp(build_id, file->build_id, len) ? CORE_FILE_VERIFIED
										   : CORE_FILE_DIFFERENT;
}

static int take_place(struct core_file *file, int fd, const char *place, bool on_host, int own) {
	enum core_file_state state = judge(fd, file, own);
	struct stat st;

	if (state == CORE_FILE_DIFFERENT || state == CORE_FILE_NONE || fstat(fd, &st)) {
		file->state = state == CORE_FILE_NONE ? state : CORE_FILE_DIFFERENT;
		return 0;
	}
	file->place = strdup(place);
	if (!file->place)
		return -ENOMEM;
	file->state = state;
	file->on_host = on_host;
	file->dev = st.st_dev;
	file->inode = st.st_ino;
	return 0;
}

/* A file of which the kernel says that it was deleted may be there all the same, put back or on an overlay: only its
 * build id can tell. */
static int find_deleted(const struct core *core, struct core_file *file, int own) {
	size_t len = strlen(file->path), suffix = strlen(DELETED);
	_free_ char *path = NULL;
	_close_ int fd = -1;

	if (len <= suffix || strcmp(file->path + len - suffix, DELETED) || !file->build_id_len)
		return 0;
	path = strndup(file->path, len - suffix);
	if (!path)
		return -ENOMEM;
	return proc_open_below(core->root_fd, path, &fd) ? 0 : take_place(file, fd, path, false, own);
}

/* `own`: as own_build_id. */
static int find_file(struct core *core, struct core_file *file, int own) {
	_close_ int fd = -1;

	file->state = own == -ENOEXEC ? CORE_FILE_NONE : CORE_FILE_MISSING;
	if (file->path[0] != '/' || own == -ENOEXEC)
		return 0;
	if (!proc_open_below(core->root_fd, file->path, &fd))
		return take_place(file, fd, file->path, false, own);
	return find_deleted(core, file, own);
}

static int find_all(struct core *core, size_t but) {
	size_t looked = 0;

	vec_foreach (mapping, &core->mappings) {
		struct core_file *file = &core->files.items[mapping->file];
		int r;

		if (mapping->offset || file->state != CORE_FILE_NONE || looked == FILES_MAX)
			continue;
		looked++;
		r = own_build_id(core, mapping->start, file);
		if (r == -ENOMEM)
			return r;
		r = mapping->file == but ? 0 : find_file(core, file, r);
		if (r)
			return r;
	}
	return 0;
}

/* Where the kernel found the program's headers, the program is mapped. */
static size_t find_exe(const struct core *core) {
	const uint64_t types[] = { AT_PHDR, AT_ENTRY };

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		const struct core_mapping *mapping;
		uint64_t addr;

		if (core_auxv(core, types[i], &addr) && (mapping = core_mapping_at(core, addr)))
			return mapping->file;
	}
	return SIZE_MAX;
}

static void write_hex(char *out, const uint8_t *bytes, size_t len) {
	for (size_t i = 0; i < len; i++)
		snprintf(out + 2 * i, 3, "%02x", bytes[i]);
	out[2 * len] = '\0';
}

static int take_exe(struct core *core, const char *exe, struct err *err) {
	char place[PATH_MAX], hex[2 * CORE_BUILD_ID_MAX + 1];
	_close_ int fd = open(exe, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct core_file *file;
	int r;

	if (fd < 0 || !realpath(exe, place))
		return err_set(err, -errno, "%s: %s", exe, strerror(errno));
	if (core->exe == SIZE_MAX)
		return err_set(err, -ESTALE, "%s is of no use: the core does not tell where its executable was", exe);
	file = &core->files.items[core->exe];
	r = take_place(file, fd, place, true, file->build_id_len ? 0 : MEM_E_FAULT);
	if (r || file->place)
		return r;
	write_hex(hex, file->build_id, file->build_id_len);
	return err_set(err, -ESTALE, "%s is not the executable of this core, which is %s with build id %s", exe,
		file->path, file->build_id_len ? hex : "unknown");
}

int core_find_files(struct core *core, const char *root, const char *exe, struct err *err) {
	int r;

	if (!root)
		root = "/";
	core->root = realpath(root, NULL);
	core->root_fd = core->root ? open(core->root, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	if (core->root_fd < 0)
		return err_set(err, -errno, "%s: %s", root, strerror(errno));
	core->exe = find_exe(core);
	r = find_all(core, exe ? core->exe : SIZE_MAX);
	return r || !exe ? r : take_exe(core, exe, err);
}

int core_file_open(const struct core *core, const struct core_file *file, int *ret_fd) {
	_close_ int fd = -1;
	struct stat st;
	int r = 0;

	if (!file->place)
		return -ENOENT;
	if (file->on_host)
		fd = open(file->place, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	else
		r = proc_open_below(core->root_fd, file->place, &fd);
	if (r || fd < 0)
		return r ? r : -errno;
	if (fstat(fd, &st) || st.st_dev != file->dev || st.st_ino != file->inode)
		return -ESTALE;
	*ret_fd = take_fd(&fd);
	return 0;
}
