# SPDX-License-Identifier: MIT
"""Allocates in known places, so many bytes in each: prints "ready", works for each line of stdin, and then prints what
each line has taken, as the interpreter itself counts it."""
import json
import sys


class Small:
    __slots__ = ("a", "b", "c", "d")


FULL = dict.fromkeys(range(3000))
taken = {}


def note(name, one, times):
    taken[name] = taken.get(name, 0) + one * times


def arrays(times):
    for _ in range(times):
        x = bytearray(60000)
    note("arrays", sys.getsizeof(x), times)


def lists(times):
    for _ in range(times):
        x = [None] * 8000
    note("lists", sys.getsizeof(x), times)


def strings(times):
    n = 30000
    for _ in range(times):
        x = "x" * n
    note("strings", sys.getsizeof(x), times)


def dicts(times):
    for _ in range(times):
        x = FULL.copy()
    note("dicts", sys.getsizeof(x), times)


def small(times):
    for _ in range(times):
        x = Small()
    note("small", sys.getsizeof(x), times)


def work():
    arrays(200)
    lists(200)
    strings(250)
    dicts(60)
    small(100000)


print("ready", flush=True)
for line in sys.stdin:
    work()
    print("worked", flush=True)
print(json.dumps(taken), flush=True)
