# SPDX-License-Identifier: MIT
# expect: orphaned-lock
# threads: log
# option: --children
# says: log_lock
"""fork() while another thread holds a lock: in the child nobody will ever release it."""
import os
import threading

log_lock = threading.Lock()
taken = threading.Event()
forked = threading.Event()


def log_much():
    with log_lock:
        taken.set()
        forked.wait()


def log():
    with log_lock:
        pass


threading.Thread(target=log_much, name="logger").start()
taken.wait()
child = os.fork()
if child == 0:
    log()
    os._exit(0)
forked.set()
print("ready", flush=True)
os.waitpid(child, 0)
