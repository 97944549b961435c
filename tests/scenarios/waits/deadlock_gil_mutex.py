# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: call_with_gil, come_back
# says: GIL
# needs: gil, ctypes
"""One thread waits for a native mutex and keeps the GIL; the mutex's owner wants the GIL."""
import ctypes
import threading

mutex = ctypes.create_string_buffer(64)
locked = threading.Event()


def come_back():
    libc = ctypes.CDLL(None)
    libc.pthread_mutex_lock(mutex)
    locked.set()
    while True:
        libc.usleep(1000)


def call_with_gil():
    libc = ctypes.PyDLL(None)
    print("ready", flush=True)
    libc.pthread_mutex_lock(mutex)


threading.Thread(target=come_back, name="owner").start()
locked.wait()
call_with_gil()
