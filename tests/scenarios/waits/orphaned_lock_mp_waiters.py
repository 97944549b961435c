# SPDX-License-Identifier: MIT
# expect: orphaned-lock
# threads: record
# option: --children
# needs: semaphores
"""Two processes and their parent wait for a lock that a killed process held; the parent is in join()."""
import multiprocessing
import os
import signal

context = multiprocessing.get_context("fork")
lock = context.RLock()
taken = context.Event()


def hold():
    lock.acquire()
    taken.set()
    signal.pause()


def record():
    with lock:
        pass


holder = context.Process(target=hold)
holder.start()
taken.wait()
os.kill(holder.pid, signal.SIGKILL)
holder.join()
workers = [context.Process(target=record) for _ in range(2)]
for worker in workers:
    worker.start()
print("ready", flush=True)
for worker in workers:
    worker.join()
