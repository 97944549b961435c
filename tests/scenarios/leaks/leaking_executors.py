# SPDX-License-Identifier: MIT
# expect: thread-leak
# certainty: inferred
# says: ThreadPoolExecutor|_worker (thread.py
"""An executor for every request, kept in a list, none of them shut down."""
import concurrent.futures
import threading
import time

threading.stack_size(256 * 1024)
executors = []


def handle_request():
    executor = concurrent.futures.ThreadPoolExecutor(max_workers=2)
    executor.submit(len, "request").result()
    executors.append(executor)


print("ready", flush=True)
for _ in range(1500):
    handle_request()
    time.sleep(0.1)
time.sleep(3600)
