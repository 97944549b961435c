# SPDX-License-Identifier: MIT
# expect: none
"""One process holds a file lock while it works; the other one waits for its turn."""
import fcntl
import os
import tempfile
import time

path = os.path.join(tempfile.mkdtemp(), "lock")
open(path, "w").close()


def work():
    with open(path) as lock:
        while True:
            fcntl.flock(lock, fcntl.LOCK_EX)
            time.sleep(2)
            fcntl.flock(lock, fcntl.LOCK_UN)
            time.sleep(0.01)


print("ready", flush=True)
os.fork()
work()
