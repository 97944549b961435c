# SPDX-License-Identifier: MIT
"""A program changes its objects step by step and prints what they are; one `pyspyd watch --var` that runs all the while
must come to say the same after each step. What cannot be read without running code must say so."""

import json
import os
import select
import signal
import subprocess
import tempfile

import live

EVENTS = 2000  # of one step: many intervals
WATCH_S = 30

PROGRAM = r'''
import asyncio, collections, json, os, queue, sys


class Base:
    __slots__ = ("slot", "unset")
    shared = {}
    _seen = {}


class Registry(Base):
    entries = []

    def __init__(self):
        self.slot, self.own, self.both = [], (), "instance"
        self.tree = [{"x": [7, 8]}, "last"]

    both = "class"

    @property
    def size(self):
        raise RuntimeError("executed")

    def method(self):
        raise RuntimeError("executed")

    def __getattr__(self, name):
        print("executed", name, flush=True)
        raise AttributeError(name)


class Counted(list):
    def __len__(self):
        return 99


class Jobs(queue.Queue):
    pass


class Odd(queue.Queue):
    def qsize(self):
        return -7


class Meta(type):
    @property
    def computed(cls):
        raise RuntimeError("executed")


Made = Meta("Made", (), {"stored": 5})
reg, counted, odd = Registry(), Counted(), Odd()
text, raw, numbers, named = "", b"", {}, collections.OrderedDict()
members, frozen, ring, array = set(), frozenset(), collections.deque(maxlen=5), bytearray()
fifo, jobs, sorted_jobs = queue.Queue(), Jobs(), queue.PriorityQueue()
simple = getattr(queue, "SimpleQueue", queue.Queue)()
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
later = asyncio.Queue()
nothing, truth, real = None, False, 1.5
PASSWORD, TOKENS, odd_names = "geheim", {"a": 1}, {"it's \"x\"": [1], "\u00e4": 2}


def step(n):
    global text, raw, frozen, truth
    Registry._seen["k%d" % n] = n
    Registry.shared["s%d" % n] = n
    Registry.entries.append(n)
    reg.slot.append(n)
    reg.own += (n,)
    reg.tree[0]["x"].append(n)
    counted.append(n)
    text += "\u00e4" * (n % 3)
    raw += b"x"
    numbers[-n] = "n" * n
    named["o%d" % n] = n
    members.update(range(n * 10))
    frozen |= {n}
    ring.append(n)
    array.extend(b"abc")
    truth = n % 2 == 0
    for one in (fifo, jobs, sorted_jobs, simple, odd):
        one.put(n)
    if n % 4 == 3:
        for one in (fifo, jobs, sorted_jobs, simple):
            one.get()
        Registry.entries.clear()
        members.clear()
    later.put_nowait(n)


def account(n):
    told = {}

    def tell(name, thing, length, value=None):
        told["__main__:" + name] = [length, value]

    def size(name, n):
        tell(name, None, n, str(n))

    tell("Registry._seen", dict, len(Registry._seen))
    tell("reg._seen", dict, len(Registry._seen))
    tell("Base.shared", dict, len(Base.shared))
    tell("Registry.entries", list, len(Registry.entries))
    tell("reg.slot", list, len(reg.slot))
    tell("reg.own", tuple, len(reg.own))
    tell("reg.own[-1]", int, None, repr(reg.own[-1]))
    tell("reg.both", str, 8, "'instance'")
    tell("Registry.both", str, 5, "'class'")
    tell("reg.tree[0]['x']", list, len(reg.tree[0]["x"]))
    tell("reg.tree[0]['x'][1]", int, None, "8")
    tell("reg.tree[-1]", str, 4, "'last'")
    tell("counted", list, list.__len__(counted))
    tell("text", str, len(text), repr(text))
    tell("raw", bytes, len(raw))
    tell("numbers[-%d]" % n, str, n, repr("n" * n))
    tell("named['o%d']" % n, int, None, str(n))
    tell("members", set, len(members))
    tell("frozen", frozenset, len(frozen))
    tell("ring", None, len(ring))
    tell("array", None, len(array))
    tell("fifo", None, fifo.qsize())
    tell("fifo.queue", None, fifo.qsize())
    tell("simple", None, simple.qsize())
    for name in ("fifo", "jobs", "sorted_jobs", "simple", "later"):
        size(name + ".qsize", globals()[name].qsize())
    size("jobs.qsize()", jobs.qsize())
    size("ring.__len__", len(ring))
    size("text.__len__", len(text))
    tell("Made.stored", int, None, "5")
    tell("nothing", None, None, "None")
    tell("truth", None, None, repr(truth))
    tell("real", None, None, "1.5")
    tell("odd_names[\"it's \\\"x\\\"\"][0]", int, None, "1")
    tell("odd_names['\u00e4']", int, None, "2")
    tell("PASSWORD", str, None, "***")
    tell("TOKENS", dict, 1, "***")
    return told


n = 1
step(1)
print(json.dumps({"told": account(n)}), flush=True)
while os.read(0, 1):
    n += 1
    step(n)
    print(json.dumps({"told": account(n)}), flush=True)
'''

# Path, and what its error must contain.
ERRORS = [
    ("no_such:thing", "no module 'no_such' is imported"),
    ("__main__:thing", "module __main__ has no 'thing'"),
    ("__main__:Registry.nope", "__main__:Registry has no attribute 'nope'"),
    ("__main__:reg.nope", "__getattr__: its code would have to run"),
    ("__main__:reg.unset", "is not set"),
    ("__main__:reg.size", "is a property: its code would have to run"),
    ("__main__:Made.computed", "its code would have to run"),
    ("__main__:reg.method", "is a method: its code would have to run"),
    ("__main__:reg.method()", "nothing is executed"),
    ("__main__:odd.qsize", "is a method: its code would have to run"),
    ("__main__:counted.__len__", "is a method: its code would have to run"),
    ("__main__:reg.tree[2]", "there are 2 items"),
    ("__main__:reg.tree[-3]", "there are 2 items"),
    ("__main__:reg.tree['x']", "is no dict"),
    ("__main__:numbers[77]", "no such key"),
    ("__main__:numbers['x']", "no such key"),
    ("__main__:text[0]", "is no dict, list or tuple"),
    ("__main__:nothing.more", "has no attribute 'more'"),
]

BUSY = r'''
import os, threading


def churn():
    while True:
        for n in range(1000):
            shared[n] = [n]
            items.append(n)
        shared.clear()
        items.clear()


shared, items = {}, []
threading.Thread(target=churn, daemon=True).start()
print("ready", flush=True)
os.read(0, 1)
os._exit(0)
'''

BAD = ["", "x", ":", "a:", ":b", "a:b.", "a:b..c", "a.:b", "a:b[", "a:b[]", "a:b[1", "a:b['x]", "a:b['x'", "a:b[x]",
       "a:b[1:2]", "a:b(1)", "a:b().c", "a:b c", "a:1b", "a:b['\\n']", "a:b[9999999999999999999]", "a:b+c",
       "a:" + "b" * 600, "a:b" + ".c" * 40]


class Watch:
    """A watch that runs, and its values as they come."""

    def __init__(self, pid, names, *options):
        args = [live.PYSPYD, "watch", "--json", "--pid", str(pid), "--interval", "100ms"] + list(options)
        for name in names:
            args += ["--var", name]
        self.pid = pid
        self.process = subprocess.Popen(args, stdout=subprocess.PIPE)
        self.rest = b""

    def event(self):
        """The next value, or None where none comes."""
        while b"\n" not in self.rest:
            if not select.select([self.process.stdout], [], [], WATCH_S)[0]:
                return None
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                return None
            self.rest += data
        line, self.rest = self.rest.split(b"\n", 1)
        parsed = json.loads(line.decode())
        if parsed["schema"] != "pyspyd.value/1" or parsed.pop("process")["pid"] != self.pid:
            return self.event()
        return parsed

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdout.close()  # else it may wait for us to read on
        self.process.send_signal(signal.SIGINT)
        self.process.wait()


def agrees(event, expected):
    length, value = expected
    return not event["error"] and event["length"] == length and (value is None or event["value"] == value)


def follow(watch, told):
    """Reads events until all that was told was seen so. Return: what was not, with the last that was."""
    left = dict(told)
    last = {}
    for _ in range(EVENTS):
        event = watch.event()
        if event is None:
            break
        name = event["name"]
        if name in left:
            last[name] = event
            if agrees(event, left[name]):
                del left[name]
        if not left:
            return {}
    return {name: (expected, last.get(name)) for name, expected in left.items()}


STEPS = 9


def check_steps(checks, name, command):
    with live.Target(command, PROGRAM) as target:
        told = json.loads(target.ready())["told"]
        fixed = [path for path in told if "numbers" not in path and "named" not in path]
        indexed = {path for path in told} - set(fixed)
        every = fixed + ["__main__:numbers[-%d]" % n for n in range(1, STEPS + 1)]
        every += ["__main__:named['o%d']" % n for n in range(1, STEPS + 1)]
        checks.that(len(every) <= 64 and len(indexed) == 2, "%s: %d paths" % (name, len(every)))
        with Watch(target.pid, every) as watch:
            for step in range(STEPS):
                wrong = follow(watch, told)
                checks.that(not wrong, "%s: step %d: %s" % (name, step + 1, wrong))
                if step + 1 < STEPS:
                    target.say("\n")
                    told = json.loads(target.line())["told"]
        check_errors(checks, name, target)
        check_text(checks, name, target)


def check_errors(checks, name, target):
    left = dict(ERRORS)
    with Watch(target.pid, list(left) + ["__main__:PASSWORD"], "--unmask") as watch:
        for _ in range(len(ERRORS) + 1):
            event = watch.event()
            if not checks.that(event is not None, "%s: no event" % name):
                return
            if event["name"] == "__main__:PASSWORD":
                checks.that(event["value"] == "'geheim'" and not event["masked"], "%s: --unmask: %s" % (name, event))
                continue
            said = event["error"] or ""
            checks.that(left[event["name"]] in said, "%s: %s: %s" % (name, event["name"], event))
            checks.that(event["type"] is None and event["value"] is None and event["length"] is None,
                        "%s: a value with an error: %s" % (name, event))


def check_text(checks, name, target):
    status, out, err = live.pyspyd("watch", "--pid", target.pid, "--interval", "100ms", "--duration", "100ms", "--var",
                                   "__main__:Registry._seen", "--var", "no_such:thing", "--var", "__main__:PASSWORD")
    lines = [line.split(" ", 1)[1] for line in out.splitlines() if " value pid=" in line]
    checks.that(status == 0 and not err, "%s: exit %d: %s" % (name, status, err))
    start = "value pid=%d name=" % target.pid
    checks.that(len(lines) == 3 and lines[0].startswith(start + '"__main__:Registry._seen" type="dict" length=9 value="{')
                and lines[1] == start + '"no_such:thing" error="no module \'no_such\' is imported"'
                and lines[2] == start + '"__main__:PASSWORD" type="str" value="***"', "%s: text: %s" % (name, out))


def check_busy(checks, name, command):
    """Of objects that change all the time each look is of some moment, or says that it was not to be had."""
    with live.Target(command, BUSY) as target:
        target.ready()
        good = 0
        with Watch(target.pid, ["__main__:shared", "__main__:items"]) as watch:
            for _ in range(40):
                event = watch.event()
                if not checks.that(event is not None, "%s: busy: no event" % name):
                    return
                if not event["error"]:
                    good += 1
                    expected = "dict" if event["name"].endswith("shared") else "list"
                    checks.that(event["type"] == expected and 0 <= event["length"] <= 1000, "%s: busy: %s" % (name, event))
        checks.that(good > 20, "%s: busy: %d of 40 looks" % (name, good))


def check_script(checks, name, command):
    """The script that is run goes by its file's name too."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "some_app.py")
        with open(path, "w") as f:
            f.write("import os\nthings = [1, 2]\nprint('ready', flush=True)\nos.read(0, 1)\n")
        with live.Target(command + [path]) as target:
            target.ready()
            with Watch(target.pid, ["some_app:things"]) as watch:
                event = watch.event()
        checks.that(event and event["length"] == 2 and event["value"] == "[1, 2]", "%s: script: %s" % (name, event))


def check_bad(checks):
    for path in BAD:
        status, _, err = live.pyspyd("watch", "--pid", os.getpid(), "--var", path)
        checks.that(status == 2 and "--var" in err, "%r: exit %d: %s" % (path, status, err))


def main():
    checks = live.Checks()
    for name, _, command in live.interpreters():
        before = checks.passed, checks.failed
        check_steps(checks, name, command)
        check_busy(checks, name, command)
        if command[0] != "chroot":  # it does not see our files
            check_script(checks, name, command)
        live.note("%s: %d checks passed, %d failed" % (name, checks.passed - before[0], checks.failed - before[1]))
    check_bad(checks)
    checks.end()


main()
