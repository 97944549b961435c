# SPDX-License-Identifier: MIT
# expect: self-deadlock
# threads: __del__ < evict
# says: cache_lock
# certainty: proven
"""__del__ takes the lock under which the object was dropped."""
import threading

cache_lock = threading.Lock()
cache = {}


class Entry:
    def __del__(self):
        with cache_lock:
            pass


def evict():
    with cache_lock:
        print("ready", flush=True)
        cache.clear()


cache["one"] = Entry()
evict()
