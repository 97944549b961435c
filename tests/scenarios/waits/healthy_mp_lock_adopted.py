# SPDX-License-Identifier: MIT
# expect: none
# needs: semaphores
"""A multiprocessing lock is held by a process that left the family: its parent has ended."""
import multiprocessing
import os
import time

lock = multiprocessing.get_context("fork").Lock()
reader, writer = os.pipe()

if os.fork() == 0:
    if os.fork() == 0:
        with lock:
            os.write(writer, b"x")
            time.sleep(3600)
    os._exit(0)
os.wait()
os.read(reader, 1)
print("ready", flush=True)
with lock:
    pass
