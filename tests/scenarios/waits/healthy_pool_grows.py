# SPDX-License-Identifier: MIT
# expect: none
"""Jobs wait for jobs of their own pool, which has workers left to serve them."""
import time
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(4)


def part():
    time.sleep(2)


def whole():
    return [job.result() for job in [pool.submit(part), pool.submit(part)]]


print("ready", flush=True)
while True:
    pool.submit(whole).result()
