# SPDX-License-Identifier: MIT
# expect: none
"""Work comes in waves: the queue grows, and is empty again before the next one."""
import queue
import threading
import time

jobs = queue.Queue()


def consume():
    while True:
        jobs.get()
        if jobs.qsize() % 50 == 0:
            time.sleep(0.01)


threading.Thread(target=consume, daemon=True).start()
print("ready", flush=True)
while True:
    for step in range(80):
        for number in range(100):
            jobs.put("job %d " % number + "x" * 2000)
        time.sleep(0.01)
    while jobs.qsize():
        time.sleep(0.01)
    time.sleep(0.3)
