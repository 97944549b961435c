# SPDX-License-Identifier: MIT
# expect: none
# needs: semaphores
"""Three processes take turns at a multiprocessing lock."""
import multiprocessing
import time

context = multiprocessing.get_context("fork")
lock = context.Lock()


def work():
    while True:
        with lock:
            time.sleep(0.7)
        time.sleep(0.01)


workers = [context.Process(target=work) for _ in range(3)]
for worker in workers:
    worker.start()
print("ready", flush=True)
for worker in workers:
    worker.join()
