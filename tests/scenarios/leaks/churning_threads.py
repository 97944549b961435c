# SPDX-License-Identifier: MIT
# expect: none
"""A thread for every job, which ends with it, and a pool that has its size after a second."""
import threading
import time

threading.stack_size(256 * 1024)
done = threading.Event()


def work():
    done.wait()


def job():
    time.sleep(0.3)


pool = [threading.Thread(target=work, daemon=True) for _ in range(24)]
print("ready", flush=True)
for worker in pool:
    worker.start()
    time.sleep(0.04)
while True:
    jobs = [threading.Thread(target=job) for _ in range(8)]
    for one in jobs:
        one.start()
        time.sleep(0.05)
    for one in jobs:
        one.join()
