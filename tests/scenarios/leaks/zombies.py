# SPDX-License-Identifier: MIT
# expect: process-leak
# certainty: inferred
# says: zombies
"""Starts a child for every job and never asks how it ended."""
import os
import time


def handle_job():
    if not os.fork():
        os._exit(0)


print("ready", flush=True)
for _ in range(2000):
    handle_job()
    time.sleep(0.1)
while True:
    time.sleep(60)
