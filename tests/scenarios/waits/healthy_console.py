# SPDX-License-Identifier: MIT
# expect: none
# needs: pty
"""A console that waits for a line, on a terminal whose other end waits for what it prints and for its own input."""
import os
import pty
import select


def console():
    while True:
        input("> ")


def terminal(master):
    while True:
        select.select([master, 0], [], [])
        os.read(master, 1000)


child, master = pty.fork()
if child == 0:
    console()
os.read(master, 100)
print("ready", flush=True)
terminal(master)
