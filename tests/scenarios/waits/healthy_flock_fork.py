# SPDX-License-Identifier: MIT
# expect: none
"""Waits for a file lock that it took itself and handed on to a child, which gives it back."""
import fcntl
import os
import tempfile
import time

with tempfile.NamedTemporaryFile() as file:
    first = os.open(file.name, os.O_RDWR)
    fcntl.flock(first, fcntl.LOCK_EX)
    if os.fork() == 0:
        time.sleep(3600)
        os._exit(0)
    os.close(first)
    second = os.open(file.name, os.O_RDWR)
    print("ready", flush=True)
    fcntl.flock(second, fcntl.LOCK_EX)
