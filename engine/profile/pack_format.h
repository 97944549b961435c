/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROFILE_PACK_FORMAT_H
#define PYSPYD_PROFILE_PACK_FORMAT_H

#include "engine/base/limits.h"
#include "engine/profile/pack.h"
#include <assert.h>

/* The bytes of a packed profile, for pack.c and unpack.c. "Number": LEB128, least significant bits first, at most ten
 * bytes; "signed": zigzag (0, -1, 1, -2 … as 0, 1, 2, 3 …), then a number.
 *
 *     magic          4 bytes
 *     version        1 byte
 *     checksum       4 bytes, little-endian: CRC-32 of all that follows
 *     kind           number: 0 wall, 1 cpu, 2 gil, 3 off CPU
 *     source         number: index into pack_sources
 *     priority       number: index into pack_priorities
 *     start, length  numbers: ns
 *     period         number: ns
 *     accuracy       numbers, in the order of struct pyspyd_accuracy
 *     the rest       one zstd frame that says its size, of at most PACK_BYTES_MAX; in it:
 *
 *     strings   how many; the length of each; the bytes of all. The first one is number 1; 0 is "".
 *     frames    how many; function, file and module of each (strings); lines (signed); languages
 *     nodes     how many; how far before it its parent stands; its frame. The first one is number 1; 0 is the root.
 *     threads   how many; pid; tid (signed: from that of the row before); name and process name of each (strings)
 *     counts    how many; thread, node (both signed: from those of the row before); samples; ns (signed: from
 *               samples × period). Ascending by thread, then node.
 *
 * Tables stand column by column, and counts by thread, which compresses best: equal things are neighbours. Measured, a
 * minute at 20 Hz: one busy thread, 2,165 stacks: 5.3 kB; a server that started 731 threads, 22,450 samples: 13.9 kB;
 * 11 sleeping threads: 0.3 kB. */

#define PACK_MAGIC "pspF"
#define PACK_MAGIC_LEN 4
#define PACK_VERSION 2
#define PACK_CHECKED 9 /* where that begins what the checksum is of */

#define PACK_ITEMS_MAX (1U << 20)   /* rows of one table */
#define PACK_SAMPLES_MAX UINT32_MAX /* of one count */
#define PACK_THREADS_MAX LIMIT_THREADS
#define PACK_DEPTH_MAX (2 * LIMIT_FRAMES) /* of one stack, with what is not Python */

static_assert(PACK_ITEMS_MAX <= LIMIT_NODES, "a profile has room for one that is packed");

/* How it was sampled, from the most exact to the least; the first means: not known. A sum has the worst of its parts.
 */
extern const char *const pack_sources[5];
extern const char *const pack_priorities[4];

#endif
