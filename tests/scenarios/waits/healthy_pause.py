# SPDX-License-Identifier: MIT
# expect: none
"""signal.pause()"""
import signal

signal.signal(signal.SIGHUP, lambda number, frame: None)
print("ready", flush=True)
signal.pause()
