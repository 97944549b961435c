/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_DEMANGLE_H
#define PYSPYD_NATIVE_DEMANGLE_H

#include <stddef.h>

/* A symbol's name as people write it: C++ without its parameters, Rust without its hash. Any other name, and one that
 * is too long or too deeply nested, is copied as it is. What does not fit is cut. `size` is not 0. */
void native_demangle(const char *symbol, char *buf, size_t size);

#endif
