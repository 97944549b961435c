# SPDX-License-Identifier: MIT
# expect: orphaned-lock
# threads: append
# needs: semaphores
"""A multiprocessing lock whose holder was killed."""
import multiprocessing
import os
import signal

context = multiprocessing.get_context("fork")
lock = context.Lock()
taken = context.Event()


def hold():
    with lock:
        taken.set()
        signal.pause()


def append():
    with lock:
        pass


holder = context.Process(target=hold)
holder.start()
taken.wait()
os.kill(holder.pid, signal.SIGKILL)
holder.join()
print("ready", flush=True)
append()
