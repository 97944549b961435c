# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: summarise, summarise, summarise
"""Every worker waits for a future that only the same pool could serve; many more jobs are queued."""
import threading
from concurrent.futures import ThreadPoolExecutor

WORKERS = 3
pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="report")
all_taken = threading.Barrier(WORKERS + 1)


def chapter(n):
    return n


def summarise(n):
    all_taken.wait()
    return pool.submit(chapter, n).result()


jobs = [pool.submit(summarise, n) for n in range(WORKERS)]
all_taken.wait()
print("ready", flush=True)
for job in jobs:
    job.result()
