# SPDX-License-Identifier: MIT
# expect: hang
# also: stopped
# threads: ask
# option: --children --hang-after 3
"""recv() from a process that was stopped, in a recv() of its own for which there is data."""
import os
import signal
import socket

ours, theirs = socket.socketpair()


def serve():
    while True:
        theirs.send(theirs.recv(1))


def ask():
    ours.send(b"?")
    print("ready", flush=True)
    return ours.recv(1)


child = os.fork()
if child == 0:
    ours.close()
    serve()
theirs.close()
ours.send(b"!")
ours.recv(1)
os.kill(child, signal.SIGSTOP)
os.waitpid(child, os.WUNTRACED)
ask()
