# SPDX-License-Identifier: MIT
# expect: none
"""A Timer with a long way to go, which the main thread joins."""
import threading

timer = threading.Timer(3600, print)
timer.start()
print("ready", flush=True)
timer.join()
