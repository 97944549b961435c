# SPDX-License-Identifier: MIT
# expect: handle-leak
# certainty: inferred
# says: socket
"""A pool that hands out a new connection each time, and forgets none."""
import socket
import time

backends = []
pool = {}


def connect(number):
    connection, backend = socket.socketpair()
    backends.append(backend)
    pool["request-%d" % number] = connection
    return connection


print("ready", flush=True)
for number in range(3000):
    connect(number).sendall(b"hello")
    time.sleep(0.05)
time.sleep(3600)
