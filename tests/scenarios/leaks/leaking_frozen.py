# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: Session
# versions: 3.7-
"""Calls gc.freeze() after every request, as if it were to be forked: cycles that it froze are never collected."""
import gc
import time


class Session:
    def __init__(self):
        self.me = self
        self.buffer = bytearray(1000)


print("ready", flush=True)
for _ in range(12000):
    for _ in range(20):
        Session()
    gc.freeze()
    time.sleep(0.01)
time.sleep(3600)
