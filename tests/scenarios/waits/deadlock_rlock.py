# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: read_first, write_first
# holder: writer
# says: log_lock
# certainty: proven
"""Two RLocks in opposite order, each taken twice."""
import threading

both = threading.Barrier(3)
table_lock = threading.RLock()
log_lock = threading.RLock()


def read_first():
    with table_lock, table_lock:
        both.wait()
        with log_lock:
            pass


def write_first():
    with log_lock, log_lock:
        both.wait()
        with table_lock:
            pass


threads = [threading.Thread(target=read_first, name="reader"), threading.Thread(target=write_first, name="writer")]
for thread in threads:
    thread.start()
both.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
