# SPDX-License-Identifier: MIT
# expect: none
"""Two threads that compute, with short rests: the GIL goes to and fro."""
import threading
import time


def compute():
    while True:
        sum(range(20000))
        time.sleep(0.01)


threads = [threading.Thread(target=compute) for _ in range(2)]
for thread in threads:
    thread.start()
print("ready", flush=True)
for thread in threads:
    thread.join()
