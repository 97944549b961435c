# SPDX-License-Identifier: MIT
# expect: memory-leak
# certainty: proven
# says: names: dict
"""Interns names that come from outside in a dictionary of strings: no type of its own tells what grows."""
import time

names = {}


def intern_name(name):
    return names.setdefault(name, name)


print("ready", flush=True)
for step in range(13000):
    for number in range(150):
        intern_name("customer-%08d.of-a-department-with-a-long-name.of-a-house.example.org" % (step * 150 + number))
    time.sleep(0.01)
time.sleep(3600)
