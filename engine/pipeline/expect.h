/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_EXPECT_H
#define PYSPYD_PIPELINE_EXPECT_H

#include "engine/base/vec.h"
#include "pyspyd/modules.h"

/* Names and versions of distributions: which were expected, and whether two are the same. All pure. modules_expect is
 * modules.c's. */

#define EXPECT_LINES_MAX 65536

typedef VEC(struct pyspyd_expected) expected_vec;

/* Parses the lines of a file of requirements: "name==version". `file` is what the file is called in messages. Return:
 * 0; PYSPYD_E_USAGE with the line and what is wrong there; -ENOMEM. */
int expect_parse(const char *text, const char *file, expected_vec *ret_expected, struct err *err);
void expect_free(struct pyspyd_expected *expected, size_t n);

/* Whether two names mean the same distribution: case and runs of - _ . do not matter (the packaging specifications,
 * "Names and normalization"). */
bool expect_same_name(const char *a, const char *b);

/* Whether `version` is what "==expected" asks for ("Version specifiers"): 1.0 is 1.0.0, 1.0RC1 is 1.0-rc.1, and a local
 * part ("+cu118") counts only where `expected` has one. */
bool expect_same_version(const char *expected, const char *version);

/* Marks what of the modules is not as options->expect says, which nothing was compared with yet. Return: 0;
 * PYSPYD_E_USAGE; -ENOMEM. */
int modules_expect(struct pyspyd_modules *modules, const struct pyspyd_modules_options *options, struct err *err);

#endif
