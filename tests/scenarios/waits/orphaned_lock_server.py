# SPDX-License-Identifier: MIT
# expect: orphaned-lock
# threads: handle
# says: guard
# certainty: inferred
"""A server goes on while one of its threads waits for a lock that another one took with it when it failed."""
import sys
import threading
import time

guard = threading.Lock()


def fail():
    guard.acquire()
    time.sleep(3)
    sys.exit()


def handle():
    with guard:
        pass


threading.Thread(target=fail, name="failing").start()
while not guard.locked():
    time.sleep(0.01)
threading.Thread(target=handle, name="handler").start()
print("ready", flush=True)
while True:
    time.sleep(1)
