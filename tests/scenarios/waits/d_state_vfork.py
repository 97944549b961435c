# SPDX-License-Identifier: MIT
# expect: d-state
# threads: start_child
# option: --set d-state.after=3s
# versions: 3.8-
"""A thread in uninterruptible sleep: posix_spawn() waits for a child that opens a FIFO before it executes."""
import os
import tempfile


def start_child(fifo):
    print("ready", flush=True)
    os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, fifo, os.O_RDONLY, 0)])


path = os.path.join(tempfile.mkdtemp(), "fifo")
os.mkfifo(path)
start_child(path)
