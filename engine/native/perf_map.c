/* SPDX-License-Identifier: MIT */
/* Perf map files. Anybody may write into /tmp, so whose the file is decides; its text is bounded and may be anything.
 */
#include "engine/native/perf_map.h"

#include <string.h>
#include <sys/stat.h>

#define NAME_MAX_CHARS 1024
#define HEX_DIGITS_MAX 16

static bool take_hex(const char **at, const char *end, uint64_t *ret) {
	const char *p = *at;
	uint64_t value = 0;

	for (; p < end && p - *at <= HEX_DIGITS_MAX; p++) {
		unsigned digit = *p >= '0' && *p <= '9' ? (unsigned)(*p - '0')
			: *p >= 'a' && *p <= 'f'        ? (unsigned)(*p - 'a' + 10)
			: *p >= 'A' && *p <= 'F'        ? (unsigned)(*p - 'A' + 10)
							: 16;

		if (digit == 16)
			break;
		value = value << 4 | digit;
	}
	if (p == *at || p - *at > HEX_DIGITS_MAX || p == end || *p != ' ')
		return false;
	*at = p + 1;
	*ret = value;
	return true;
}

static int parse_line(const char *line, const char *end, uint32_t order, struct symbol_table *table) {
	char name[NAME_MAX_CHARS];
	struct elf_symbol symbol = { .name = name };
	size_t len, before = table->rows.n;
	int r;

	if (end - line > 2 && line[0] == '0' && line[1] == 'x')
		line += 2;
	if (!take_hex(&line, end, &symbol.vaddr) || !take_hex(&line, end, &symbol.size) || line == end ||
		!symbol.size || symbol.size > UINT64_MAX - symbol.vaddr)
		return 0;
	len = min_of((size_t)(end - line), sizeof(name) - 1);
	memcpy(name, line, len);
	name[len] = '\0';
	r = symbol_table_add(table, &symbol);
	if (!r && table->rows.n > before)
		table->rows.items[before].rank = UINT32_MAX - order;
	return r;
}

int perf_map_parse(const char *text, size_t len, struct symbol_table *table) {
	const char *end = text + len, *line = text;
	uint32_t order = 0;
	int r = 0;

	table->start = 0;
	table->end = UINT64_MAX;
	while (!r && line < end) {
		const char *stop = memchr(line, '\n', (size_t)(end - line));

		if (!stop) /* a line that is being written */
			break;
		r = parse_line(line, stop, order++, table);
		line = stop + 1;
	}
	symbol_table_sort(table);
	return r;
}

static int read_text(int fd, size_t len, char **ret_text) {
	_free_ char *text = malloc(len + 1);
	size_t n = 0;

	if (!text)
		return -ENOMEM;
	while (n < len) {
		ssize_t got = pread(fd, text + n, len - n, (off_t)n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		n += (size_t)got;
	}
	*ret_text = take_ptr(text);
	return 0;
}

int perf_map_read(const struct proc *proc, struct symbol_table *table) {
	struct proc_status status;
	_free_ char *text = NULL;
	_close_ int fd = -1;
	struct stat st;
	char path[64];
	int r = proc_status_read(proc, &status);

	if (r)
		return r;
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)status.ns_pid);
	r = proc_root_open(proc, path, &fd);
	if (r)
		return r;
	if (fstat(fd, &st))
		return -errno;
	if (st.st_uid != status.uid && st.st_uid != status.euid && st.st_uid != 0)
		return -EACCES;
	if (st.st_size > PERF_MAP_MAX)
		return -EFBIG;
	r = read_text(fd, (size_t)st.st_size, &text);
	return r ? r : perf_map_parse(text, (size_t)st.st_size, table);
}
