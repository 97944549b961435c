# SPDX-License-Identifier: MIT
# expect: self-deadlock|deadlock
# threads: total
"""A job waits for its own result."""
import threading
from concurrent.futures import ThreadPoolExecutor

submitted = threading.Event()
jobs = {}


def total():
    submitted.wait()
    print("ready", flush=True)
    return jobs["total"].result()


with ThreadPoolExecutor(1) as pool:
    jobs["total"] = pool.submit(total)
    submitted.set()
    jobs["total"].result()
