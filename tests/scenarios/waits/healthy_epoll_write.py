# SPDX-License-Identifier: MIT
# expect: none
"""Waits with epoll until there is room in a pipe, whose reader is at work."""
import os
import select
import time

reader, writer = os.pipe()
if os.fork() == 0:
    time.sleep(3600)
    os._exit(0)
os.close(reader)
os.set_blocking(writer, False)
try:
    while True:
        os.write(writer, bytes(4096))
except BlockingIOError:
    pass
epoll = select.epoll()
epoll.register(writer, select.EPOLLOUT)
print("ready", flush=True)
epoll.poll()
