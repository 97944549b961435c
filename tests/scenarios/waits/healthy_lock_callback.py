# SPDX-License-Identifier: MIT
# expect: none
# needs: ctypes
"""A lock used as a signal, released by a callback of C code, in a thread that is there only for the call."""
import ctypes
import threading

SIGEV_THREAD = 2
turn = threading.Lock()
callback_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class sigevent(ctypes.Structure):
    _fields_ = [("value", ctypes.c_void_p), ("signo", ctypes.c_int), ("notify", ctypes.c_int),
                ("function", callback_type), ("attribute", ctypes.c_void_p), ("padding", ctypes.c_char * 32)]


class itimerspec(ctypes.Structure):
    _fields_ = [("interval_s", ctypes.c_long), ("interval_ns", ctypes.c_long),
                ("value_s", ctypes.c_long), ("value_ns", ctypes.c_long)]


def timers():
    """The library that has timer_create: the C library, or librt where that is a library of its own."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "timer_create") else ctypes.CDLL("librt.so.1")


release = callback_type(lambda _: turn.release())
event = sigevent(notify=SIGEV_THREAD, function=release)
timer = ctypes.c_void_p()
turn.acquire()
if timers().timer_create(1, ctypes.byref(event), ctypes.byref(timer)):
    raise SystemExit("no timer")
timers().timer_settime(timer, 0, ctypes.byref(itimerspec(2, 0, 2, 0)), None)
print("ready", flush=True)
while True:
    turn.acquire()
