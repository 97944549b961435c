/* SPDX-License-Identifier: MIT */
/* /proc/PID/maps.
 *
 *	555aa8044000-555aa8046000 r--p 00000000 fe:00 247134                     /usr/bin/cat
 *
 * All lines or none: a table with more than LIMIT_MAPS lines is refused (-E2BIG), since half a table misleads whoever
 * looks for a mapping. The path is the target's choice; the kernel writes its newlines as \012 and nothing else
 * escaped. A process without memory (a zombie, a kernel thread) has no lines. */
#include "engine/proc/proc.h"

#include "engine/base/limits.h"
#include "engine/proc/text.h"
#include <string.h>
#include <sys/sysmacros.h>

#define MAPS_MAX_BYTES ((size_t)LIMIT_MAPS * 512)

static bool parse_perms(struct text *t, struct proc_map *map) {
	const char *perms = t->at;

	if (text_left(t) < 4)
		return false;
	map->read = perms[0] == 'r';
	map->write = perms[1] == 'w';
	map->exec = perms[2] == 'x';
	map->shared = perms[3] == 's';
	t->at += 4;
	return true;
}

static bool parse_dev(struct text *t, struct proc_map *map) {
	uint64_t major_no, minor_no;

	if (!text_hex(t, &major_no) || !text_char(t, ':') || !text_hex(t, &minor_no) || major_no > UINT32_MAX ||
		minor_no > UINT32_MAX)
		return false;
	map->dev = makedev((unsigned)major_no, (unsigned)minor_no);
	return true;
}

static bool parse_line(struct text t, struct proc_map *map) {
	return text_hex(&t, &map->start) && text_char(&t, '-') && text_hex(&t, &map->end) && map->start <= map->end &&
		text_char(&t, ' ') && parse_perms(&t, map) && text_char(&t, ' ') && text_hex(&t, &map->offset) &&
		text_char(&t, ' ') && parse_dev(&t, map) && text_char(&t, ' ') && text_u64(&t, &map->inode) &&
		(text_blanks(&t), map->path = strndup(t.at, text_left(&t)));
}

static int parse_lines(struct text t, proc_map_vec *maps) {
	struct text line;

	while (text_line(&t, &line)) {
		struct proc_map map = { 0 };
		int r;

		if (maps->n == LIMIT_MAPS)
			return -E2BIG;
		if (!parse_line(line, &map))
			return -EINVAL;
		r = vec_push(maps, map);
		if (r) {
			free(map.path);
			return r;
		}
	}
	return 0;
}

int proc_maps_parse(const char *text, size_t len, proc_map_vec *ret_maps) {
	proc_map_vec maps = { 0 };
	int r = parse_lines(text_of(text, len), &maps);

	if (r) {
		proc_maps_free(&maps);
		return r;
	}
	*ret_maps = maps;
	return 0;
}

int proc_maps_read(const struct proc *proc, proc_map_vec *ret_maps) {
	_free_ char *data = NULL;
	size_t len;
	int r = proc_read_file(proc, "maps", MAPS_MAX_BYTES, &data, &len);

	if (r)
		return r;
	return len == MAPS_MAX_BYTES ? -E2BIG : proc_maps_parse(data, len, ret_maps);
}

void proc_maps_free(proc_map_vec *maps) {
	vec_foreach (map, maps)
		free(map->path);
	vec_free(maps);
}
