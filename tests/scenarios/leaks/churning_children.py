# SPDX-License-Identifier: MIT
# expect: none
"""Starts as many children as its neighbour that makes zombies, lets some lie for a while, and waits for every one."""
import os
import time


def start():
    pid = os.fork()
    if not pid:
        os._exit(0)
    return pid


print("ready", flush=True)
count = 0
while True:
    count = count % 16 + 5
    pids = []
    for _ in range(count):
        pids.append(start())
        time.sleep(0.06)
    for pid in pids:
        os.waitpid(pid, 0)
