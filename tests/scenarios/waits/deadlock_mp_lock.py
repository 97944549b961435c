# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: swap, swap
# option: --children
# needs: semaphores
"""Two processes take two multiprocessing locks in opposite order."""
import multiprocessing
import socket

context = multiprocessing.get_context("fork")
ours, theirs = socket.socketpair()


def swap(first, second, other, is_child):
    with first:
        other.send(b".")
        other.recv(1)
        if not is_child:
            print("ready", flush=True)
        with second:
            pass


left, right = context.Lock(), context.Lock()
context.Process(target=swap, args=(right, left, theirs, True), daemon=True).start()
swap(left, right, ours, False)
