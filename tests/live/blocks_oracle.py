# SPDX-License-Identifier: MIT
"""Puts threads, generators and coroutines inside `with` blocks of every shape and says which ones each frame is in.

Runs on Python 3.6 and later, from its standard input. Writes one line for each check, then "ready", and waits until
descriptor 3 is closed. blocks_driver.c reads the lines and checks them in this process's memory. Addresses are hex, a
manager that was entered by `async with` has an "a" before it, outermost first:

    start PID
    frame IDENT NAME MANAGER…             the blocks of the thread's function of that name
    gen ADDRESS STATE AWAITED MANAGER…    py_gen_read, and the blocks of its frame; AWAITED 0: nothing
    call ADDRESS SELF NAME                py_callable_read
"""

import _thread
import asyncio
import collections
import contextlib
import functools
import os
import queue
import sys
import tempfile
import threading

keep = []  # everything whose address was told
lines = []
gate = _thread.allocate_lock()  # never released
gate.acquire()
started = queue.Queue()


def addresses(held):
    keep.extend(held)
    return ["a%x" % id(m[0]) if type(m) is tuple else "%x" % id(m) for m in held]


def mark(*held):
    """The caller's blocks, now and from here on."""
    name = sys._getframe(1).f_code.co_name
    lines.append(" ".join(["frame", "%x" % threading.get_ident(), name] + addresses(held)))


def park():
    started.put(None)
    gate.acquire()


# Managers

class Plain:
    def __enter__(self):
        return self

    def __exit__(self, *exc):
        return True


class Alias:
    def __enter__(self):
        return self

    def release(self, *exc):
        return True

    __exit__ = release


class Slow:
    """Blocks on the way in, or on the way out."""

    def __init__(self, where):
        self.where = where

    def __enter__(self):
        if self.where == "in":
            park()
        return self

    def __exit__(self, *exc):
        park()


class AsyncPlain:
    def __init__(self, waits_in=None, waits_out=None):
        self.waits = waits_in, waits_out

    async def __aenter__(self):
        if self.waits[0]:
            await self.waits[0]

    async def __aexit__(self, *exc):
        if self.waits[1]:
            await self.waits[1]


class Bound:
    """What the class gives out as its exit is bound already."""

    def __init__(self, other):
        self.other = other

    def __enter__(self):
        pass

    @property
    def __exit__(self):
        return self.other.__exit__


def lock():
    return threading.Lock()


# Functions that block within blocks

def one_lock():
    a = lock()
    with a:
        mark(a)
        park()


def nested():
    a, b, c, d = lock(), threading.RLock(), threading.Condition(), threading.Semaphore()
    with a, b:
        with c:
            with d:
                mark(a, b, c, d)
                park()


def calls_on():
    a, b = lock(), lock()
    with a:
        mark(a)
        called_without(b)


def called_without(b):
    mark()
    called_within(b)


def called_within(b):
    with b:
        mark(b)
        park()


def files():
    a = lock()
    with open(os.devnull) as f, a, tempfile.TemporaryFile() as t, contextlib.ExitStack() as stack:
        stack.enter_context(lock())
        mark(f, a, t, stack)
        park()


def in_loop():
    a, b = lock(), Plain()
    with a:
        for _ in range(3):
            for _ in iter([1]):
                with b:
                    while True:
                        with Plain() as c:
                            mark(a, b, c)
                            park()


def in_try():
    a, b, c = lock(), lock(), Plain()
    try:
        with a:
            try:
                with b:
                    try:
                        raise ValueError
                    except ValueError as e:
                        with c:
                            try:
                                keep.append(e)
                            finally:
                                mark(a, b, c)
                                park()
            finally:
                keep.append(1)
    finally:
        keep.append(1)


def in_finally():
    a, b = lock(), lock()
    with a:
        try:
            raise KeyError
        finally:
            with b:
                mark(a, b)
                park()


def in_else():
    a, b = lock(), lock()
    with a:
        for _ in ():
            pass
        else:
            try:
                keep.append(2)
            except KeyError:
                pass
            else:
                with b:
                    mark(a, b)
                    park()


def after_one():
    a, b, c = lock(), lock(), lock()
    with a:
        with b:
            keep.append(3)
        with c:
            pass
        mark(a)
        park()


def after_all():
    with lock():
        with lock():
            pass
    mark()
    park()


def after_exception():
    a = lock()
    with a:
        with Plain():
            raise ValueError
        with contextlib.suppress(KeyError):
            {}[1]
        mark(a)
        park()


def after_break():
    a = lock()
    for _ in range(3):
        with lock():
            with a:
                break
    mark()
    park()


def entering_lock():
    a, b = lock(), lock()
    b.acquire()
    keep.append(b)
    with a:
        mark(a)
        started.put(None)
        with b:
            pass


def entering_python():
    a = lock()
    with a:
        mark(a)
        with Slow("in"):
            pass


def entering_in_try():
    a = lock()
    with a:
        mark(a)
        try:
            with Slow("in"):
                pass
        finally:
            del a


def leaving():
    a = lock()
    with a:
        mark(a)
        with Slow("out"):
            pass


def leaving_with_exception():
    a = lock()
    with a:
        mark(a)
        with Slow("out"):
            raise ValueError


def leaving_by_return():
    a = lock()
    with a:
        for _ in range(2):
            with Slow("out"):
                mark(a)
                return 1


def aliases():
    a, b = Alias(), lock()
    with a:
        with Bound(b):
            with a:
                mark(a, b, a)
                park()


def not_blocks():
    mark()
    park_with(lock().__exit__, Plain().__exit__, [park() for _ in range(1)])


def park_with(*args):
    pass


def within_comprehension():
    a = lock()
    with a:
        mark(a)
        return [park() for x in range(1)]


def handles():
    a = lock()
    with a:
        try:
            raise KeyError
        except (ValueError, KeyError):
            try:
                raise ValueError
            except ValueError as e:
                mark(a)
                park()
                keep.append(e)


def deep():
    a, b, c, d, e, f, g, h = [lock() for _ in range(8)]
    with a, b, c, d:
        for _ in range(1):
            with e, f:
                for _ in range(1):
                    with g, h:
                        mark(a, b, c, d, e, f, g, h)
                        park()


def make_big():
    """A body so long that numbers in the table have several digits."""
    body = "".join("    keep.append((a, %d)); keep.pop()\n" % i for i in range(3000))
    exec("def big():\n a = lock()\n b = lock()\n%s with a:\n%s  with b:\n%s   mark(a, b)\n   park()\n%s" %
         (body.replace("    ", " "), body.replace("    ", "  "), body.replace("    ", "   "),
          body.replace("    ", "   ")), globals())


def tell_frame_of_generator():
    a, b = lock(), lock()
    with a:
        mark(a)
        next(running_generator(b))


def running_generator(b):
    with b:
        mark(b)
        park()
        yield


def runs_coroutine():
    mark()
    a, b = AsyncPlain(), lock()
    run(runs_within(a, b))


async def runs_within(a, b):
    async with a:
        with b:
            async with AsyncPlain() as _:
                keep.append(4)
            mark((a,), b)
            await parks_within(AsyncPlain())


async def parks_within(a):
    async with a, a:
        mark((a,), (a,))
        park()


def run(coroutine):
    coroutine.send(None)


# What nobody runs

def told(thing, state, awaited, *held):
    keep.extend((thing, awaited))
    lines.append(" ".join(["gen", "%x" % id(thing), state, "%x" % id(awaited) if awaited is not None else "0"] +
                          addresses(held)))


@contextlib.contextmanager
def managed(a):
    with a:
        yield a


def holding(a, b):
    with a:
        for i in range(9):
            with b:
                yield i
        yield 10


def delegating(inner, a):
    with a:
        yield from inner


def generators():
    a, b = lock(), threading.Condition()
    g = holding(a, b)
    told(g, "created", None)
    g = holding(a, b)
    next(g)
    told(g, "suspended", None, a, b)
    outer = delegating(g, Plain())
    told(outer, "created", None)
    made = Plain()
    outer = delegating(g, made)
    next(outer)
    told(outer, "suspended", g, made)
    done = holding(lock(), Plain())
    list(done)
    told(done, "done", None)
    left = holding(Plain(), Plain())
    for _ in range(10):
        next(left)
    told(left, "suspended", None, left.gi_frame.f_locals["a"])
    over_list = delegating([1, 2], made)
    next(over_list)
    told(over_list, "suspended", over_list.gi_yieldfrom, made)
    manager = managed(made)
    manager.__enter__()
    told(manager.gen, "suspended", None, made)
    thrown = holding(Plain(), Plain())
    next(thrown)
    thrown.throw(ValueError)  # the inner one takes it; the loop goes on
    told(thrown, "suspended", None, thrown.gi_frame.f_locals["a"], thrown.gi_frame.f_locals["b"])
    told((x for x in ()), "created", None)
    expression = (x for x in range(3))
    next(expression)
    told(expression, "suspended", None)


def tells_itself():
    told(running[0], "running", None)
    gate.acquire()
    yield


running = [tells_itself()]


class Awaitable:
    def __init__(self, wrapped):
        self.wrapped = wrapped

    def __await__(self):
        return self.wrapped.__await__()


class Generated:
    def __await__(self):
        yield self


async def waits_plain(thing):
    return await thing


async def two(a, b, thing):
    async with a:
        async with b:
            await thing


async def ends_exceptionally(a, b):
    async with a:
        async with b:
            raise ValueError


async def async_numbers(thing, a):
    async with a:
        yield 1
        await thing
        yield 2


async def over(numbers, a):
    async with a:
        async for _ in numbers:
            pass


def coroutines():
    loop = asyncio.new_event_loop()
    keep.append(loop)
    a, b = AsyncPlain(), AsyncPlain()
    told(waits_plain(Generated()), "created", None)
    c = waits_plain(Generated())
    run(c)
    told(c, "suspended", c.cr_await)

    def future():
        return asyncio.Future(loop=loop)

    c = two(a, b, future())
    run(c)
    told(c, "suspended", c.cr_await, (a,), (b,))
    inner = waits_plain(future())
    c = two(a, b, inner)
    run(c)
    told(c, "suspended", inner, (a,), (b,))
    told(inner, "suspended", inner.cr_await)
    inner = waits_plain(future())
    c = two(a, b, Awaitable(inner))  # a coroutine_wrapper
    run(c)
    told(c, "suspended", inner, (a,), (b,))
    entering = two(a, AsyncPlain(waits_in=Generated()), future())
    run(entering)
    told(entering, "suspended", entering.cr_await, (a,))
    entering = two(AsyncPlain(waits_in=Generated()), a, future())
    run(entering)
    told(entering, "suspended", entering.cr_await)
    leaving = two(a, AsyncPlain(waits_out=Generated()), Awaitable(finished()))
    run(leaving)
    told(leaving, "suspended", leaving.cr_await, (a,))
    leaving = ends_exceptionally(a, AsyncPlain(waits_out=Generated()))
    run(leaving)
    told(leaving, "suspended", leaving.cr_await, (a,))
    c = finished()
    with contextlib.suppress(StopIteration):
        run(c)
    told(c, "done", None)
    told(async_numbers(Generated(), a), "created", None)
    numbers = async_numbers(Generated(), a)
    c = over(numbers, b)
    run(c)
    told(c, "suspended", numbers, (b,))
    told(numbers, "suspended", numbers.ag_await, (a,))
    numbers = ends_slowly()
    c = closes(numbers)
    run(c)
    told(c, "suspended", numbers)
    told(numbers, "suspended", numbers.ag_await)
    stopped = async_numbers(Generated(), a)
    with contextlib.suppress(StopIteration):
        stopped.__anext__().send(None)
    told(stopped, "suspended", None, (a,))


async def finished():
    pass


async def ends_slowly():
    try:
        yield 1
    finally:
        await Generated()


async def closes(numbers):
    async for _ in numbers:
        await numbers.aclose()


# Callables

def callables():
    def tell(thing, owner, name):
        keep.extend((thing, owner))
        lines.append("call %x %x %s" % (id(thing), id(owner) if owner is not None else 0, name))

    a, p, d = lock(), Plain(), collections.deque()
    tell(a.__exit__, a, "__exit__")
    tell(a.acquire, a, "acquire")
    tell(p.__exit__, p, "__exit__")
    alias = Alias()
    tell(alias.__exit__, alias, "release")
    tell(d.append, d, "append")
    tell(tell, None, "tell")
    tell(type(a).__exit__, None, "__exit__")
    tell(len, sys.modules["builtins"], "len")
    tell(functools.partial(p.__exit__, 1), p, "__exit__")
    tell(functools.partial(d.append, 1), d, "append")
    tell(functools.partial(functools.partial(tell, 1), 2), None, "tell")
    tell(threading.Condition(a).acquire, a, "acquire")


def main():
    functions = [one_lock, nested, calls_on, files, in_loop, in_try, in_finally, in_else, after_one, after_all,
                 after_exception, after_break, entering_lock, entering_python, leaving, leaving_with_exception,
                 leaving_by_return, aliases, not_blocks, within_comprehension, handles, deep,
                 tell_frame_of_generator, runs_coroutine]
    make_big()
    functions.append(globals()["big"])
    generators()
    coroutines()
    callables()
    for function in functions:
        _thread.start_new_thread(function, ())
    for _ in functions:
        started.get()
    _thread.start_new_thread(next, (running[0],))
    while not lines[-1].split()[2] == "running":
        os.sched_yield()
    sys.stdout.write("start %d\n" % os.getpid() + "\n".join(lines) + "\nready\n")
    sys.stdout.flush()
    os.read(3, 1)
    os._exit(0)


main()
