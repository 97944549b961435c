# SPDX-License-Identifier: MIT
# expect: none
"""A cache of weak references: what nobody uses leaves it."""
import collections
import time
import weakref


class Document:
    def __init__(self, number):
        self.number = number
        self.text = "x" * 10000 + str(number)


cache = weakref.WeakValueDictionary()
in_use = collections.deque(maxlen=500)
print("ready", flush=True)
number = 0
while True:
    for _ in range(5):
        number += 1
        cache[number] = document = Document(number)
        in_use.append(document)
    time.sleep(0.01)
