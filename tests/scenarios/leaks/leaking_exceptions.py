# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: errors: list
"""Errors are kept for a report, with their tracebacks: frames, and all that these frames had."""
import time

errors = []


def parse(number):
    document = ["line %d" % number] * 150
    raise ValueError("no such field in document %d of %d lines" % (number, len(document)))


def handle(number):
    try:
        parse(number)
    except ValueError as error:
        errors.append(error)


print("ready", flush=True)
for step in range(12000):
    for number in range(15):
        handle(step * 15 + number)
    time.sleep(0.01)
time.sleep(3600)
