# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: watchers: list
"""Weak references with callbacks pile up in a list, although what they refer to is one object that stays."""
import time
import weakref


class Model:
    pass


model = Model()
watchers = []


def watch(number):
    def gone(_):
        watchers.clear()
        return number

    watchers.append(weakref.ref(model, gone))


print("ready", flush=True)
for step in range(13000):
    for number in range(70):
        watch(step * 70 + number)
    time.sleep(0.01)
time.sleep(3600)
