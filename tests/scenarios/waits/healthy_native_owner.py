# SPDX-License-Identifier: MIT
# expect: none
"""A thread of C code has taken a recursive lock in a callback and is back in C: it lives, though Python knows it no
more, and may give the lock back in its next callback."""
import ctypes
import threading

libc = ctypes.CDLL(None)
lock = threading.RLock()
taken = threading.Event()
key = ctypes.c_uint()
thread = ctypes.c_ulong()


@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
def begin(_):
    lock.acquire()
    libc.pthread_setspecific(key, ctypes.c_void_p(3600))
    taken.set()


# What follows the callback in C: sleep(3600), as the key's destructor.
libc.pthread_key_create(ctypes.byref(key), libc.sleep)
libc.pthread_create(ctypes.byref(thread), None, begin, None)
taken.wait()
print("ready", flush=True)
with lock:
    pass
