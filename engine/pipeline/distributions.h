/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_DISTRIBUTIONS_H
#define PYSPYD_PIPELINE_DISTRIBUTIONS_H

#include "engine/base/map.h"
#include "engine/base/vec.h"
#include "engine/proc/proc.h"

/* What is installed in a folder of sys.path, by the metadata beside the modules. */

struct distribution {
	char *name, *version;
};

struct distribution_root {
	char *path;
	VEC(struct distribution) items;
	struct map owners; /* of files, by the hash of the path below the root: those that are asked for */
	struct map tops;   /* of top-level names, by their hash */
	bool incomplete;   /* a limit was met */
};

#define DISTRIBUTION_NOBODY (UINT64_MAX - 1)  /* as owner */
#define DISTRIBUTION_SEVERAL (UINT64_MAX - 2) /* likewise */

/* Takes over the path. */
void distribution_root_init(struct distribution_root *root, char *path);
void distribution_root_deinit(struct distribution_root *root);

/* Asks for a file, before distribution_root_read. Return: 0; -ENOMEM. */
int distribution_root_want(struct distribution_root *root, const char *below);

/* Reads *.dist-info and *.egg-info through the process's root. What cannot be read has no distributions. Return: 0;
 * PROC_E_GONE; -ENOMEM. */
int distribution_root_read(const struct proc *proc, struct distribution_root *root);

/* Whose a file is that was asked for: as RECORD says. Return: NULL where none says so. */
const struct distribution *distribution_of_file(const struct distribution_root *root, const char *below);

/* The same by the module's top-level name alone: as top_level.txt says, else the distribution of that name. NULL also
 * where several have it. */
const struct distribution *distribution_of_name(const struct distribution_root *root, const char *name, size_t len);

/* Pure: the beginning of METADATA or PKG-INFO. Return: 0, both the caller's; -EINVAL where one of the two is missing;
 * -ENOMEM. */
int distribution_parse_metadata(const char *text, size_t len, struct distribution *ret);

/* Pure: sets the owner of the wanted files among those that RECORD lists. Return: 0; -ENOMEM. */
int distribution_scan_record(const char *text, size_t len, struct map *owners, uint64_t index);

/* Pure: adds the names of top_level.txt. Return: 0; -ENOMEM. */
int distribution_scan_tops(const char *text, size_t len, struct map *tops, uint64_t index);

#endif
