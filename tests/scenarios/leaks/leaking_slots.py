# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: journal.entries: list
"""The list grows in a slot of an object that a module holds."""
import time


class Journal:
    __slots__ = ("name", "entries")

    def __init__(self, name):
        self.name = name
        self.entries = []


journal = Journal("audit")
print("ready", flush=True)
for step in range(13000):
    for number in range(110):
        journal.entries.append([step, number, float(number), str(step * 110 + number)])
    time.sleep(0.01)
time.sleep(3600)
