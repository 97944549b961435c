# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: serve, request
# option: --children
# certainty: proven
"""A server and its client over TCP on this host, each of which waits for the other to speak."""
import os
import socket

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(1)


def serve():
    connection, _ = listener.accept()
    listener.close()
    print("ready", flush=True)
    connection.recv(100)


def request():
    address = listener.getsockname()
    listener.close()
    client = socket.create_connection(address)
    client.recv(100)


if os.fork() == 0:
    request()
else:
    serve()
