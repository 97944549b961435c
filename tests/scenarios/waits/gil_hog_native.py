# SPDX-License-Identifier: MIT
# expect: gil-hog
# threads: convert
# needs: gil, ctypes
"""Native code sleeps with the GIL held, while another thread wants it."""
import ctypes
import threading
import time

running = threading.Event()


def tick():
    running.set()
    while True:
        time.sleep(0.01)


def convert():
    ctypes.PyDLL(None).sleep(3600)


threading.Thread(target=tick, name="ticker").start()
running.wait()
print("ready", flush=True)
convert()
