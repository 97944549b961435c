# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: from_python, from_native
# needs: ctypes
# says: registry
"""A native mutex and a Python lock in opposite order."""
import ctypes
import threading

libc = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(64)
registry = threading.Lock()
both = threading.Barrier(3)


def from_python():
    with registry:
        both.wait()
        libc.pthread_mutex_lock(mutex)


def from_native():
    libc.pthread_mutex_lock(mutex)
    both.wait()
    with registry:
        pass


threads = [threading.Thread(target=from_python, name="python"), threading.Thread(target=from_native, name="native")]
for thread in threads:
    thread.start()
both.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
