# SPDX-License-Identifier: MIT
"""Puts objects into every place where a program can keep them, and says how a path leads to each.

Runs on Python 3.6 and later, from its standard input. Writes one line for each check, parts separated by tabs, then
"ready", and waits until descriptor 3 is closed. roots_driver.c reads the lines and checks them in this process's memory:

    start PID
    path ADDRESS PATH…             root_map_path says one of these; "-": it is not in the map
    rest ADDRESS REST PATH         root_map_path_to
    step ADDRESS ADDRESS STEP      root_step; STEP may be empty
"""

import _thread
import asyncio
import collections
import functools
import os
import sys
import threading
import types

__file__ = "/srv/app/app.py"
ITEMS_MAX = 1000
BULK = 100000

lines = []
started = threading.Semaphore(0)
gate = _thread.allocate_lock()
gate.acquire()


class Thing:
    """What is looked for: has an address of its own, and a dict."""


def path(thing, *paths):
    lines.append("\t".join(["path", "%x" % id(thing)] + list(paths)))


def step(holder, thing, text):
    lines.append("step\t%x\t%x\t%s" % (id(holder), id(thing), text))


def both(holder, thing, place, text):
    """Where the place is app.place."""
    path(thing, "app." + place + text)
    step(holder, thing, text)


def make_module(name, source, file):
    module = types.ModuleType(name)
    module.__file__ = file
    sys.modules[name] = module
    exec(source, module.__dict__)
    return module


# Modules: what comes last is what would be found first, but for the order of modules.

_private = make_module("_private", "shared = type('T', (), {})()", "/usr/lib/python3.9/_private.py")
installed = make_module("installed", "from _private import shared", "/usr/lib/python3/dist-packages/installed.py")
library = make_module("library", """
class Thing: pass
from _private import shared
only = Thing()
""", "/usr/lib/python3.9/library.py")
reexports = make_module("aa_reexports", "", "/srv/app/aa_reexports.py")
registry = make_module("registry", """
class Thing: pass
class Registry:
    _seen = {}
    table = {'a': Thing()}
def handler():
    return None
handler.seen = Thing()
CONFIG = {'hosts': [Thing()], 7: Thing(), (1, 2): Thing(), "it's": Thing(), 'l' * 100: Thing(), -3: Thing()}
reexports.Registry = Registry
reexports.handler = handler
""".replace("reexports.", "__import__('sys').modules['aa_reexports']."), "/srv/app/registry.py")
Registry = registry.Registry
handler = registry.handler

path(registry, "registry")
path(Registry, "registry.Registry")
path(Registry._seen, "registry.Registry._seen")
path(handler, "registry.handler")
path(handler.seen, "registry.handler.seen")
path(handler.__dict__, "registry.handler.__dict__")
path(installed.shared, "installed.shared")
path(library.only, "library.only")
path(sys.modules["__main__"], "app")
path(vars(registry), "registry.__dict__")
path(registry.CONFIG["hosts"][0], "registry.CONFIG['hosts'][0]")
path(registry.CONFIG[7], "registry.CONFIG[7]")
path(registry.CONFIG[-3], "registry.CONFIG[-3]")
path(registry.CONFIG[1, 2], "registry.CONFIG[…]")
path(registry.CONFIG["it's"], "registry.CONFIG['it\\'s']")
path(registry.CONFIG["l" * 100], "registry.CONFIG['" + "l" * 60 + "…']")
step(registry, Registry, ".Registry")
step(Registry, Registry._seen, "._seen")
step(registry.CONFIG, registry.CONFIG["hosts"], "['hosts']")
step(registry.CONFIG, registry.CONFIG[1, 2], "[…]")
step(registry.CONFIG["hosts"], registry.CONFIG["hosts"][0], "[0]")
step(registry.__dict__, Registry, "['Registry']")
step(registry, registry.__dict__, ".__dict__")
step(registry.CONFIG, gate, "")

# Functions


def make_closure():
    seen, other = Thing(), [Thing()]

    def closure(a, b=Thing(), cache=Thing(), *, only=Thing(), last=Thing()):
        unused = a
        return seen, other, unused

    path(seen, "app.closure.<closure>.seen")
    path(other, "app.closure.<closure>.other")
    path(other[0], "app.closure.<closure>.other[0]")
    path(closure.__closure__, "app.closure.__closure__")
    path(closure.__closure__[0], "app.closure.<closure>.other")
    path(closure.__closure__[1], "app.closure.<closure>.seen")
    step(closure, seen, ".<closure>.seen")
    step(closure, closure.__closure__, ".__closure__")
    step(closure.__closure__, closure.__closure__[1], "[1]")
    step(closure.__closure__[1], seen, ".cell_contents")
    return closure


closure = make_closure()
both(closure, closure.__defaults__[0], "closure", ".<defaults>.b")
both(closure, closure.__defaults__[1], "closure", ".<defaults>.cache")
both(closure, closure.__kwdefaults__["only"], "closure", ".<defaults>.only")
both(closure, closure.__kwdefaults__["last"], "closure", ".<defaults>.last")
both(closure, closure.__defaults__, "closure", ".__defaults__")
both(closure, closure.__kwdefaults__, "closure", ".__kwdefaults__")


def decorate(function):
    held = Thing()

    @functools.wraps(function)
    def wrapper(*args):
        return function(*args), held

    path(held, "app.decorated.<closure>.held")
    return wrapper


@decorate
def decorated(x, y=Thing()):
    return x, y


path(decorated.__wrapped__, "app.decorated.<closure>.function", "app.decorated.__wrapped__")
path(decorated.__wrapped__.__defaults__[0], "app.decorated.<closure>.function.<defaults>.y",
     "app.decorated.__wrapped__.<defaults>.y")


@functools.lru_cache(maxsize=None)
def load(x):
    return Thing()


@functools.lru_cache(maxsize=10)
def load_some(x):
    return Thing()


load.kept = Thing()
step(load, load("key"), "")
# 3.6 makes a tuple of any argument.
path(load("key"), "app.load.<cache>['key']" if sys.version_info >= (3, 7) else "app.load.<cache>[…]")
path(load.kept, "app.load.kept")
path(load_some("some"), "app.load_some.<cache>['some'].<result>" if sys.version_info >= (3, 7) else "app.load_some.<cache>[…].<result>")
path(load_some(5), "app.load_some.<cache>[5].<result>" if sys.version_info >= (3, 7) else "app.load_some.<cache>[…].<result>")

partial = functools.partial(decorated, Thing(), k=Thing())
path(partial.args[0], "app.partial.args[0]")
path(partial.keywords["k"], "app.partial.keywords['k']")
both(partial, partial.args, "partial", ".args")


class Base:
    __slots__ = ("_pool", "other")


class Slotted(Base):
    __slots__ = ("__hidden", "extra")

    def __init__(self):
        self._pool, self.__hidden, self.extra = Thing(), Thing(), [Thing()]

    def hidden(self):
        return self.__hidden


class MixedSlots(Slotted):
    def __init__(self):
        Slotted.__init__(self)
        self.inside = Thing()


slotted, mixed = Slotted(), MixedSlots()
both(slotted, slotted._pool, "slotted", "._pool")
both(slotted, slotted.hidden(), "slotted", "._Slotted__hidden")
path(slotted.extra[0], "app.slotted.extra[0]")
both(mixed, mixed._pool, "mixed", "._pool")
both(mixed, mixed.inside, "mixed", ".inside")


class Plain:
    limit = Thing()

    def __init__(self):
        self.workers, self.registry = [Thing()], Registry
        self.same = Plain.limit

    def run(self):
        return self


def with_dict(thing):
    """The dict is made, and from 3.11 on values leave their place."""
    vars(thing)["more"] = Thing()
    return thing


def with_many(thing):
    for i in range(100):
        setattr(thing, "a%d" % i, Thing())
    return thing


plain, dicted, many = Plain(), with_dict(Plain()), with_many(Plain())
both(plain, plain.workers, "plain", ".workers")
path(plain.workers[0], "app.plain.workers[0]")
path(Plain.limit, "app.Plain.limit")
both(dicted, dicted.workers, "dicted", ".workers")
both(dicted, dicted.more, "dicted", ".more")
both(dicted, dicted.__dict__, "dicted", ".__dict__")
both(many, many.a70, "many", ".a70")

push = with_dict(Plain()).run
path(push.__self__, "app.push.__self__")
path(push.__self__.workers, "app.push.__self__.workers")
append = [Thing()].append
path(append.__self__, "app.append.__self__")
path(append.__self__[0], "app.append.__self__[0]")


class Wrapped:
    @staticmethod
    def static(a=Thing()):
        return a

    @classmethod
    def klass(cls, a=Thing()):
        return a

    @property
    def prop(self, a=Thing()):
        return a


def of(name):
    return Wrapped.__dict__[name]


path(of("static").__func__.__defaults__[0], "app.Wrapped.static.__func__.<defaults>.a")
path(of("klass").__func__.__defaults__[0], "app.Wrapped.klass.__func__.<defaults>.a")
path(of("prop").fget.__defaults__[0], "app.Wrapped.prop.fget.<defaults>.a")
both(of("prop"), of("prop").fget, "Wrapped.prop", ".fget")


def make_class():
    class Local(Plain):
        kept = Thing()

    return Local()


local = make_class()
path(type(local), "app.local.__class__")
path(type(local).kept, "app.local.__class__.kept")

# Containers


class Words(dict):
    pass


class Numbers(list):
    pass


Pair = collections.namedtuple("Pair", "a b")

words, numbers, pair = Words(k=Thing()), Numbers([Thing()]), Pair(Thing(), Thing())
words.extra = Thing()
numbers.extra = Thing()
both(words, words["k"], "words", "['k']")
both(words, words.extra, "words", ".extra")
both(numbers, numbers[0], "numbers", "[0]")
both(numbers, numbers.extra, "numbers", ".extra")
both(pair, pair.b, "pair", "[1]")
ordered = collections.OrderedDict(z=Thing())
default = collections.defaultdict(closure, z=Thing())
both(ordered, ordered["z"], "ordered", "['z']")
both(default, default["z"], "default", "['z']")
in_set, in_deque = {Thing()}, collections.deque([None, Thing()])
both(in_set, next(iter(in_set)), "in_set", "[…]")
both(in_deque, in_deque[1], "in_deque", "[1]")
in_frozen = frozenset([Thing()])
both(in_frozen, next(iter(in_frozen)), "in_frozen", "[…]")
nested = {"a": {"b": [(Thing(),)]}}
path(nested["a"]["b"][0][0], "app.nested['a']['b'][0][0]")
deep = {"a": {"a": {"a": {"a": {"a": {"a": Thing()}}}}}}
path(deep["a"]["a"]["a"]["a"]["a"], "app.deep['a']['a']['a']['a']['a']")
path(deep["a"]["a"]["a"]["a"]["a"]["a"], "-")
short_list, long_list = [Thing() for _ in range(ITEMS_MAX)], [Thing() for _ in range(ITEMS_MAX + 1)]
both(short_list, short_list[-1], "short_list", "[%d]" % (ITEMS_MAX - 1))
path(long_list, "app.long_list")
path(long_list[5], "-")
step(long_list, long_list[5], "[…]")
long_dict = {i: Thing() for i in range(ITEMS_MAX + 1)}
path(long_dict[5], "-")
step(long_dict, long_dict[5], "[…]")
long_set = {Thing() for _ in range(ITEMS_MAX + 1)}
path(next(iter(long_set)), "-")
step(long_set, next(iter(long_set)), "[…]")
emptied = {i: Thing() for i in range(200)}
for key in range(199):
    del emptied[key]
both(emptied, emptied[199], "emptied", "[199]")
cyclic = [Thing()]
cyclic.append(cyclic)
both(cyclic, cyclic[0], "cyclic", "[0]")

# Suspended and running frames


def generator(held):
    rows = [Thing()]
    other = held
    path(rows, "app.suspended.<locals>.rows")
    path(rows[0], "app.suspended.<locals>.rows[0]")
    yield other, rows


async def coroutine():
    rows = [Thing()]
    path(rows, "app.awaiting.<awaited>.<locals>.rows")
    await Suspend()
    return rows


async def awaits():
    mine = Thing()
    path(mine, "app.awaiting.<locals>.mine")
    await coroutine()
    return mine


class Suspend:
    def __await__(self):
        yield None


suspended = generator(Thing())
next(suspended)
step(suspended, suspended.gi_frame.f_locals["rows"], ".<locals>.rows")
awaiting = awaits()
awaiting.send(None)


def start_task():
    loop = asyncio.new_event_loop()
    task = loop.create_task(awaits_in_task())
    loop.call_soon(loop.stop)
    loop.run_forever()
    return task


async def awaits_in_task():
    mine = Thing()
    path(mine, "app.task.<coroutine>.<locals>.mine")
    await Suspend()
    return mine


def fail(argument):
    mine = Thing()
    path(mine, "app.error.__traceback__.tb_next.tb_frame.<locals>.mine")
    raise KeyError(argument)


def make_error():
    try:
        fail(Thing())
    except KeyError as error:
        return error


def start_thread_local():
    def work():
        local.rows = Thing()
        path(local.rows, "app.local_storage.rows")
        started.release()
        gate.acquire()

    local = threading.local()
    local.mine = Thing()
    threading.Thread(target=work, daemon=True).start()
    started.acquire()
    return local


task = start_task()
error = make_error()
path(error.args[0], "app.error.args[0]")
local_storage = start_thread_local()
path(local_storage.mine, "app.local_storage.mine")


class Server:
    def serve(self, argument):
        rows = [Thing()]
        free = Thing()
        name = ("Server.serve" if sys.version_info >= (3, 11) else "serve") + ".<locals>."
        thread = " (in thread worker-7)"
        path(rows, name + "rows" + thread)
        path(rows[0], name + "rows[0]" + thread)
        path(free, name + "free" + thread)
        path(argument, name + "argument" + thread)
        path(self, name + "self" + thread)
        lines.append("rest\t%x\t[5].x\t%srows[5].x%s" % (id(rows), name, thread))
        started.release()
        gate.acquire()
        return (lambda: free), rows


def start():
    threading.Thread(target=Server().serve, args=(Thing(),), name="worker-7", daemon=True).start()
    started.acquire()


def make_bulk():
    """Objects of each kind, deep and broad, for the time that it takes."""
    bulk = []
    for _ in range(BULK // 8000):
        row = []
        for _ in range(ITEMS_MAX):
            thing = Plain()
            thing.data = {"k": [thing, (Thing(),)]}
            row.append(thing)
        bulk.append(row)
    return bulk


start()
bulk = make_bulk()
path(bulk[-1][-1].data["k"][1][0], "-", "app.bulk[%d][%d].data['k'][1][0]" % (len(bulk) - 1, ITEMS_MAX - 1))
path(bulk[-1][-1].data, "app.bulk[%d][%d].data" % (len(bulk) - 1, ITEMS_MAX - 1))
sys.stdout.buffer.write(("start\t%d\n" % os.getpid() + "\n".join(lines) + "\nready\n").encode())
sys.stdout.flush()
os.read(3, 1)
os._exit(0)
