# SPDX-License-Identifier: MIT
# expect: none
"""An RLock that its owner takes again and again, while another thread waits for it."""
import threading
import time

tree_lock = threading.RLock()


def descend(depth):
    with tree_lock:
        time.sleep(0.1)
        if depth:
            descend(depth - 1)


def walk():
    while True:
        descend(5)
        time.sleep(0.05)


threads = [threading.Thread(target=walk, name="walker-%d" % n) for n in range(2)]
for thread in threads:
    thread.start()
print("ready", flush=True)
for thread in threads:
    thread.join()
