# SPDX-License-Identifier: MIT
# expect: none
"""A cache with a bound fills in some seconds, and stays at its size while it goes on."""
import functools
import time


@functools.lru_cache(maxsize=5000)
def render(number):
    return "page %d " % number + "x" * 4000


print("ready", flush=True)
number = 0
while True:
    for _ in range(10):
        number += 1
        render(number)
    time.sleep(0.01)
