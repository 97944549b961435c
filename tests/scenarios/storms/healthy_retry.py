# SPDX-License-Identifier: MIT
# expect: none
# Tries to connect again and again, and sleeps in the handler; another thread works.
import socket
import threading
import time


def connect():
    while True:
        try:
            socket.create_connection(("127.0.0.1", 1), 1)
        except OSError:
            time.sleep(0.01)


def work():
    total = 0
    while True:
        total = (total * 31 + 7) % 1000003


threading.Thread(target=connect).start()
threading.Thread(target=work).start()
print("ready")
