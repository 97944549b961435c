# SPDX-License-Identifier: MIT
# expect: handle-leak
# certainty: inferred
# says: CLOSE_WAIT|CLOSE-WAIT
"""Clients hang up, and the server does not close its ends."""
import socket
import time

server = socket.socket()
server.bind(("127.0.0.1", 0))
server.listen(16)
connections = []


def handle_client():
    client = socket.create_connection(server.getsockname())
    connection, _ = server.accept()
    client.sendall(b"hello")
    connection.recv(100)
    client.close()
    connections.append(connection)


print("ready", flush=True)
for _ in range(5000):
    handle_client()
    time.sleep(0.04)
time.sleep(3600)
