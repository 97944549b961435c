# SPDX-License-Identifier: MIT
# expect: none
"""Polls 300 pipes that only it could write to, and last a socket whose other side is a process that is alive."""
import os
import select
import socket
import time

pipes = [os.pipe() for _ in range(300)]
ours, theirs = socket.socketpair()
if os.fork() == 0:
    os.closerange(pipes[0][0], pipes[-1][1] + 1)
    time.sleep(3600)
    os._exit(0)
theirs.close()
poll = select.poll()
for reader, _ in pipes:
    poll.register(reader, select.POLLIN)
poll.register(ours, select.POLLIN)
print("ready", flush=True)
poll.poll()
