# SPDX-License-Identifier: MIT
# expect: memory-leak
# certainty: proven
# says: _seen: dict
"""Remembers every request in a global, so as not to answer it twice."""
import time

_seen = {}


def handle_request(number):
    _seen[number] = "request %d: " % number + "x" * 250


print("ready", flush=True)
for step in range(13000):
    for number in range(80):
        handle_request(step * 80 + number)
    time.sleep(0.01)
time.sleep(3600)
