# SPDX-License-Identifier: MIT
# expect: none
"""All workers of a pool wait for futures of another pool, which works."""
import time
from concurrent.futures import ThreadPoolExecutor

front = ThreadPoolExecutor(2, thread_name_prefix="front")
back = ThreadPoolExecutor(1, thread_name_prefix="back")


def fetch():
    time.sleep(2)


def handle():
    back.submit(fetch).result()


print("ready", flush=True)
while True:
    for job in [front.submit(handle) for _ in range(4)]:
        job.result()
