/* SPDX-License-Identifier: MIT */
/* Configurations that somebody got wrong. Each is read as a file: there are faults or there is a configuration, never
 * both, and a configuration stands everything that is asked of it. */
#include "daemon/config.h"

/* The daemon is no library: its sources are part of this program. */
#include "daemon/config.c"
#include "daemon/config_keys.c"
#include "daemon/config_parse.c"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask(const struct config *config, const uint8_t *data, size_t size) {
	char word[64] = "", *cmdline[] = { word, word, NULL };
	const struct pyspyd_process process = { .cmdline = cmdline, .unit = word, .container = word };

	memcpy(word, data, size < sizeof(word) ? size : sizeof(word) - 1);
	config_rule_for(config, &process, word);
	config_rule_for(config, &(struct pyspyd_process){ 0 }, NULL);
	if (!config->settings || !config->park || !config->otlp.headers || config->rate_hz <= 0 ||
		!config->interval_ns || *config->store_path != '/' || config->syslog.port > 65535)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	int fd = memfd_create("config", MFD_CLOEXEC), r;
	struct config *config = NULL;
	size_t told_n = 0;
	char *told = NULL, file[32];
	FILE *faults = open_memstream(&told, &told_n);

	if (fd < 0 || !faults || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(file, sizeof(file), "/dev/fd/%d", fd);
	r = config_read(file, faults, &config);
	fclose(faults);
	if ((r == 0) != (config != NULL) || (r == 0) != (told_n == 0))
		abort();
	if (config)
		ask(config, data, size);
	config_free(config);
	free(told);
	close(fd);
	return 0;
}
