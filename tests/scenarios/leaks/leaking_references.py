# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: Packet +
"""An extension takes a reference to each packet and never gives it back: nothing in Python holds them."""
import ctypes
import time

keep = ctypes.pythonapi.Py_IncRef
keep.argtypes = [ctypes.py_object]
keep.restype = None


class Packet:
    __slots__ = ("number", "payload")

    def __init__(self, number):
        self.number = number
        self.payload = b"%d" % number + bytes(1000)


print("ready", flush=True)
for step in range(13000):
    for number in range(25):
        keep(Packet(step * 25 + number))
    time.sleep(0.01)
time.sleep(3600)
