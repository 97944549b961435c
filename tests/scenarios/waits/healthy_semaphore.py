# SPDX-License-Identifier: MIT
# expect: none
"""A semaphore limits how many work at once; each takes its time."""
import threading
import time

slots = threading.Semaphore(1)


def download():
    while True:
        with slots:
            time.sleep(2.5)


threads = [threading.Thread(target=download) for _ in range(3)]
for thread in threads:
    thread.start()
print("ready", flush=True)
for thread in threads:
    thread.join()
