# SPDX-License-Identifier: MIT
# expect: none
"""Cycles that only the collector frees: it comes every second or so."""
import gc
import time


class Node:
    def __init__(self):
        self.me = self
        self.payload = bytearray(1000)


gc.set_threshold(2500, 10, 10)
print("ready", flush=True)
while True:
    for _ in range(30):
        Node()
    time.sleep(0.01)
