# SPDX-License-Identifier: MIT
# expect: none
"""A pre-forking server: its arbiter selects on a pipe, its workers accept on one socket."""
import os
import select
import socket

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(5)
wake_r, wake_w = os.pipe()


def work():
    while True:
        select.select([listener], [], [], 1.0)


def arbitrate():
    while True:
        select.select([wake_r], [], [], 1.0)
        os.waitpid(-1, os.WNOHANG)


for _ in range(2):
    if os.fork() == 0:
        work()
print("ready", flush=True)
arbitrate()
