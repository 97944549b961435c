# SPDX-License-Identifier: MIT
# expect: none
"""Counts events by kind: the values change for ever, the keys do not."""
import collections
import time

counts = collections.Counter()
latest = {}
print("ready", flush=True)
number = 0
while True:
    for _ in range(100):
        number += 1
        counts["kind-%d" % (number % 300)] += number
        latest[number % 3000] = "event %d " % number + "x" * 800
    time.sleep(0.01)
