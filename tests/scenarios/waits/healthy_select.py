# SPDX-License-Identifier: MIT
# expect: none
"""A program asks for events of a connection by itself, as clients of databases do that wait for notifications."""
import select
import socket
import threading

answers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
answers.connect(("192.0.2.1", 5432))
ready = threading.Barrier(2)


def poll():
    events = select.poll()
    events.register(answers, select.POLLIN)
    ready.wait()
    while True:
        events.poll()


threading.Thread(target=poll, daemon=True).start()
ready.wait()
print("ready", flush=True)
while True:
    select.select([answers], [], [])
