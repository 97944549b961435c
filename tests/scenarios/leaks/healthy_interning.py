# SPDX-License-Identifier: MIT
# expect: none
# needs: gil
# versions: -3.11, 3.13-
"""Interns strings that are forgotten again (3.12 and free-threaded builds keep them for ever)."""
import sys
import time

print("ready", flush=True)
number = 0
while True:
    names = []
    for _ in range(60):
        for _ in range(100):
            number += 1
            names.append(sys.intern("name-%d" % number + "x" * 200))
        time.sleep(0.01)
    del names
