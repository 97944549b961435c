# SPDX-License-Identifier: MIT
# expect: none
"""The last 20,000 events, and no more."""
import collections
import time

events = collections.deque(maxlen=20000)
print("ready", flush=True)
number = 0
while True:
    for _ in range(80):
        number += 1
        events.append({"number": number, "text": "event %d" % number + "." * 300})
    time.sleep(0.01)
