# SPDX-License-Identifier: MIT
# expect: none
"""An executor for every request, which ends with it."""
import concurrent.futures
import threading
import time

threading.stack_size(256 * 1024)
print("ready", flush=True)
while True:
    with concurrent.futures.ThreadPoolExecutor(max_workers=6) as executor:
        list(executor.map(time.sleep, [0.1] * 6))
    time.sleep(0.05)
