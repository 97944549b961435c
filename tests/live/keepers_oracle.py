# SPDX-License-Identifier: MIT
"""Runs inside the interpreter under test, from its stdin: keeps objects in different ways and tells the driver how.

Output: "start PID", then one line for each object: "NAME ADDRESS ROOTS LENGTH PATH", fields separated by tabs. ROOTS are
the words of enum keeper_root that may be said, separated by commas; LENGTH is that of the nearest container of 64 items
or more, 0 none; PATH may be several, separated by "|", or "*". Then "ready"; ends when fd 3 is closed.

KEEPERS_FILL_MB in the environment: makes the heap that large, for measuring."""

import atexit
import collections
import functools
import gc
import os

TOLD = []


class Item(object):
    def __init__(self, value=None):
        self.value = value


class Slotted(object):
    __slots__ = ("value",)


def tell(name, target, roots, length, path):
    TOLD.append("%s\t%x\t%s\t%d\t%s" % (name, id(target), roots, length, path))


class Registry(object):
    seen = {}


class Server(object):
    def __init__(self):
        self.queue = collections.deque()


def make_handler():
    seen = []

    def handle():
        return seen

    return handle, seen


def rows_of(n):
    rows = [Item(i) for i in range(n)]
    yield rows
    yield rows


@functools.lru_cache(maxsize=None)
def cached(x):
    return Item(x)


ITEMS = [Item(i) for i in range(5000)]
SMALL = [Slotted() for _ in range(70)]
UNIQUE = {Item(i) for i in range(3000)}
SERVERS = {"main": Server()}
handler, handled = make_handler()
HEAD = None
FAR = None
GENERATOR = rows_of(2000)
NESTED = {"a": {"b": [[Item(i)] for i in range(2000)]}}


def keep():
    global HEAD, FAR
    for i in range(3000):
        Registry.seen["key%d" % i] = Item(i)
        SERVERS["main"].queue.append(Item(i))
        handled.append(Item(i))
        cached(i)
    for _ in range(9):
        HEAD = Item(HEAD)
    for _ in range(40):
        FAR = Item(FAR)


def last_of(node):
    while node.value is not None:
        node = node.value
    return node


def leak_count():
    """An object that nobody refers to, with a count that says otherwise."""
    try:
        import ctypes
    except ImportError:
        return
    lost = Item()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(lost))
    tell("lost", lost, "unknown,stack,native", 0, "*")  # its address may stand where something was freed


def make_circle():
    a, b = Item(), Item()
    a.value, b.value = b, a
    tell("circle", a, "cycle", 0, "*")


def hold_natively():
    held = Item()
    atexit.register(len, [held])
    tell("held", held, "python,static,native", 0, "*")


def wipe(depth):
    """Writes over what calls have left on the native stack."""
    return sorted([depth], key=lambda n: wipe(n - 1) if n else 0)


keep()
del handled
gc.collect()
gc.disable()
tell("item of a list", ITEMS[2500], "python", 5000, "<stdin>.ITEMS[…]")
tell("first item of a list", ITEMS[0], "python", 5000, "<stdin>.ITEMS[…]")
tell("item of a short list", SMALL[3], "python", 70, "<stdin>.SMALL[3]|<stdin>.SMALL[…]")
tell("item of a set", next(iter(UNIQUE)), "python", 3000, "<stdin>.UNIQUE[…]")
tell("value in a class attribute", Registry.seen["key1234"], "python", 3000, "<stdin>.Registry.seen[…]")
tell("item of a deque", SERVERS["main"].queue[1500], "python", 3000, "<stdin>.SERVERS['main'].queue[…]")
tell("item of a closure's list", handler()[1000], "python", 3000, "<stdin>.handler.<closure>.seen[…]")
tell("end of a chain", last_of(HEAD), "python", 0, "<stdin>.HEAD" + ".value" * 8)
tell("end of a long chain", last_of(FAR), "python", 0, "<stdin>.FAR" + ".value" * 39)
tell("local of a generator", next(GENERATOR)[1000], "python", 2000, "<stdin>.GENERATOR.<locals>.rows[…]")
tell("cached result", cached(1000), "python", 3000, "<stdin>.cached.<cache>[…]")
tell("deep", NESTED["a"]["b"][7][0], "python", 2000, "<stdin>.NESTED['a']['b'][…][0]")
leak_count()
make_circle()
hold_natively()
FILL = [Item(str(i) * 3) for i in range(int(os.environ.get("KEEPERS_FILL_MB", "0")) * 5000)]
wipe(50)
os.write(1, ("\n".join(["start %d" % os.getpid()] + TOLD + ["ready"]) + "\n").encode("utf-8"))
os.read(3, 1)
