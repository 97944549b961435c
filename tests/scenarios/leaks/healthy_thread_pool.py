# SPDX-License-Identifier: MIT
# expect: none
"""A pool grows to its size by use, with buffers for each of its threads, and stays."""
import concurrent.futures
import threading
import time

local = threading.local()


def work():
    if not hasattr(local, "buffer"):
        local.buffer = bytearray(1 << 20)
    time.sleep(0.6)


pool = concurrent.futures.ThreadPoolExecutor(max_workers=24)
print("ready", flush=True)
futures = []
while True:
    futures = [future for future in futures if not future.done()]
    if len(futures) < 40:
        futures.append(pool.submit(work))
    time.sleep(0.02)
