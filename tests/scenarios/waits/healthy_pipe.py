# SPDX-License-Identifier: MIT
# expect: none
"""Reads a pipe whose other end, in a child, writes every three seconds."""
import os
import time

reader, writer = os.pipe()
if os.fork() == 0:
    os.close(reader)
    while True:
        time.sleep(3)
        os.write(writer, b".")
os.close(writer)
print("ready", flush=True)
while os.read(reader, 1):
    pass
