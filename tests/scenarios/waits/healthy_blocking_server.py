# SPDX-License-Identifier: MIT
# expect: none
"""Threads in accept(), none of which has ever had a client."""
import socket
import threading


def accept(listener):
    while True:
        listener.accept()


listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(5)
threads = [threading.Thread(target=accept, args=(listener,)) for _ in range(3)]
for thread in threads:
    thread.start()
print("ready", flush=True)
for thread in threads:
    thread.join()
