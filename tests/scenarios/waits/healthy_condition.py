# SPDX-License-Identifier: MIT
# expect: none
"""A slow producer and its consumers on one Condition."""
import threading
import time

changed = threading.Condition()
items = []


def produce():
    while True:
        time.sleep(3)
        with changed:
            items.append(1)
            changed.notify()


def consume():
    while True:
        with changed:
            while not items:
                changed.wait()
            items.pop()


for target in (produce, consume, consume):
    threading.Thread(target=target, daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
