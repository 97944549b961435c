# SPDX-License-Identifier: MIT
# expect: memory-leak
# certainty: proven
# says: record.<closure>.rows: list
"""A recorder's closure holds a list that only grows."""
import time


def make_recorder():
    rows = []

    def record(number, text):
        rows.append((number, text))

    return record


record = make_recorder()
print("ready", flush=True)
for step in range(10000):
    for number in range(60):
        record(step * 60 + number, "row %d " % number + "." * 300)
    time.sleep(0.01)
time.sleep(3600)
