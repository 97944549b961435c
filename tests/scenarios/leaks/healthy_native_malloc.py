# SPDX-License-Identifier: MIT
# expect: none
"""A C library that takes memory and gives it back, of many sizes, not in the order in which it took it."""
import ctypes
import time

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
slots = [None] * 400
print("ready", flush=True)
number = 0
while True:
    for _ in range(10):
        number += 1
        slot, size = number * 157 % len(slots), 10000 + number * 7919 % 40000
        if slots[slot]:
            libc.free(slots[slot])
        slots[slot] = libc.malloc(size)
        libc.memset(slots[slot], 1, size)
    time.sleep(0.01)
