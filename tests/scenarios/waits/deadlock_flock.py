# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: move, move
# option: --children
# certainty: proven
"""Two processes flock() two files in opposite order."""
import fcntl
import os
import socket
import tempfile

ours, theirs = socket.socketpair()
folder = tempfile.mkdtemp()
inbox, outbox = os.path.join(folder, "inbox"), os.path.join(folder, "outbox")
for path in (inbox, outbox):
    open(path, "w").close()


def move(source, target, other):
    with open(source) as first, open(target) as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        other.send(b".")
        other.recv(1)
        if other is ours:
            print("ready", flush=True)
        fcntl.flock(second, fcntl.LOCK_EX)


if os.fork() == 0:
    ours.close()
    move(outbox, inbox, theirs)
else:
    theirs.close()
    move(inbox, outbox, ours)
