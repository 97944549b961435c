# SPDX-License-Identifier: MIT
# expect: none
"""A child that has ended and was not waited for; its parent sleeps between two rounds."""
import os
import time

if os.fork() == 0:
    os._exit(0)
print("ready", flush=True)
while True:
    time.sleep(600)
