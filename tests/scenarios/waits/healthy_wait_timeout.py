# SPDX-License-Identifier: MIT
# expect: none
"""A daemon thread that looks after things once in two seconds."""
import signal
import threading

stop = threading.Event()


def look_after():
    while not stop.wait(2):
        pass


threading.Thread(target=look_after, daemon=True).start()
print("ready", flush=True)
signal.pause()
