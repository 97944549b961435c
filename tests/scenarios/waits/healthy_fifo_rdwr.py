# SPDX-License-Identifier: MIT
# expect: none
"""Waits for commands from a FIFO that it has open in both directions, so that it never ends: anybody may write one."""
import os
import tempfile

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "commands")
    os.mkfifo(path)
    commands = os.open(path, os.O_RDWR)
    print("ready", flush=True)
    os.read(commands, 100)
