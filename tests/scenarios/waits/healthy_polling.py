# SPDX-License-Identifier: MIT
# expect: none
"""A loop that asks ten times a second whether something has come."""
import os
import time


def has_come():
    return os.path.exists("/nonexistent/order")


print("ready", flush=True)
while not has_come():
    time.sleep(0.1)
