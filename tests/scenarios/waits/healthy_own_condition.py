# SPDX-License-Identifier: MIT
# expect: none
"""A condition variable of the program's own, or of a library like gevent: who waits takes a lock of his own twice, and
whoever notifies him releases it in between."""
import collections
import sys
import threading

waiters = collections.deque()
mutex = threading.Lock()


def consume():
    while True:
        waiter = threading.Lock()
        waiter.acquire()
        with mutex:
            waiters.append(waiter)
        waiter.acquire()


for _ in range(3):
    threading.Thread(target=consume, daemon=True).start()
while len(waiters) < 3:
    pass
print("ready", flush=True)
while sys.stdin.readline():
    waiters.popleft().release()
