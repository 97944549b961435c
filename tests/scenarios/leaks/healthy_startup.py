# SPDX-License-Identifier: MIT
# expect: none
"""Loads its tables for five seconds, then serves."""
import time

table = {}
print("ready", flush=True)
for step in range(400):
    for number in range(100):
        table[step * 100 + number] = "word %d " % number + "x" * 1000
    time.sleep(0.01)
while True:
    sorted(table[number] for number in range(100))
    time.sleep(0.02)
