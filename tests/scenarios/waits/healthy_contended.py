# SPDX-License-Identifier: MIT
# expect: none
"""A lock that four threads want all the time, and that each holds for a while."""
import threading
import time

lock = threading.Lock()
turns = [0] * 4


def work(n):
    while True:
        with lock:
            turns[n] += 1
            time.sleep(0.05)
        time.sleep(0.001)


for n in range(4):
    threading.Thread(target=work, args=(n,), daemon=True).start()
while not all(turns):
    time.sleep(0.01)
print("ready", flush=True)
threading.Event().wait()
