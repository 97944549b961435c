# SPDX-License-Identifier: MIT
# expect: none
"""A worker class with a queue: its threads wait for jobs that never come, the main thread joins them."""
import queue
import threading


class Worker(threading.Thread):
    def __init__(self):
        super().__init__()
        self.inbox = queue.Queue()

    def run(self):
        while True:
            job = self.inbox.get()
            if job is None:
                return
            job()


workers = [Worker() for _ in range(3)]
for worker in workers:
    worker.start()
first_done = threading.Event()
workers[0].inbox.put(first_done.set)
first_done.wait()
print("ready", flush=True)
signal_to_stop = threading.Event()
signal_to_stop.wait()
for worker in workers:
    worker.inbox.put(None)
