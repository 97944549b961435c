# SPDX-License-Identifier: MIT
# expect: hang
# threads: work
# option: --hang-after 3
"""A lost wake-up, while the workers of a native library rest: those say nothing about it."""
import ctypes
import threading

libc = ctypes.CDLL(None)
semaphore = ctypes.create_string_buffer(64)
libc.sem_init(semaphore, 0, 0)
handle = ctypes.c_ulong()
for _ in range(3):
    libc.pthread_create(ctypes.byref(handle), None, libc.sem_wait, semaphore)

changed = threading.Condition()


def work():
    sum(range(100000))
    with changed:
        print("ready", flush=True)
        changed.wait()


work()
