# SPDX-License-Identifier: MIT
"""A program in many situations at once, and its own account of them. Runs on CPython 3.6 to 3.15; stacks_oracle.sh
passes it with -c, since a chroot sees no file of ours.

Every thread goes into one situation and parks there (a lock, an event, a pipe, a sleep, select). When the innermost
frame of every thread stands on a line that parks, one line of JSON goes to stdout:

    {"python", "threads": [{"tid", "name", "about", "interpreter", "frames": [{"function", "qualname", "file", "line",
     "module", "locals"}]}]}

Then the program lives until its stdin is closed. A name of null stands for a thread that Python has no name for."""

import asyncio
import contextlib
import functools
import itertools
import json
import linecache
import os
import queue
import re
import select
import sys
import threading
import time
import types
import weakref
import _thread

SOURCE = os.environ.get("STACKS_SOURCE", "").split("\n")
NEVER_READ, NEVER_WRITTEN = os.pipe()
LOCK = threading.Lock()
LOCK.acquire()
SITUATIONS = []
ABOUT = {}
TIDS = {}
KEEP = []
BEGUN = []
VERSION = sys.version_info[:2]


# Where threads park. A line that does so says "parked".

def park_lock():
    LOCK.acquire()  # parked


def park_event():
    threading.Event().wait()


def park_read():
    os.read(NEVER_READ, 1)  # parked


def park_sleep():
    time.sleep(100000)  # parked


def park_select():
    select.select([NEVER_READ], [], [])  # parked


def park_queue():
    queue.Queue().get()


PARKS = itertools.cycle([park_lock, park_event, park_read, park_sleep, park_select, park_queue])


def situation(function):
    SITUATIONS.append(function)
    return function


@situation
def plain(park):
    def inner(depth):
        if depth:
            return inner(depth - 1)
        return park()

    inner(3)


@situation
def recursion(park, n=50):
    if n:
        recursion(park, n - 1)
    else:
        park()


def even(park, n):
    return odd(park, n - 1) if n else park()


def odd(park, n):
    return even(park,
                n - 1)


@situation
def mutual_recursion(park):
    even(park, 40)


@situation
def generator_chain(park):
    def one():
        yield 1
        yield park()

    def two():
        yield 0
        yield from one()

    def three():
        yield from two()

    g = three()
    next(g)
    next(g)
    next(g)


@situation
def generator_send(park):
    def receiver():
        while True:
            got = yield
            if got:
                park()

    g = receiver()
    g.send(None)
    g.send(0)
    g.send(1)


@situation
def generator_throw(park):
    def catcher():
        try:
            yield
        except KeyError:
            park()

    def outer():
        yield from catcher()

    g = outer()
    next(g)
    g.throw(KeyError("x"))


@situation
def generator_close(park):
    def closing():
        try:
            yield
        finally:
            park()

    g = closing()
    next(g)
    g.close()


@situation
def suspended_inside_running(park):
    def never_resumed():
        yield 1
        yield 2

    asleep = never_resumed()
    next(asleep)

    def running():
        next(asleep)
        yield park()

    for _ in running():
        pass


@situation
def generator_expression(park):
    sum(park() for _ in range(2))


class Awaitable:
    def __init__(self, park):
        self.park = park

    def __await__(self):
        yield 1
        self.park()


async def await_leaf(park):
    await Awaitable(park)


async def await_middle(park):
    await await_leaf(park)


async def await_deep(park, n):
    if n:
        return await await_deep(park, n - 1)
    return await await_middle(park)


@situation
def coroutine_by_hand(park):
    c = await_deep(park, 5)
    c.send(None)
    c.send(None)


@situation
def coroutine_throw(park):
    async def guarded():
        try:
            await Awaitable(None)
        except ValueError:
            park()

    c = guarded()
    c.send(None)
    c.throw(ValueError("y"))


def with_loop(coroutine):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(coroutine)


@situation
def asyncio_blocked(park):
    async def bottom():
        await asyncio.sleep(0)
        park()

    async def middle():
        await bottom()

    async def gather():
        await asyncio.gather(middle(), asyncio.sleep(100000))

    with_loop(gather())


@situation
def asyncio_idle(_park):
    async def forever():
        await asyncio.get_event_loop().create_future()

    with_loop(forever())


@situation
def asyncio_callback(park):
    async def main():
        asyncio.get_event_loop().call_soon(park)
        await asyncio.sleep(100000)

    with_loop(main())


@situation
def async_generator(park):
    async def numbers():
        yield 1
        park()
        yield 2

    async def consume():
        async for _ in numbers():
            pass

    try:
        consume().send(None)
    except StopIteration:
        pass


@situation
def async_with(park):
    class Manager:
        async def __aenter__(self):
            return self

        async def __aexit__(self, *args):
            park()

    async def use():
        async with Manager():
            pass

    use().send(None)


@situation
def lambdas(park):
    (lambda: (lambda x: park())(1))()


@situation
def list_comprehension(park):
    return [park() for _ in range(1)]


@situation
def set_comprehension(park):
    return {park() for _ in range(1)}


@situation
def dict_comprehension(park):
    return {1: park() for _ in range(1)}


@situation
def nested_comprehension(park):
    return [[park()
             for x in range(1)]
            for y in range(1)]


@situation
def comprehension_over_lambda(park):
    f = lambda: [g() for g in
                 [park]]
    return f()


@situation
def class_body(park):
    class Outer:
        x = 1

        class Inner:
            y = [park() for _ in range(1)]


@situation
def decorated(park):
    def decorator(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)
        return wrapper

    @decorator
    @decorator
    def inner():
        park()

    inner()


@situation
def decorator_runs(park):
    def factory(_x):
        park()

    @factory(
        1)
    def never():
        pass


@situation
def default_argument(park):
    def never(a=1,
              b=park()):
        pass


@situation
def sorted_key(park):
    sorted([1], key=lambda x: park())


@situation
def sort_compare(park):
    class Ordered:
        def __lt__(self, other):
            park()
            return False

    [Ordered(), Ordered()].sort()


@situation
def mapped(park):
    list(map(lambda x: park(), filter(lambda x: True, [1])))


@situation
def reduced(park):
    functools.reduce(lambda a, b: park(), [1, 2])


@situation
def regular_expression(park):
    re.sub("a", lambda m: park() or "", "bab")


@situation
def partial_call(park):
    def target(a, b):
        park()

    functools.partial(functools.partial(target, 1), 2)()


@situation
def finalizer(park):
    class Dying:
        def __del__(self):
            park()

    d = Dying()
    del d


@situation
def weak_callback(park):
    class Referred:
        pass

    r = Referred()
    KEEP.append(weakref.ref(r, lambda ref: park()))
    del r


@situation
def special_methods(park):
    class Meta(type):
        def __call__(cls, *args):
            return super().__call__(*args)

    class Base(metaclass=Meta):
        def __init__(self, x):
            self.x = x
            self.attribute

        @property
        def attribute(self):
            return self[1]

        def __getitem__(self, key):
            return self + key

        def __add__(self, other):
            return str(self)

        def __str__(self):
            return self.missing

        def __getattr__(self, name):
            if name == "missing":
                park()
            raise AttributeError(name)

    Base(1)


@situation
def methods(park):
    class A:
        @classmethod
        def cm(cls):
            return cls.sm()

        @staticmethod
        def sm():
            return A().m()

        def m(self):
            class Nested:
                def n(self):
                    def closure():
                        return park()
                    return closure()
            return Nested().n()

    A.cm()


@situation
def exec_odd_names(park):
    scope = {"park": park, "__name__": "exec\u00e9d"}
    text = ("def f\u00fcnktion():\n"
            "    n\u540d\u524d()\n"
            "def n\u540d\u524d():\n"
            "    \U00020000kanji()\n"
            "def \U00020000kanji():\n"
            "    " + "x" * 900 + "()\n"
            "def " + "x" * 900 + "():\n"
            "    park()\n"
            "f\u00fcnktion()\n")
    exec(compile(text, "/dossier \u00e9t\u00e9/a.py", "exec"), scope)


@situation
def exec_odd_files(park):
    for name in ("\u00ffile.py", "\u0444\u0430\u0439\u043b.py", "\U0001f40d.py", "a" * 1500, "", "tab\tnew\nline\x1b"):
        scope = {"park": park, "__name__": "m", "down": None}
        exec(compile("def level(f):\n\n  return f()\n", name, "exec"), scope)
        park = functools.partial(scope["level"], park)
    park()


@situation
def evaluated(park):
    eval("(lambda:\n\n  park())()", {"park": park})


@situation
def far_lines(park):
    scope = {"park": park, "__name__": "far"}
    exec(compile("\n" * 70000 + "def f(a,\n" + "\n" * 300 + "b):\n" + "\n" * 40000 + " return [a,\n" + "\n" * 200 +
                 "park(),\n1]\nf(1\n,\n2)", "far.py", "exec"), scope)


@situation
def long_function(park):
    body = "".join("    a%d = %d\n" % (i, i) for i in range(3000))
    text = "def long(park, x):\n" + body + "    while (x and\n           park()):\n        x = 0\n" + body + "long(park, 1)\n"
    exec(compile(text, "long.py", "exec"), {"park": park, "__name__": "long"})


@situation
def handling(park):
    try:
        try:
            1 / 0
        except ZeroDivisionError:
            raise KeyError("k")
        finally:
            len("x")
    except KeyError:
        try:
            raise ValueError
        except ValueError as e:
            kept = e
            park()


@situation
def finally_block(park):
    def inner():
        try:
            return 1
        finally:
            park()

    inner()


class Managed:
    def __init__(self, on_enter=None, on_exit=None):
        self.on_enter, self.on_exit = on_enter, on_exit

    def __enter__(self):
        if self.on_enter:
            self.on_enter()

    def __exit__(self, *args):
        if self.on_exit:
            self.on_exit()


@situation
def with_body(park):
    with Managed(), Managed():
        park()


@situation
def with_enter(park):
    with Managed(), \
            Managed(on_enter=park):
        pass


@situation
def with_exit(park):
    with Managed(on_exit=park):
        x = 1
        y = 2


@situation
def with_exit_raising(park):
    with Managed(on_exit=park):
        1 / 0


@situation
def context_manager(park):
    @contextlib.contextmanager
    def manager():
        try:
            yield 1
        finally:
            park()

    with manager():
        pass


@situation
def many_lines(park):
    def take(*args):
        pass

    take(
        1,
        len("abc"),
        take(2,
             3),
        park(),
        4,
    )


@situation
def loop_condition(park):
    i = 0
    while i < 3 or \
            park():
        i += 1
        if i == 1:
            continue
        for _ in range(2):
            break
        else:
            i = 7


@situation
def traced(park):
    def tracer(frame, event, arg):
        if event == "line" and frame.f_lineno == frame.f_code.co_firstlineno + 2:
            park()
        return tracer

    def watched():
        a = 1
        b = 2
        return a + b

    sys.settrace(tracer)
    watched()


@situation
def profiled(park):
    def profiler(frame, event, arg):
        if event == "c_call" and arg is len:
            sys.setprofile(None)
            park()

    def watched():
        return len("abc")

    sys.setprofile(profiler)
    watched()


@situation
def imported(park):
    name = "stacks_imported"

    class Loader:
        def create_module(self, spec):
            return None

        def exec_module(self, module):
            module.park = park
            exec(compile("\nimport os\npark()\n", "imported.py", "exec"), module.__dict__)

    class Finder:
        def find_spec(self, fullname, path, target=None):
            import importlib.machinery
            return importlib.machinery.ModuleSpec(fullname, Loader()) if fullname == name else None

    sys.meta_path.append(Finder())
    __import__(name)


@situation
def c_callback(park):
    try:
        import ctypes
    except ImportError:
        return park()
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda n: park() or 0)
    return callback(1)


@situation
def many_locals(park, *args, key=1, **more):
    number, negative, big = 17, -5, 1 << 70
    small = 300
    text, other = "plain", "\u00e9\u540d"
    data = b"bytes"
    yes, nothing, real = True, None, 1.5
    password = "hunter2"
    api_token = 123
    cell = "in a cell"
    a_list = [1, "two", None]
    a_dict = {"k": 1}
    a_tuple = ()
    instance = Managed()

    def inner(argument):
        free = cell + text
        inner_secret = cell
        if argument:
            park()
        later = free
        return later, inner_secret

    inner(number)
    unset_later = small
    return unset_later, negative, big, other, data, yes, nothing, real, password, api_token, a_list, a_dict, \
        a_tuple, instance


@situation
def deleted_locals(park):
    gone = 1
    kept = 2
    del gone
    empty_cell = 1

    def inner():
        nonlocal empty_cell
        del empty_cell
        park()

    inner()
    return kept


@situation
def generator_locals(park):
    def numbers(first, password):
        second = first + 1
        got = yield second
        park()
        yield got, second

    g = numbers(4, "x")
    next(g)
    g.send("sent")


NEWER = r'''
@situation
def dataclass_init(park):
    import dataclasses

    @dataclasses.dataclass
    class Point:
        x: int = 0
        def __post_init__(self):
            park()

    Point()

@situation
def replaced_names(park):
    def f():
        park()
    for name in ("", "esc\x1b]0;t\x07", "a b(c:1);d"):
        types.FunctionType(f.__code__.replace(co_name=name), {"park": park, "__name__": "r"}, closure=f.__closure__) \
            if not name else None
    g = types.FunctionType(f.__code__.replace(co_name="esc\x1b]0;t\x07;(x"), globals(), closure=f.__closure__)
    g()

@situation
def walrus(park):
    return [y for x in range(1) if (y := park())]
'''
if VERSION >= (3, 8):
    exec(compile(NEWER, "newer.py", "exec"))

MATCHING = r'''
@situation
def matching(park):
    class Dot:
        __match_args__ = ("x",)
        @property
        def x(self):
            park()
    match Dot():
        case {"a": 1}:
            pass
        case Dot(
            1
        ):
            pass
'''
if VERSION >= (3, 10):
    exec(compile(MATCHING, "matching.py", "exec"))

GROUPS = r'''
@situation
def exception_group(park):
    try:
        raise ExceptionGroup("g", [ValueError(1), KeyError(2)])
    except* ValueError as e:
        len("x")
    except* KeyError:
        park()
'''
if VERSION >= (3, 11):
    exec(compile(GROUPS, "groups.py", "exec"))


# The account.

def native_id():
    if hasattr(threading, "get_native_id"):
        return threading.get_native_id()
    return int(os.path.basename(os.readlink("/proc/thread-self")))


def tell_locals(frame):
    """Of functions only: variables of modules and classes are no slots of their frames."""
    if not frame.f_code.co_flags & 1:
        return None
    told = {}
    for name, value in list(frame.f_locals.items()):
        kind = type(value)
        module = kind.__module__
        simple = kind in (int, str, bool, float, bytes, type(None)) and len(repr(value)) < 60
        told[name] = [kind.__qualname__ if module == "builtins" else "%s.%s" % (module, kind.__qualname__),
                      repr(value) if simple else None, value if simple and kind is str else None]
    return told


def tell_frame(frame):
    code = frame.f_code
    name = frame.f_globals.get("__name__")
    return {"function": code.co_name, "qualname": getattr(code, "co_qualname", code.co_name),
            "file": code.co_filename, "line": frame.f_lineno or 0,
            "module": name if isinstance(name, str) else "", "locals": tell_locals(frame)}


def walk(frame):
    while frame:
        yield frame
        frame = frame.f_back


def line_text(frame):
    name, line = frame.f_code.co_filename, frame.f_lineno or 0
    if name == "<string>" and frame.f_globals is globals():
        return SOURCE[line - 1] if line <= len(SOURCE) else ""
    return linecache.getline(name, line)


def is_parked(frame):
    text = line_text(frame)
    return any(mark in text for mark in ("# parked", "waiter.acquire(", "_selector.poll(", "_epoll.poll("))


def tell():
    threads = []
    for ident, frame in sys._current_frames().items():
        if ident == threading.get_ident():
            continue
        thread = threading._active.get(ident)
        threads.append({"tid": TIDS[ident], "name": thread.name if thread else None, "about": ABOUT.get(ident, "main"),
                        "frames": [tell_frame(f) for f in walk(frame)]})
    return {"python": sys.version.split()[0], "threads": threads}


def teller():
    """Waits until all are where they stay, says so, and stays itself."""
    TIDS[threading.get_ident()] = native_id()
    while True:
        frames = sys._current_frames()
        frames.pop(threading.get_ident())
        if BEGUN and len(frames) == len(SITUATIONS) + 2 and all(is_parked(frame) for frame in frames.values()):
            break
        del frames
        time.sleep(0.002)
    del frames
    told = tell()
    os.write(1, (json.dumps(told) + "\n").encode())
    park_lock()


def run(function, park):
    ident = threading.get_ident()
    TIDS[ident] = native_id()
    ABOUT[ident] = function.__name__
    function(park)


def unnamed():
    ident = threading.get_ident()
    TIDS[ident] = native_id()
    ABOUT[ident] = "unnamed"
    park_read()


NAMES = ["worker", "n\u00e9", "\u043d\u0438\u0442\u044c", "\u540d\u524d", "\U0001f40d" * 4, "esc\x1b[31m\x07\x7f\n", "x" * 500,
         "nul\0in it", "c1 \x9b31m", "\u202egnp.exe"]


def main():
    sys.setrecursionlimit(5000)
    linecache.getlines(threading.__file__)
    TIDS[threading.get_ident()] = native_id()
    names = itertools.cycle(NAMES)
    for i, function in enumerate(SITUATIONS):
        thread = threading.Thread(target=run, args=(function, next(PARKS)), daemon=True)
        if i % 3:
            thread.name = "%s-%d" % (next(names), i)
        thread.start()
    _thread.start_new_thread(unnamed, ())
    threading.Thread(target=teller, daemon=True, name="teller").start()
    BEGUN.append(True)
    os.read(0, 1)  # parked
    os._exit(0)


main()
