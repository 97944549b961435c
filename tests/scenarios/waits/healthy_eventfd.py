# SPDX-License-Identifier: MIT
# expect: none
# versions: 3.10-
"""A loop in C, like those of Qt and GLib: poll() on the descriptor by which other threads, or timers, wake it."""
import ctypes
import os


class PollFd(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


wake = PollFd(os.eventfd(0), 1, 0)
print("ready", flush=True)
ctypes.CDLL(None).poll(ctypes.byref(wake), 1, -1)
