# SPDX-License-Identifier: MIT
# expect: none
"""Servers of datagrams: nobody is at the other end until somebody sends."""
import os
import socket
import tempfile
import threading

ready = threading.Barrier(2)


def serve(server):
    ready.wait()
    while True:
        server.recvfrom(512)


folder = tempfile.mkdtemp()
unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
unix.bind(os.path.join(folder, "log"))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))
threading.Thread(target=serve, args=(unix,), daemon=True).start()
ready.wait()
print("ready", flush=True)
udp.recvfrom(512)
