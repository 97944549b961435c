# SPDX-License-Identifier: MIT
# expect: none
"""A suspended generator holds a lock that nobody else wants."""
import threading

table_lock = threading.Lock()


def rows():
    with table_lock:
        yield 1
        yield 2


def serve(stop):
    cursor = rows()
    next(cursor)
    stop.wait()
    return cursor


print("ready", flush=True)
serve(threading.Event())
