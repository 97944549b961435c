/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_EXPORT_HTML_PAGE_H
#define PYSPYD_EXPORT_HTML_PAGE_H

/* The parts of a profile page that are the same in every file. */

extern const char html_style[];    /* CSS */
extern const char html_controls[]; /* HTML: what the script works with */
extern const char html_script[];   /* JavaScript; holds no "</script" and no "<!--" */

#endif
