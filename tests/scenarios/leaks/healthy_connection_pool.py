# SPDX-License-Identifier: MIT
# expect: none
"""A pool of forty connections that opens them when they are needed, and then hands out those that it has."""
import socket
import time

SIZE = 40
pool, backends = [], []


def borrow(number):
    if len(pool) < SIZE:
        connection, backend = socket.socketpair()
        pool.append((connection, bytearray(256 * 1024)))
        backends.append(backend)
        time.sleep(0.1)
    return number % len(pool)


print("ready", flush=True)
number = 0
while True:
    number += 1
    chosen = borrow(number)
    connection, buffer = pool[chosen]
    backends[chosen].send(b"hello")
    connection.recv_into(buffer)
    time.sleep(0.02)
