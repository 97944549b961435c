# SPDX-License-Identifier: MIT
# expect: self-deadlock|deadlock|hang
# threads: read_all
# option: --hang-after 3
"""Reads a pipe to its end, whose write end is open only in the reader itself."""
import os


def read_all(fd):
    print("ready", flush=True)
    return os.read(fd, 4096)


reader, writer = os.pipe()
read_all(reader)
