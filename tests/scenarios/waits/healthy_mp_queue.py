# SPDX-License-Identifier: MIT
# expect: none
# needs: semaphores
"""A multiprocessing.Queue with a bound; the consumer takes its time."""
import multiprocessing
import time

context = multiprocessing.get_context("fork")


def consume(jobs):
    while True:
        jobs.get()
        time.sleep(2)


jobs = context.Queue(2)
context.Process(target=consume, args=(jobs,), daemon=True).start()
print("ready", flush=True)
while True:
    jobs.put(b"x" * 1000)
