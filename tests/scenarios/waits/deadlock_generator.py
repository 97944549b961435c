# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: scan, write
# holder: scanner
# says: table_lock
"""One of the locks is held by a generator that is suspended, on nobody's stack."""
import threading

both = threading.Barrier(3)
table_lock = threading.Lock()
log_lock = threading.Lock()


def rows():
    with table_lock:
        yield 1
        yield 2


def scan():
    cursor = rows()
    next(cursor)
    both.wait()
    with log_lock:
        next(cursor)


def write():
    with log_lock:
        both.wait()
        with table_lock:
            pass


threads = [threading.Thread(target=scan, name="scanner"), threading.Thread(target=write, name="writer")]
for thread in threads:
    thread.start()
both.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
