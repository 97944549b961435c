/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_VALUES_H
#define PYSPYD_PIPELINE_VALUES_H

#include "engine/pipeline/watched.h"

/* The named objects of a watch (options->vars): read once an interval, and told. */

struct values;

/* `options` must live as long. Return: 0, with NULL where none is asked for; PYSPYD_E_USAGE; -ENOMEM. */
int values_new(const struct pyspyd_watch_options *options, struct values **ret_values, struct err *err);
void values_free(struct values *values);

/* Reads all of them in each process that has not ended. Return: 0; what the callback returned; -ENOMEM. */
int values_interval(const struct values *values, struct watched *const *watched, size_t n);

#endif
