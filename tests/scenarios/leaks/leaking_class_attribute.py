# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: Registry.handlers: list
"""Instances register with their class, which keeps them."""
import time


class Registry:
    handlers = []

    def __init__(self, number):
        self.name = "handler %d" % number
        self.buffer = bytearray(400)
        self.handlers.append(self)


print("ready", flush=True)
for step in range(10000):
    for number in range(40):
        Registry(step * 40 + number)
    time.sleep(0.01)
time.sleep(3600)
