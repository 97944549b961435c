# SPDX-License-Identifier: MIT
"""Puts threads into functions that name objects and call acquire() in every way, and says what is true of each.

Runs on Python 3.6 and later, from its standard input. Each function runs some hundred times before, so that its
instructions are the specialised ones. Writes one line for each check, then "ready", and waits until descriptor 3 is
closed. names_driver.c reads the lines and checks them in this process's memory:

    start PID
    name IDENT FUNCTION ADDRESS EXPRESSION|-      py_name_find in the thread's frame of that name
    acquired IDENT FUNCTION ITEM…                 py_acquired_read there; ITEM is EXPRESSION:ADDRESS:LINE:TIMED
"""

import _thread
import os
import queue
import sys
import threading
import types

WARM = 200

real = False  # whether functions tell and block, or only run
keep = []
lines = []
gate = _thread.allocate_lock()  # never released
gate.acquire()
started = queue.Queue()

LOCK = OTHER_LOCK = None
LOCKS = {}
CONFIG = types.SimpleNamespace()
holder = types.ModuleType("holder")
HIDDEN = []


def fresh():
    return threading.Lock()


def renew():
    """Other locks for each run: those of the one before are taken."""
    global LOCK, OTHER_LOCK
    LOCK, OTHER_LOCK = fresh(), fresh()
    LOCKS.update(x=fresh())
    CONFIG.lock = fresh()
    holder.LOCK = fresh()
    Account.shared = fresh()


def acquired(*items):
    """The caller has these behind it, each (expression, object, lines after the function's first, arguments)."""
    if not real:
        return
    frame = sys._getframe(1)
    first = frame.f_code.co_firstlineno
    texts = ["%s:%x:%d:%d" % (text, id(thing) if thing else 0, first + line, timed) for text, thing, line, timed in items]
    keep.extend(thing for _, thing, _, _ in items)
    lines.append(" ".join(["acquired", "%x" % threading.get_ident(), frame.f_code.co_name] + texts))


def named(*pairs):
    if not real:
        return
    frame = sys._getframe(1)
    for thing, text in pairs:
        keep.append(thing)
        lines.append("name %x %s %x %s" % (threading.get_ident(), frame.f_code.co_name, id(thing), text))


def park():
    if real:
        started.put(None)
        gate.acquire()


def blocker():
    """A lock to block at."""
    if real:
        started.put(None)
        return gate
    return fresh()


class Account:
    shared = None

    def __init__(self):
        self.balance = 12
        self.guard = fresh()
        self.locks = [fresh(), fresh()]

    def by_self(self):
        self.guard.acquire(True)
        self.shared.acquire()
        acquired(("self.guard", self.guard, 1, 1), ("self.shared", self.shared, 2, 0))
        park()

    def names_of_self(self, dst, guard):
        named((self.guard, "self.guard"), (dst.guard, "dst.guard"), (guard, "guard"), (self, "self"),
              (self.shared, "self.shared"), (self.locks[1], "self.locks[1]"), (dst.locks[0], "-"),
              (self.locks, "self.locks"))
        park()


class Bank:
    def __init__(self):
        self.account = Account()
        self.by_key = {"k": fresh()}

    def names_behind_self(self):
        named((self.account.guard, "self.account.guard"), (self.by_key["k"], "self.by_key['k']"))
        park()


def plain():
    a = fresh()
    a.acquire()
    acquired(("a", a, 2, 0))
    park()


def nothing():
    a = fresh()
    acquired()
    park()
    a.acquire()


def globals_():
    LOCK.acquire(timeout=5)
    CONFIG.lock.acquire()
    holder.LOCK.acquire(False)
    acquired(("LOCK", LOCK, 1, 1), ("CONFIG.lock", CONFIG.lock, 2, 0), ("holder.LOCK", holder.LOCK, 3, 1))
    park()


def cells():
    a, b = fresh(), fresh()

    def inner():
        a.acquire()
        acquired(("a", a, 1, 0))
        named((a, "a"), (b, "b"))
        park()

    b.acquire()
    inner()
    return lambda: b


def outer_of_cells():
    a, b = fresh(), fresh()
    a.acquire()
    b.acquire()
    acquired(("a", a, 2, 0), ("b", b, 3, 0))
    named((a, "a"), (b, "b"))
    park()
    return lambda: (a, b)


def released():
    a, b = fresh(), fresh()
    a.acquire()
    b.acquire()
    a.release()
    acquired(("b", b, 3, 0))
    park()


def twice():
    a = threading.RLock()
    a.acquire()
    a.acquire(blocking=True)
    a.release()
    acquired(("a", a, 2, 0))
    park()


def returns_early(again=None):
    a = fresh()
    a.acquire()
    try:
        if again:
            return None
        acquired(("a", a, 2, 0))
        park()
    finally:
        a.release()


def in_handler():
    a, b = fresh(), fresh()
    a.acquire()
    try:
        if not b:
            a.release()
        raise KeyError
    except KeyError:
        acquired(("a", a, 2, 0))
        park()


def in_finally():
    a = fresh()
    a.acquire()
    try:
        raise_key_error(None)
    finally:
        acquired(("a", a, 2, 0))
        park()


def raise_key_error(a):
    return a


def nested_calls():
    a, b, c = fresh(), fresh(), fresh()
    a.acquire(b.acquire())
    raise_key_error(c.acquire())
    acquired(("b", b, 2, 0), ("a", a, 2, 1), ("c", c, 3, 0))
    park()


def pairs():
    a, b = fresh(), fresh()
    max(a.locked(), b.acquire(), a.acquire())
    acquired(("b", b, 2, 0), ("a", a, 2, 0))
    park()


def not_calls():
    a, b = fresh(), fresh()
    method = a.acquire
    method()
    raise_key_error(b.acquire)
    held = [b.acquire, b.release]
    acquired()
    park()
    return held


def unpacked():
    a, b, c, x = fresh(), fresh(), fresh(), 1
    a.acquire(*[True])
    b.acquire(**{"timeout": 3})
    c.acquire(True if x else False)
    acquired(("a", a, 2, 1), ("b", b, 3, 1), ("c", c, 4, 1))
    park()


def on_one_way(x=None):
    a, b, c = fresh(), fresh(), fresh()
    if x:
        a.acquire()
    if not b.acquire(False):
        return
    if x:
        c.acquire()
    else:
        c.acquire()
        c.release()
    acquired(("b", b, 4, 1))
    park()


def tries_again():
    a = fresh()
    while not a.acquire(timeout=1):
        raise_key_error(a)
    acquired(("a", a, 2, 1))
    park()


def in_loop():
    for a in (fresh(),):
        a.acquire()
        acquired(("a", a, 2, 0))
        park()


def in_acquire():
    a, b = fresh(), blocker()
    a.acquire()
    acquired(("a", a, 2, 0))
    b.acquire()


def assigned_since():
    a = fresh()
    a.acquire()
    a = fresh()
    a.acquire()
    acquired(("a", None, 2, 0), ("a", a, 4, 0))
    park()


def in_with():
    a, b = fresh(), fresh()
    with a:
        b.acquire()
        acquired(("b", b, 3, 0))
        park()


def after_with():
    a, b = fresh(), fresh()
    b.acquire()
    with a:
        raise_key_error(b)
    acquired(("b", b, 2, 0))
    park()


def generator():
    a = fresh()
    a.acquire()
    yield 1
    acquired(("a", a, 2, 0))
    park()


def runs_generator():
    for _ in generator():
        pass


class Awaited:
    def __init__(self, blocks):
        self.blocks = blocks

    async def acquire(self):
        if self.blocks:
            park()

    def release(self):
        pass


async def awaits():
    a, b = Awaited(False), Awaited(True)
    await a.acquire()
    acquired(("a", a, 2, 0))
    await b.acquire()


async def awaited():
    a = Awaited(False)
    await a.acquire()
    acquired(("a", a, 2, 0))
    park()


def run(coroutine):
    try:
        coroutine.send(None)
    except StopIteration:
        pass


def runs_awaits():
    run(awaits())


def runs_awaited():
    run(awaited())


MODULE = """OTHER_LOCK.acquire()
acquired(("OTHER_LOCK", OTHER_LOCK, 0, 0))
named((OTHER_LOCK, "OTHER_LOCK"), (LOCKS["x"], "LOCKS['x']"), (CONFIG.lock, "CONFIG.lock"))
park()
"""


def module():
    exec(compile(MODULE, "module", "exec"), dict(globals()))


def class_body():
    class Body:
        inside = fresh()
        inside.acquire()
        acquired(("inside", inside, 2, 0))
        park()


def make_big():
    """More names and variables than one byte counts; jumps that are far."""
    body = ["def big():", " if not LOCK: pass"]
    for n in range(300):
        body.append(" v%d = fresh.__call__; fresh.a%d = v%d" % (n % 200, n, n % 200))
    body += [" v199 = CONFIG", " v199.far = v0()", " v199.far.acquire()", " try:", "  if not v1:"]
    body += ["   v%d.b = 1" % (n % 200) for n in range(300)]
    body += ["   v199.far.release()", "   return", "  acquired(('v199.far', v199.far, 304, 0))",
             "  named((v199.far, 'v199.far'))", "  park()", " finally:", "  v199.far.release()"]
    exec("\n".join(body), globals())


def hidden():
    return HIDDEN[0]


def names(guard, *more):
    pair, listed = (fresh(), fresh()), [fresh() for _ in range(70)]
    by_key, numbered = {"a": fresh(), "b": fresh()}, {7: fresh()}
    account = Account()
    account.__dict__["extra"] = fresh()
    named((guard, "guard"), (more, "more"), (pair[1], "pair[1]"), (listed[3], "listed[3]"), (listed[69], "-"),
          (by_key["b"], "by_key['b']"), (numbered[7], "numbered[7]"), (account.guard, "account.guard"),
          (account.extra, "account.extra"), (more[0], "more[0]"), (hidden(), "-"))
    park()


def names_of_globals():
    named((LOCK, "LOCK"), (CONFIG.lock, "CONFIG.lock"), (holder.LOCK, "holder.LOCK"), (LOCKS["x"], "LOCKS['x']"),
          (Account.shared, "Account.shared"))
    park()


def names_unset():
    if real:
        guard = fresh()
        other = guard
        del guard
        named((other, "other"))
    park()


FUNCTIONS = [
    plain, nothing, globals_, cells, outer_of_cells, released, twice, returns_early, in_handler, in_finally,
    nested_calls, pairs, not_calls, unpacked, on_one_way, tries_again, in_loop, in_acquire, assigned_since, in_with,
    after_with, runs_generator, runs_awaits, runs_awaited, module, class_body, names_of_globals, names_unset,
    lambda: Account().by_self(),
    lambda: Account().names_of_self(Account(), fresh()),
    lambda: Bank().names_behind_self(),
    lambda: names(fresh(), fresh()),
    lambda: big(),
]


def main():
    global real
    HIDDEN.append(fresh())
    make_big()
    for function in FUNCTIONS:
        for _ in range(WARM):
            renew()
            function()
    renew()
    real = True
    for function in FUNCTIONS:
        _thread.start_new_thread(function, ())
        started.get()
    sys.stdout.write("start %d\n" % os.getpid() + "\n".join(lines) + "\nready\n")
    sys.stdout.flush()
    os.read(3, 1)
    os._exit(0)


main()
