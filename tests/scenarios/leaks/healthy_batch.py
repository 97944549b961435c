# SPDX-License-Identifier: MIT
# expect: none
"""Reads a batch, works on it, forgets it, again and again."""
import time


def run_batch():
    rows = []
    for step in range(120):
        rows.extend({"number": step * 100 + number, "text": "x" * 300 + str(number)} for number in range(100))
        time.sleep(0.01)
    total = sum(row["number"] for row in rows)
    time.sleep(0.3)
    return total


print("ready", flush=True)
while True:
    run_batch()
    time.sleep(0.5)
