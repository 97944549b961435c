# SPDX-License-Identifier: MIT
# expect: self-deadlock
# threads: enter
# needs: ctypes
# certainty: proven
"""A native mutex that is not recursive, locked again by its owner."""
import ctypes

libc = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(64)


def enter(depth):
    if depth == 0:
        print("ready", flush=True)
    libc.pthread_mutex_lock(mutex)
    enter(depth - 1)


enter(1)
