# SPDX-License-Identifier: MIT
# expect: none
"""Timed acquires that now and then fail, and mostly do not."""
import threading
import time

lock = threading.Lock()


def work(rest):
    while True:
        if lock.acquire(timeout=0.08):
            time.sleep(0.05)
            lock.release()
        time.sleep(rest)


threads = [threading.Thread(target=work, args=(rest,)) for rest in (0.02, 0.05, 0.07)]
for thread in threads:
    thread.start()
print("ready", flush=True)
for thread in threads:
    thread.join()
