# SPDX-License-Identifier: MIT
# expect: none
"""Selects on a pipe that only it could write to, and on urgent data from a process that is alive."""
import os
import select
import socket
import time

server = socket.create_server(("127.0.0.1", 0))
ours = socket.create_connection(server.getsockname())
theirs, _ = server.accept()
if os.fork() == 0:
    time.sleep(3600)
    os._exit(0)
theirs.close()
reader, writer = os.pipe()
print("ready", flush=True)
select.select([reader], [], [ours])
