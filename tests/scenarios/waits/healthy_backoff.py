# SPDX-License-Identifier: MIT
# expect: none
"""Two threads that take two locks in different orders, by bare acquire() with a time-out; who fails gives way for a random
time, and tries again: both get on."""
import random
import threading
import time

a, b = threading.Lock(), threading.Lock()


def move(first, second):
    while True:
        time.sleep(random.uniform(0, 0.04))
        first.acquire()
        time.sleep(0.005)
        if not second.acquire(timeout=0.2):
            first.release()
            time.sleep(random.uniform(0, 0.1))
            continue
        time.sleep(0.04)
        second.release()
        first.release()


for locks in (a, b), (b, a):
    threading.Thread(target=move, args=locks, daemon=True).start()
print("ready", flush=True)
while True:
    time.sleep(60)
