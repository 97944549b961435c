# SPDX-License-Identifier: MIT
# expect: none
"""A module's generator holds a lock that the main thread wants; another thread, of other code, will go on with it."""
import threading
import time
import types

table_lock = threading.Lock()


def rows():
    with table_lock:
        yield 1
        yield 2


cursor = rows()
next(cursor)

other = types.ModuleType("other")
exec("def drain(made):\n    time.sleep(3600)\n    list(made[0])\n", vars(other))
other.time = time
threading.Thread(target=other.drain, args=([cursor],), daemon=True).start()
print("ready", flush=True)
with table_lock:
    pass
