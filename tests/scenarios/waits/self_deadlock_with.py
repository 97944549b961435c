# SPDX-License-Identifier: MIT
# expect: self-deadlock
# threads: total < check_out
# says: self.lock
# certainty: proven
"""A method that holds its Lock calls another one that takes it."""
import threading


class Basket:
    def __init__(self):
        self.lock = threading.Lock()
        self.items = [1, 2, 3]

    def total(self):
        with self.lock:
            return sum(self.items)

    def check_out(self):
        with self.lock:
            print("ready", flush=True)
            return self.total()


Basket().check_out()
