# SPDX-License-Identifier: MIT
# expect: none
"""future.result() of a job that works on and on, in small steps."""
import time
from concurrent.futures import ThreadPoolExecutor


def simulate():
    n = 0
    while True:
        n += sum(range(1000))
        time.sleep(0.2)


pool = ThreadPoolExecutor(1)
job = pool.submit(simulate)
print("ready", flush=True)
job.result()
