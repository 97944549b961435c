# SPDX-License-Identifier: MIT
# expect: handle-leak
# certainty: inferred
# says: pipe
# versions: 3.8-
"""Process objects of jobs that are done are kept for their results: each holds two pipe ends."""
import multiprocessing
import time

jobs = []


def work():
    pass


def start_job():
    job = multiprocessing.get_context("fork").Process(target=work)
    job.start()
    job.join()
    jobs.append(job)


print("ready", flush=True)
for _ in range(2000):
    start_job()
    time.sleep(0.08)
time.sleep(3600)
