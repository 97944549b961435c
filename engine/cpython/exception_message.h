/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_EXCEPTION_MESSAGE_H
#define PYSPYD_CPYTHON_EXCEPTION_MESSAGE_H

#include "engine/base/strbuf.h"
#include "engine/cpython/reader.h"

/* Whether the object is an instance of BaseException or of a class derived from it. Return: 0; PY_E_TYPE where it is
 * not; MEM_E_*; negative errno. */
int exception_check(const struct py_reader *py, raddr object);

/* Appends what str() says of an exception, at most about LIMIT_MESSAGE_CHARS characters. *ret_own_str: its class has a
 * __str__ of its own; then it is what BaseException would say of the same arguments. Return: 0; PY_E_TYPE; MEM_E_*;
 * negative errno; what was appended by then stays. */
int exception_message_read(const struct py_reader *py, raddr exception, struct strbuf *out, bool *ret_own_str);

/* Appends what str() says of an argument of an exception: text as it is, other values as py_value_describe. */
int exception_argument_read(const struct py_reader *py, raddr object, struct strbuf *out);

/* Appends the message that an exception of the arguments in this tuple would have. */
int exception_arguments_read(const struct py_reader *py, raddr tuple, struct strbuf *out);

#endif
