# SPDX-License-Identifier: MIT
# expect: hang|deadlock
# threads: drain
# option: --hang-after 3
"""Queue.join() of a queue whose workers have ended and forgot task_done() once."""
import queue
import threading

jobs = queue.Queue()


def work():
    for n in range(5):
        jobs.get()
        if n != 3:
            jobs.task_done()


def drain():
    print("ready", flush=True)
    jobs.join()


worker = threading.Thread(target=work)
worker.start()
for job in range(5):
    jobs.put(job)
worker.join()
drain()
