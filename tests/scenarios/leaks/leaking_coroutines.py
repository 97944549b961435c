# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: pending: list
"""Coroutines that nobody awaits wait in a list."""
import time

pending = []


async def notify(message):
    return len(message)


print("ready", flush=True)
for step in range(12000):
    for number in range(25):
        pending.append(notify("message %d " % (step * 25 + number) + "x" * 800))
    time.sleep(0.01)
time.sleep(3600)
