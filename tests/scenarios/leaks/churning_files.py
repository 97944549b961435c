# SPDX-License-Identifier: MIT
# expect: none
"""Opens as many files as its neighbour that leaks, hundreds at once now and then, and closes them all. Fifty connections
that stay were made at the start."""
import os
import time

pool = [open(os.devnull) for _ in range(50)]


def handle_batch(size):
    files = []
    for _ in range(size):
        files.append(open(os.devnull))
        time.sleep(0.005)
    for file in files:
        file.close()


print("ready", flush=True)
size = 0
while True:
    size = size % 200 + 17
    handle_batch(size)
