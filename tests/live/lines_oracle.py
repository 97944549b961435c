# SPDX-License-Identifier: MIT
"""Writes, for every code object of this interpreter's standard library, its line table and the line of every
instruction as the interpreter itself says it (PyCode_Addr2Line; from 3.10 on also co_lines, which must agree).

Runs on Python 3.6 and later, from its standard input: python3 - [--every N] (only every N-th module).

One record: u32 version, i32 first line, u32 length of the table, u32 instructions, the table, then one i32 for each
instruction: the line, 0 where it has none. A version of 0 ends them. Little-endian, to the standard output;
lines_driver.c reads it."""

import array
import ctypes
import os
import struct
import sys
import types
import warnings

SKIP = ("site-packages", "dist-packages", "__pycache__", "lib2to3/tests/data")

addr2line = ctypes.pythonapi.PyCode_Addr2Line
addr2line.argtypes = [ctypes.py_object, ctypes.c_int]
addr2line.restype = ctypes.c_int


def sources(root):
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in SKIP)
        for name in sorted(files):
            if name.endswith(".py"):
                yield os.path.join(folder, name)


def code_objects(code):
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            for inner in code_objects(const):
                yield inner


def expected_lines(code):
    lines = array.array("i", [addr2line(code, at) for at in range(0, len(code.co_code), 2)])
    for i, line in enumerate(lines):
        if line < 0:
            lines[i] = 0
    if hasattr(code, "co_lines"):
        again = array.array("i", bytes(4 * len(lines)))
        for start, end, line in code.co_lines():
            for at in range(start // 2, end // 2):
                again[at] = line or 0
        if again != lines:
            raise SystemExit("co_lines and PyCode_Addr2Line differ: %r" % (code,))
    return lines


def record(code):
    table = code.co_linetable if hasattr(code, "co_linetable") else code.co_lnotab
    lines = expected_lines(code)
    head = struct.pack("<IiII", sys.hexversion, code.co_firstlineno, len(table), len(lines))
    return head + table + lines.tobytes()


def main():
    every = int(sys.argv[2]) if sys.argv[1:2] == ["--every"] else 1
    out = sys.stdout.buffer
    warnings.simplefilter("ignore")
    for number, path in enumerate(sources(os.path.dirname(os.path.abspath(os.__file__)))):
        if number % every:
            continue
        with open(path, "rb") as file:
            source = file.read()
        try:
            module = compile(source, path, "exec")
        except (SyntaxError, ValueError, UnicodeDecodeError, RecursionError):
            continue  # the tests' own broken samples
        for code in code_objects(module):
            out.write(record(code))
    out.write(bytes(16))
    out.flush()


main()
