/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_OBJECTS_H
#define PYSPYD_CPYTHON_OBJECTS_H

#include "engine/base/strbuf.h"
#include "engine/cpython/reader.h"
#include <stdbool.h>

/* Objects of the target: strings, numbers, dictionaries, attributes. Every function reads the memory anew, follows at
 * most the limits of base/limits.h and expects lies. Return, unless said otherwise: 0; MEM_E_FAULT; MEM_E_GONE;
 * PY_E_TYPE; PY_E_TRUNCATED (what was read so far is there); -EPERM; -ENOMEM. */

/* Appends a str as UTF-8 (not made printable), at most max_chars characters. Lone surrogates become U+FFFD.
 * A longer one is cut and gives PY_E_TRUNCATED. */
int py_text_read(const struct py_reader *py, raddr object, size_t max_chars, struct strbuf *out);

/* Copies a bytes object; *ret_data is the caller's to free. Longer than max_bytes: PY_E_TRUNCATED and nothing returned.
 */
int py_bytes_read(const struct py_reader *py, raddr object, size_t max_bytes, uint8_t **ret_data, size_t *ret_len);

/* An int that fits; PY_E_TRUNCATED for a larger one. */
int py_long_read(const struct py_reader *py, raddr object, int64_t *ret);

/* The type's name as tp_name says ("dict", "collections.OrderedDict"). */
int py_type_name(const struct py_reader *py, raddr object, char *buf, size_t size);

/* Appends the type's name as people write it: "module.QualName" for classes made by Python code, tp_name for the
 * others. */
int py_type_describe(const struct py_reader *py, raddr object, struct strbuf *out);

/* The same of a type itself. */
int py_type_describe_at(const struct py_reader *py, raddr type, struct strbuf *out);

/* Whether the object's count of references is one that a live object may have. Where one was freed, and its memory not
 * used again, stands 0, or the allocator's link to the next free block. Free-threaded builds share the count out: true
 * of any. */
bool py_object_is_live(const struct py_reader *py, raddr object);

/* The object's type. */
int py_type_of(const struct py_reader *py, raddr object, raddr *ret_type);

/* Calls `each` for each live entry of a dict (combined, split, with unicode or general keys) until it returns non-zero,
 * which ends the walk and is returned. At most LIMIT_DICT_ENTRIES entries. */
typedef int (*py_dict_each)(void *userdata, raddr key, raddr value);
int py_dict_walk(const struct py_reader *py, raddr dict, py_dict_each each, void *userdata);

/* The value under a string key. Return: 0; PY_E_TYPE where the key is not there; else as above. */
int py_dict_get(const struct py_reader *py, raddr dict, const char *key, raddr *ret_value);

/* An instance attribute of a Python-level object: its __dict__ (also managed, 3.11+) or inline values (3.11+), not its
 * class. Return: 0; PY_E_TYPE where it has none by that name. */
int py_attribute(const struct py_reader *py, raddr object, const char *name, raddr *ret_value);

/* Calls `each` for each of them, as py_dict_walk does. Return: as py_dict_walk; PY_E_TYPE where it has none at all. */
int py_attributes_walk(const struct py_reader *py, raddr object, py_dict_each each, void *userdata);

/* Items of a tuple or list: copies up to max references. *ret_n is the whole length. */
int py_sequence_read(const struct py_reader *py, raddr object, raddr *items, size_t max, size_t *ret_n);

/* Appends a short rendering of a value, without running anything in the target: None, True, ints, floats, 'text' (cut),
 * b'bytes', and containers with their length and first items ("dict of 3", "[1, 2, … 40 items]"); other objects as
 * <module.Type at 0x…>. At most about max_chars characters, depth 2. Never fails for what it cannot read: then "?"
 * stands there. */
void py_value_describe(const struct py_reader *py, raddr object, size_t max_chars, struct strbuf *out);

/* The same with "***" for what a dict has under a key that is likely to name a secret. */
void py_value_describe_masked(const struct py_reader *py, raddr object, size_t max_chars, struct strbuf *out);

#endif
