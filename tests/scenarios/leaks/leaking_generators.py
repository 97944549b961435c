# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: cursors: list
"""Cursors that were read once and never to their end: suspended generators."""
import time

cursors = []


def fetch(number):
    rows = ["row %d.%d" % (number, row) for row in range(8)]
    for row in rows:
        yield row


def first_row(number):
    cursor = fetch(number)
    cursors.append(cursor)
    return next(cursor)


print("ready", flush=True)
for step in range(12000):
    for number in range(25):
        first_row(step * 25 + number)
    time.sleep(0.01)
time.sleep(3600)
