# SPDX-License-Identifier: MIT
# expect: none
"""The last hundred errors are kept, with their tracebacks."""
import collections
import time

errors = collections.deque(maxlen=100)


def parse(number):
    document = ["line %d" % number] * 5000
    raise ValueError("no such field in document %d of %d lines" % (number, len(document)))


print("ready", flush=True)
number = 0
while True:
    number += 1
    try:
        parse(number)
    except ValueError as error:
        errors.append(error)
    time.sleep(0.01)
