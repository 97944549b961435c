# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: greet_second, greet_second
# option: --children
# certainty: proven
"""Two processes at the ends of a socketpair, both polite: each waits for the other's greeting."""
import os
import socket

ours, theirs = socket.socketpair()


def greet_second(end):
    end.recv(100)
    end.send(b"hello")


if os.fork() == 0:
    ours.close()
    greet_second(theirs)
else:
    theirs.close()
    print("ready", flush=True)
    greet_second(ours)
