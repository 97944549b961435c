# SPDX-License-Identifier: MIT
# expect: none
"""A thread takes a lock and ends, another one gives it back a while later: the lock belongs to the work, not to a thread."""
import threading
import time

guard = threading.Lock()


def take(seconds):
    guard.acquire()
    time.sleep(seconds)


def finish():
    time.sleep(7)
    guard.release()


print("ready", flush=True)
while True:
    for seconds in (0, 3):
        taker = threading.Thread(target=take, args=(seconds,))
        taker.start()
        while not guard.locked():
            time.sleep(0.01)
        threading.Thread(target=finish).start()
        with guard:
            time.sleep(0.1)
