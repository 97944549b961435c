# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: Span
# versions: 3.7-
"""Spans are added to the list in a context variable, and the context is that of the whole program."""
import contextvars
import time


class Span:
    __slots__ = ("number", "text")

    def __init__(self, number):
        self.number = number
        self.text = "span %d" % number


trace = contextvars.ContextVar("trace")
trace.set([])
print("ready", flush=True)
for step in range(13000):
    for number in range(180):
        trace.get().append(Span(step * 180 + number))
    time.sleep(0.01)
time.sleep(3600)
