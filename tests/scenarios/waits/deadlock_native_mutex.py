# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: move, move
# needs: ctypes
# certainty: proven
"""Two native mutexes in opposite order."""
import ctypes
import threading

libc = ctypes.CDLL(None)
both = threading.Barrier(3)
heap, table = ctypes.create_string_buffer(64), ctypes.create_string_buffer(64)


def move(source, target):
    libc.pthread_mutex_lock(source)
    both.wait()
    libc.pthread_mutex_lock(target)


threads = [threading.Thread(target=move, args=(heap, table), name="up"),
           threading.Thread(target=move, args=(table, heap), name="down")]
for thread in threads:
    thread.start()
both.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
