/* SPDX-License-Identifier: MIT */
/* Numbers and names for people. */
#include "cli/format.h"

#include "cli/cli.h"
#include "pyspyd/text.h"
#include <inttypes.h>
#include <stdio.h>

const char *format_bytes(uint64_t bytes, char *buf, size_t size) {
	static const char units[] = "KMGTPE";
	double value = (double)bytes / 1024;
	size_t unit = 0;

	if (bytes == UINT64_MAX || bytes < 1024)
		return format_count(bytes, buf, size);
	for (; value >= 1023.95 && units[unit + 1]; unit++)
		value /= 1024;
	snprintf(buf, size, "%.1f%c", value, units[unit]);
	return buf;
}

const char *format_count(uint64_t count, char *buf, size_t size) {
	if (count == UINT64_MAX)
		snprintf(buf, size, "-");
	else
		snprintf(buf, size, "%" PRIu64, count);
	return buf;
}

char *format_cmdline(const struct pyspyd_process *process) {
	_free_ char *raw = NULL;
	size_t len;
	FILE *out = open_memstream(&raw, &len);

	if (!out)
		return NULL;
	if (process->cmdline && process->cmdline[0])
		for (char **arg = process->cmdline; *arg; arg++)
			fprintf(out, "%s%s", arg == process->cmdline ? "" : " ", *arg);
	else
		fprintf(out, "[%s]", process->name ? process->name : "?");
	if (fclose(out))
		return NULL;
	return pyspyd_printable(raw);
}
