# SPDX-License-Identifier: MIT
# expect: gil-hog
# threads: is_valid
# needs: gil
"""A regular expression that backtracks for ever, while another thread wants the GIL."""
import re
import threading
import time

running = threading.Event()


def tick():
    running.set()
    while True:
        time.sleep(0.01)


def is_valid(text):
    return re.match("(a+)+$", text)


threading.Thread(target=tick, name="ticker").start()
running.wait()
print("ready", flush=True)
is_valid("a" * 60 + "b")
