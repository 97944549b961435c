# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: changed.observers: list
"""Every view subscribes to a signal, none unsubscribes."""
import time


class Signal:
    def __init__(self):
        self.observers = []

    def connect(self, callback):
        self.observers.append(callback)


class View:
    def __init__(self, changed):
        self.rows = bytearray(600)
        changed.connect(self.on_change)

    def on_change(self):
        self.rows = bytearray(600)


changed = Signal()
print("ready", flush=True)
for _ in range(13000):
    for _ in range(30):
        View(changed)
    time.sleep(0.01)
time.sleep(3600)
