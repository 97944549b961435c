/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_EXPORT_SVG_PAGE_H
#define PYSPYD_EXPORT_SVG_PAGE_H

/* The parts of a flame graph that are the same in every file. */

extern const char svg_style[];  /* CSS */
extern const char svg_script[]; /* JavaScript; holds no "]]>" */

#endif
