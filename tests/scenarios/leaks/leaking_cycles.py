# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: Node
"""Cycles of objects with a finalizer, and nobody collects: the collector was switched off for speed."""
import gc
import time


class Node:
    def __init__(self):
        self.payload = bytearray(500)
        self.parent = None

    def __del__(self):
        self.payload = None


def handle_request():
    parent, child = Node(), Node()
    parent.child, child.parent = child, parent


gc.disable()
print("ready", flush=True)
for _ in range(12000):
    for _ in range(16):
        handle_request()
    time.sleep(0.01)
time.sleep(3600)
