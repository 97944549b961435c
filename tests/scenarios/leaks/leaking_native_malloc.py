# SPDX-License-Identifier: MIT
# expect: memory-leak
# certainty: inferred
# says: native
"""A C library's memory that is never freed: no Python object grows."""
import ctypes
import time

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


def decode_frame():
    libc.memset(libc.malloc(6000), 1, 6000)


print("ready", flush=True)
for _ in range(14000):
    for _ in range(5):
        decode_frame()
    time.sleep(0.01)
time.sleep(3600)
