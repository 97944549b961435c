/* SPDX-License-Identifier: MIT */
/* Installed distributions, as files say it (the packaging specifications, "Recording installed projects"):
 *
 *   site-packages/requests-2.31.0.dist-info/METADATA       Name: requests
 *                                                          Version: 2.31.0
 *                                           RECORD         requests/__init__.py,sha256=…,4924
 *                                           top_level.txt  requests
 *   dist-packages/six-1.16.0.egg-info/PKG-INFO, top_level.txt     or that is a file itself
 *   six-1.16.0.egg/EGG-INFO/PKG-INFO                              an egg is a folder of sys.path
 *
 * Only the first lines of METADATA are looked at. Of RECORD's files only those that somebody wants are kept: a root has
 * some ten thousands, a process a few hundred modules. Everything was written by whoever owns the target. */
#include "engine/pipeline/distributions.h"

#include "engine/base/limits.h"
#include "engine/base/strbuf.h"
#include "engine/pipeline/expect.h"
#include <ctype.h>
#include <string.h>
#include <strings.h>

#define DISTRIBUTIONS_MAX 8192 /* of a root */
#define ENTRIES_MAX 200000     /* of its folder */
#define METADATA_MAX (64U << 10)
#define TOPS_MAX (256U << 10)
#define RECORD_MAX (16U << 20)
#define RECORDS_MAX (256U << 20) /* of a root */
#define VALUE_MAX 256

struct reading {
	const struct proc *proc;
	struct distribution_root *root;
	size_t record_bytes;
};

static uint64_t text_key(const char *text, size_t len) {
	return hash_bytes(text, len, 0) >> 1;
}

void distribution_root_init(struct distribution_root *root, char *path) {
	*root = (struct distribution_root){ .path = path };
}

void distribution_root_deinit(struct distribution_root *root) {
	vec_foreach (item, &root->items) {
		free(item->name);
		free(item->version);
	}
	vec_free(&root->items);
	map_deinit(&root->owners);
	map_deinit(&root->tops);
	free(root->path);
}

int distribution_root_want(struct distribution_root *root, const char *below) {
	return map_put(&root->owners, text_key(below, strlen(below)), DISTRIBUTION_NOBODY);
}

/* Parsing */

/* The next line, without its end. Return: false at the end. */
static bool next_line(const char **at, const char *end, const char **ret_line, size_t *ret_len) {
	const char *newline;
	size_t len;

	if (*at >= end)
		return false;
	newline = memchr(*at, '\n', (size_t)(end - *at));
	len = (size_t)((newline ? newline : end) - *at);
	*ret_line = *at;
	*at = newline ? newline + 1 : end;
	if (len && (*ret_line)[len - 1] == '\r')
		len--;
	*ret_len = len;
	return true;
}

/* Return: the text of the header, where the line is that one and the value is no monster; NULL. */
static char *take_header(const char *line, size_t len, const char *name) {
	size_t n = strlen(name);

	if (len <= n || strncasecmp(line, name, n))
		return NULL;
	for (line += n, len -= n; len && isspace((unsigned char)*line); line++)
		len--;
	while (len && isspace((unsigned char)line[len - 1]))
		len--;
	return len && len <= VALUE_MAX && !memchr(line, '\0', len) ? strndup(line, len) : NULL;
}

int distribution_parse_metadata(const char *text, size_t len, struct distribution *ret) {
	const char *at = text, *end = text + len, *line;
	struct distribution found = { 0 };
	size_t n;

	while ((!found.name || !found.version) && next_line(&at, end, &line, &n) && n) {
		if (!found.name)
			found.name = take_header(line, n, "Name:");
		if (!found.version)
			found.version = take_header(line, n, "Version:");
	}
	if (!found.name || !found.version) {
		free(found.name);
		free(found.version);
		return -EINVAL;
	}
	*ret = found;
	return 0;
}

/* A path with a comma or a quote stands in quotes; a quote in it, which no module's has, is not undone. */
int distribution_scan_record(const char *text, size_t len, struct map *owners, uint64_t index) {
	const char *at = text, *end = text + len, *line;
	size_t n;
	int r = 0;

	while (!r && next_line(&at, end, &line, &n)) {
		bool quoted = n && *line == '"';
		const char *stop;
		uint64_t key, owner;

		line += quoted;
		n -= quoted;
		stop = n ? memchr(line, quoted ? '"' : ',', n) : NULL;
		key = text_key(line, stop ? (size_t)(stop - line) : n);
		if (map_get(owners, key, &owner) && owner == DISTRIBUTION_NOBODY)
			r = map_put(owners, key, index);
	}
	return r;
}

int distribution_scan_tops(const char *text, size_t len, struct map *tops, uint64_t index) {
	const char *at = text, *end = text + len, *line;
	size_t n;
	int r = 0;

	while (!r && next_line(&at, end, &line, &n)) {
		uint64_t key, owner;

		while (n && isspace((unsigned char)line[n - 1]))
			n--;
		if (!n)
			continue;
		key = text_key(line, n);
		r = map_put(tops, key, map_get(tops, key, &owner) && owner != index ? DISTRIBUTION_SEVERAL : index);
	}
	return r;
}

/* Files */

/* At most max bytes of a file below the root. Return: 0; -ENOENT it is not to be had; PROC_E_GONE; -ENOMEM. */
static int read_file(const struct reading *reading, const char *folder, const char *name, size_t max, char **ret_data,
	size_t *ret_len) {
	_cleanup_(strbuf_deinit) struct strbuf path = { 0 }, data = { 0 };
	_close_ int fd = -1;
	char block[16384];
	ssize_t n = 1;
	int r;

	strbuf_addf(&path, "%s/%s%s%s", reading->root->path, folder, name[0] ? "/" : "", name);
	if (path.failed)
		return -ENOMEM;
	r = proc_root_open(reading->proc, strbuf_str(&path), &fd);
	if (r)
		return r == PROC_E_GONE || r == -ENOMEM ? r : -ENOENT;
	while (data.len < max && n > 0) {
		n = read(fd, block, min_of(sizeof(block), max - data.len));
		if (n > 0)
			strbuf_add(&data, block, (size_t)n);
	}
	if (data.failed)
		return -ENOMEM;
	*ret_len = data.len;
	*ret_data = strbuf_take(&data);
	return *ret_data ? 0 : *ret_len ? -ENOMEM : -ENOENT;
}

static int read_metadata(const struct reading *reading, const char *folder, struct distribution *ret) {
	static const char *const names[] = { "METADATA", "PKG-INFO", "" };
	int r = -ENOENT;

	for (size_t i = 0; r == -ENOENT && i < ARRAY_SIZE(names); i++) {
		_free_ char *text = NULL;
		size_t len;

		r = read_file(reading, folder, names[i], METADATA_MAX, &text, &len);
		if (!r)
			r = distribution_parse_metadata(text, len, ret);
	}
	return r;
}

static int read_record(struct reading *reading, const char *folder, uint64_t index) {
	_free_ char *text = NULL;
	size_t len;
	int r;

	if (reading->record_bytes >= RECORDS_MAX) {
		reading->root->incomplete = true;
		return 0;
	}
	r = read_file(reading, folder, "RECORD", RECORD_MAX, &text, &len);
	if (r)
		return r == -ENOENT ? 0 : r;
	reading->record_bytes += len;
	return distribution_scan_record(text, len, &reading->root->owners, index);
}

static int read_tops(const struct reading *reading, const char *folder, uint64_t index) {
	_free_ char *text = NULL;
	size_t len;
	int r = read_file(reading, folder, "top_level.txt", TOPS_MAX, &text, &len);

	if (r)
		return r == -ENOENT ? 0 : r;
	return distribution_scan_tops(text, len, &reading->root->tops, index);
}

static int read_distribution(struct reading *reading, const char *folder) {
	struct distribution item = { 0 };
	uint64_t index = reading->root->items.n;
	int r;

	if (index >= DISTRIBUTIONS_MAX) {
		reading->root->incomplete = true;
		return 0;
	}
	r = read_metadata(reading, folder, &item);
	if (r)
		return r == -ENOENT || r == -EINVAL ? 0 : r;
	r = vec_push(&reading->root->items, item);
	if (r) {
		free(item.name);
		free(item.version);
		return r;
	}
	r = read_record(reading, folder, index);
	return r ? r : read_tops(reading, folder, index);
}

static bool ends_with(const char *s, const char *end) {
	size_t n = strlen(s), m = strlen(end);

	return n > m && !strcmp(s + n - m, end);
}

static bool is_metadata(const char *name) {
	return ends_with(name, ".dist-info") || ends_with(name, ".egg-info") || !strcmp(name, "EGG-INFO");
}

int distribution_root_read(const struct proc *proc, struct distribution_root *root) {
	struct reading reading = { .proc = proc, .root = root };
	_closedir_ DIR *dir = NULL;
	_close_ int fd = -1;
	struct dirent *entry;
	size_t seen = 0;
	int r = proc_root_open_folder(proc, root->path, &fd);

	if (r)
		return r == PROC_E_GONE || r == -ENOMEM ? r : 0;
	dir = fdopendir(fd);
	if (!dir)
		return -errno;
	fd = -1;
	while (!r && (entry = readdir(dir))) {
		if (++seen > ENTRIES_MAX) {
			root->incomplete = true;
			break;
		}
		if (is_metadata(entry->d_name))
			r = read_distribution(&reading, entry->d_name);
	}
	return r;
}

/* Asking */

static const struct distribution *at_index(const struct distribution_root *root, uint64_t index) {
	return index < root->items.n ? &root->items.items[index] : NULL;
}

const struct distribution *distribution_of_file(const struct distribution_root *root, const char *below) {
	uint64_t index;

	return map_get(&root->owners, text_key(below, strlen(below)), &index) ? at_index(root, index) : NULL;
}

const struct distribution *distribution_of_name(const struct distribution_root *root, const char *name, size_t len) {
	_free_ char *copy = NULL;
	const struct distribution *found = NULL;
	uint64_t index;

	if (map_get(&root->tops, text_key(name, len), &index))
		return at_index(root, index);
	copy = strndup(name, len);
	for (size_t i = 0; copy && i < root->items.n; i++) {
		if (!expect_same_name(root->items.items[i].name, copy))
			continue;
		if (found)
			return NULL;
		found = &root->items.items[i];
	}
	return found;
}
