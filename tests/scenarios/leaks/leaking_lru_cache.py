# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: Order.total.<cache>: dict
"""A cache without a bound on a method keeps every instance that it was called on."""
import functools
import time


class Order:
    def __init__(self, number):
        self.number = number
        self.lines = [number * 1000 + line for line in range(30)]

    @functools.lru_cache(maxsize=None)
    def total(self):
        return sum(self.lines)


print("ready", flush=True)
for step in range(12000):
    for number in range(25):
        Order(step * 25 + number).total()
    time.sleep(0.01)
time.sleep(3600)
