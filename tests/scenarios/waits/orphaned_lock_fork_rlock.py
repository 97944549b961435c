# SPDX-License-Identifier: MIT
# expect: orphaned-lock
# threads: emit
# option: --children
"""The same with an RLock, whose owner field names a thread that the child does not have."""
import os
import threading

handler_lock = threading.RLock()
taken = threading.Event()
forked = threading.Event()


def flush():
    with handler_lock:
        taken.set()
        forked.wait()


def emit():
    with handler_lock:
        pass


threading.Thread(target=flush, name="flusher").start()
taken.wait()
child = os.fork()
if child == 0:
    emit()
    os._exit(0)
forked.set()
print("ready", flush=True)
os.waitpid(child, 0)
