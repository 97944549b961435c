# SPDX-License-Identifier: MIT
# expect: none
"""Philosophers who take the second fork with a time-out, give the first one back where that fails, and all eat in time."""
import random
import threading
import time

SEATS = 5
forks = [threading.Lock() for _ in range(SEATS)]


def dine(left, right):
    while True:
        with left:
            if right.acquire(timeout=0.1):
                time.sleep(0.03)
                right.release()
        time.sleep(random.uniform(0, 0.02))


for seat in range(SEATS):
    threading.Thread(target=dine, args=(forks[seat], forks[(seat + 1) % SEATS]), daemon=True).start()
print("ready", flush=True)
while True:
    time.sleep(60)
