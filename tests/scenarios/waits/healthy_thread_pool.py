# SPDX-License-Identifier: MIT
# expect: none
"""An idle ThreadPoolExecutor."""
import signal
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(4)
for job in [pool.submit(sum, [n]) for n in range(50)]:
    job.result()
print("ready", flush=True)
signal.pause()
