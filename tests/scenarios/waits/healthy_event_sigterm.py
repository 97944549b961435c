# SPDX-License-Identifier: MIT
# expect: none
"""The main thread waits for an Event that the handler of SIGTERM sets."""
import signal
import threading

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
print("ready", flush=True)
stop.wait()
