# SPDX-License-Identifier: MIT
# expect: none
"""Big lists that live as long as a request."""
import time

print("ready", flush=True)
number = 0
while True:
    number += 1
    rows = [0] * (200000 + number % 5 * 300000)
    time.sleep(0.15)
    del rows
    time.sleep(0.05)
