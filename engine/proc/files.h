/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROC_FILES_H
#define PYSPYD_PROC_FILES_H

#include "engine/proc/proc.h"

/* Reading the small files and folders that /proc is made of. Private to engine/proc. Errors are negative errno as the
 * kernel gave them; proc_condition turns them into those of proc.h. */

#define FILES_STAT_SIZE 2048 /* above the longest stat line: 52 numbers of 20 digits and a name of 64 */
#define FILES_STATUS_MAX (64U << 10)

/* The file as it is, at most size - 1 bytes, NUL-terminated. Return: 0; negative errno. */
int files_read_small(int dir_fd, const char *name, char *buf, size_t size, size_t *ret_len);

/* The file as it is, at most max bytes, NUL-terminated, the caller's to free. Return: 0; negative errno. */
int files_read(int dir_fd, const char *name, size_t max, char **ret_data, size_t *ret_len);

/* A symbolic link's target, at most PATH_MAX bytes, the caller's to free. Return: 0; negative errno. */
int files_read_link(int dir_fd, const char *name, char **ret_target);

/* The entries of a folder whose names are numbers, ascending. Return: 0; negative errno. */
int files_list_numbers(int dir_fd, const char *name, pid_vec *ret_numbers);

/* What a failure with -errno `r` on file `name` of the process means: PROC_E_GONE where the process, or the thread that
 * the name speaks of, has ended, else r. */
int proc_condition(const struct proc *proc, const char *name, int r);

#endif
