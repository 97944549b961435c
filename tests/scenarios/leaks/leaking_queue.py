# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: jobs.queue: collections.deque
"""A queue without a bound, whose consumer takes less than what is put in."""
import queue
import threading
import time

jobs = queue.Queue()


def consume():
    while True:
        jobs.get()
        time.sleep(0.05)


threading.Thread(target=consume, daemon=True).start()
print("ready", flush=True)
for step in range(13000):
    for number in range(30):
        jobs.put({"number": step * 30 + number, "body": "x" * 500 + str(number)})
    time.sleep(0.01)
time.sleep(3600)
