# SPDX-License-Identifier: MIT
# expect: none
"""A worker that asks its queue with a timeout, and says that it is alive where nothing came."""
import queue
import threading

jobs = queue.Queue()
beats = []


def work():
    while True:
        try:
            jobs.get(timeout=0.5)
        except queue.Empty:
            beats.append(1)


worker = threading.Thread(target=work, name="worker")
worker.start()
print("ready", flush=True)
worker.join()
