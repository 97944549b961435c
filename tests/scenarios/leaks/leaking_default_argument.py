# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: handle.<defaults>.history: list
"""A default value that is a list, and the same one in every call."""
import time


def handle(number, history=[]):
    history.append("event %d: " % number + "x" * 300)
    return len(history)


print("ready", flush=True)
for step in range(13000):
    for number in range(80):
        handle(step * 80 + number)
    time.sleep(0.01)
time.sleep(3600)
