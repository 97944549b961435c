/* SPDX-License-Identifier: MIT */
/* The table of formats. A new one is one file and one line here. */
#include "engine/export/export.h"

#include "engine/base/util.h"
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static const char *const collapsed_suffixes[] = { ".collapsed", ".folded", ".txt", NULL };
static const char *const html_suffixes[] = { ".html", ".htm", NULL };
static const char *const svg_suffixes[] = { ".svg", NULL };
static const char *const gecko_suffixes[] = { ".gecko.json", NULL };
static const char *const chrome_suffixes[] = { ".chrome.json", ".trace.json", NULL };
static const char *const speedscope_suffixes[] = { ".speedscope.json", ".json", NULL };
static const char *const pprof_suffixes[] = { ".pb.gz", ".pprof", NULL };

static const struct exporter exporters[] = {
	{ "chrome", chrome_suffixes, export_chrome, export_chrome_diff },
	{ "collapsed", collapsed_suffixes, export_collapsed, export_collapsed_diff },
	{ "gecko", gecko_suffixes, export_gecko, export_gecko_diff },
	{ "html", html_suffixes, export_html, export_html_diff },
	{ "pprof", pprof_suffixes, export_pprof, NULL },
	{ "speedscope", speedscope_suffixes, export_speedscope, NULL },
	{ "svg", svg_suffixes, export_svg, export_svg_diff },
};

const struct exporter *export_find(const char *name) {
	for (size_t i = 0; name && i < ARRAY_SIZE(exporters); i++)
		if (!strcmp(exporters[i].name, name))
			return &exporters[i];
	return NULL;
}

static bool ends_with(const char *s, const char *suffix) {
	size_t len = strlen(s), suffix_len = strlen(suffix);

	return len >= suffix_len && !strcasecmp(s + len - suffix_len, suffix);
}

/* The longest ending wins, whichever format has it: ".json" may come to end several. */
const struct exporter *export_for_file(const char *file_name) {
	const struct exporter *best = NULL;
	size_t best_len = 0;

	for (size_t i = 0; file_name && i < ARRAY_SIZE(exporters); i++) {
		for (const char *const *suffix = exporters[i].suffixes; *suffix; suffix++) {
			if (strlen(*suffix) <= best_len || !ends_with(file_name, *suffix))
				continue;
			best = &exporters[i];
			best_len = strlen(*suffix);
		}
	}
	return best;
}

int export_write_all(int fd, const void *data, size_t len) {
	const char *at = data;

	while (len) {
		ssize_t n = write(fd, at, len);

		if (n >= 0) {
			at += n;
			len -= (size_t)n;
		} else if (errno == EAGAIN) {
			struct pollfd full = { .fd = fd, .events = POLLOUT };

			if (poll(&full, 1, -1) < 0 && errno != EINTR)
				return -errno;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}
