# SPDX-License-Identifier: MIT
# expect: none
"""The main thread reads a pipe of its own that a signal handler writes to."""
import os
import signal

reader, writer = os.pipe()
signal.signal(signal.SIGTERM, lambda *_: os.write(writer, b"x"))
print("ready", flush=True)
os.read(reader, 1)
