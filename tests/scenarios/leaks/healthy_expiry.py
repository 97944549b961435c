# SPDX-License-Identifier: MIT
# expect: none
"""Sessions expire after three seconds: as many go as come."""
import time

sessions = {}
print("ready", flush=True)
number = 0
while True:
    now = time.monotonic()
    for _ in range(10):
        number += 1
        sessions[number] = now, "session %d " % number + "x" * 5000
    if number % 200 == 0:
        for key in [key for key, (since, _) in sessions.items() if now - since > 3]:
            del sessions[key]
    time.sleep(0.01)
