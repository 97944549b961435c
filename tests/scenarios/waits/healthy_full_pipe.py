# SPDX-License-Identifier: MIT
# expect: none
"""A producer waits most of the time, since the pipe is full: the consumer is slow."""
import os
import time

reader, writer = os.pipe()
if os.fork() == 0:
    os.close(writer)
    while os.read(reader, 8192):
        time.sleep(0.5)
    os._exit(0)
os.close(reader)
print("ready", flush=True)
while True:
    os.write(writer, b"x" * 65536)
