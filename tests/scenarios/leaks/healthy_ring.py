# SPDX-License-Identifier: MIT
# expect: none
"""A ring of 256 buffers, each replaced in turn."""
import time

ring = [None] * 256
print("ready", flush=True)
number = 0
while True:
    number += 1
    ring[number % len(ring)] = bytes([number % 256]) * (80000 + number % 7 * 1000)
    time.sleep(0.01)
