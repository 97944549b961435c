# SPDX-License-Identifier: MIT
# expect: none
"""Workers wait for jobs of a queue; the main thread waits for the end of what it has submitted, and then for more."""
import queue
import threading
import time

jobs = queue.Queue()


def work():
    while True:
        jobs.get()
        time.sleep(0.3)
        jobs.task_done()


for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
print("ready", flush=True)
while True:
    for n in range(10):
        jobs.put(n)
    jobs.join()
    time.sleep(5)
