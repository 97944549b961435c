# SPDX-License-Identifier: MIT
# expect: handle-leak
# certainty: inferred
# says: pipe
# also: process-leak
"""Children whose output nobody reads to its end: their pipes stay open."""
import subprocess
import sys
import time

started = []


def start_job():
    job = subprocess.Popen([sys.executable, "-ES", "-c", "print(1)"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    started.append(job)
    return job


print("ready", flush=True)
for _ in range(2000):
    start_job().wait()
    time.sleep(0.1)
time.sleep(3600)
