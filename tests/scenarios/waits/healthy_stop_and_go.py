# SPDX-License-Identifier: MIT
# expect: none
"""A child that is stopped and continued, time and again."""
import os
import signal
import time

child = os.fork()
if child == 0:
    while True:
        time.sleep(0.1)
print("ready", flush=True)
while True:
    os.kill(child, signal.SIGSTOP)
    time.sleep(0.5)
    os.kill(child, signal.SIGCONT)
    time.sleep(0.5)
