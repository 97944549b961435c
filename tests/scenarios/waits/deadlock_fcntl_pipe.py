# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: update, notify
# option: --children
# certainty: proven
"""One process waits, with a record lock, for a pipe that the other one writes to after it got that lock."""
import fcntl
import os
import tempfile

done_r, done_w = os.pipe()
locked_r, locked_w = os.pipe()
table = tempfile.TemporaryFile()


def update():
    os.close(done_w)
    fcntl.lockf(table, fcntl.LOCK_EX)
    os.write(locked_w, b".")
    print("ready", flush=True)
    os.read(done_r, 1)


def notify():
    os.close(done_r)
    os.read(locked_r, 1)
    fcntl.lockf(table, fcntl.LOCK_EX)
    os.write(done_w, b".")


if os.fork() == 0:
    notify()
else:
    update()
