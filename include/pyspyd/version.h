/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_VERSION_H
#define PYSPYD_VERSION_H

#define PYSPYD_VERSION "0.1.0"

#endif
