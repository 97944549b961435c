# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: on_disk, on_net
"""Two pools of one worker each, and each one's job waits for a job of the other."""
import threading
from concurrent.futures import ThreadPoolExecutor

disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
net = ThreadPoolExecutor(1, thread_name_prefix="net")
both = threading.Barrier(3)


def nothing():
    return None


def on_disk():
    both.wait()
    return net.submit(nothing).result()


def on_net():
    both.wait()
    return disk.submit(nothing).result()


jobs = [disk.submit(on_disk), net.submit(on_net)]
both.wait()
print("ready", flush=True)
for job in jobs:
    job.result()
