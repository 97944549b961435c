/* SPDX-License-Identifier: MIT */
/* The file and offset behind an address: two processes that wait at the same file and offset wait for each other,
 * whatever addresses they have mapped it to. Shared memory without a name (MAP_ANONYMOUS, SysV) has an inode of its own
 * too. Only the line of maps that holds the address is decoded. */
#include "engine/proc/fds.h"

#include "engine/base/limits.h"
#include "engine/proc/text.h"
#include <errno.h>
#include <string.h>

#define MAPS_MAX_BYTES ((size_t)LIMIT_MAPS * 512)
#define DELETED " (deleted)"

static bool line_holds(struct text line, raddr address) {
	uint64_t start, end;

	return text_hex(&line, &start) && text_char(&line, '-') && text_hex(&line, &end) && address >= start &&
		address < end;
}

static bool find_line(const char *data, size_t len, raddr address, struct text *ret_line) {
	struct text t = text_of(data, len), line;

	while (text_line(&t, &line)) {
		if (!line_holds(line, address))
			continue;
		*ret_line = line;
		return true;
	}
	return false;
}

static void set_path(struct shared_word *word, const char *path) {
	size_t len = strlen(path), suffix = strlen(DELETED);

	if (len > suffix && !strcmp(path + len - suffix, DELETED))
		len -= suffix;
	snprintf(word->path, sizeof(word->path), "%.*s", (int)min_of(len, sizeof(word->path) - 1), path);
}

static int word_of_map(const struct proc_map *map, raddr address, struct shared_word *ret_word) {
	struct shared_word word = { .dev = map->dev, .inode = map->inode };

	if (!map->shared || !map->inode || address < map->start)
		return -ENOENT;
	if (__builtin_add_overflow(map->offset, address - map->start, &word.offset))
		return -EINVAL;
	set_path(&word, map->path);
	*ret_word = word;
	return 0;
}

int proc_shared_word(const struct proc *proc, raddr address, struct shared_word *ret_word) {
	_free_ char *data = NULL;
	proc_map_vec maps;
	struct text line;
	size_t len;
	int r = proc_read_file(proc, "maps", MAPS_MAX_BYTES, &data, &len);

	if (r)
		return r;
	if (!len && !proc_alive(proc))
		return PROC_E_GONE;
	if (!find_line(data, len, address, &line))
		return len == MAPS_MAX_BYTES ? -E2BIG : -ENOENT;
	r = proc_maps_parse(line.at, text_left(&line), &maps);
	if (r)
		return r;
	r = word_of_map(&maps.items[0], address, ret_word);
	proc_maps_free(&maps);
	return r;
}
