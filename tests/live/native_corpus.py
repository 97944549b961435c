#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Stacks of programs that are in the libraries which people use, against gdb's. Nobody is stopped but by gdb while it looks.

Those that sleep have the same stack for both: equal address by address and name by name. Those that run in a loop of C are
at another instruction in each look: what must be equal is everything below the interpreter's call into the library, or,
where the loop calls nothing, everything but the innermost address.

    native_corpus.py [PATTERN...]    only interpreters whose names match"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from live import Checks, Target, interpreters, note, skip, wait_at_rest
from native_compare import HAS_GDB, compare, driver, gdb, gdb_all, same_names

LOOKS = 5  # at a program that runs; one of them must be at the same call as gdb, …
# … of which loops have several. Measured: the five miss gdb's in one of six times at worst (pow); in all of these, once in
# 10^9 runs.
TRIES = 12

# They say "ready" in the innermost call, and sleep.
ASLEEP = {
    "deep": """
def down(n):
    return max([n], key=lambda _: down(n - 1)) if n else wait()
down(80)""",
    "generators": """
import functools, itertools
def numbers():
    yield 1
    yield wait()
def chain():
    yield from map(lambda n: n, itertools.chain(numbers(), [3]))
print(functools.reduce(lambda a, b: a, chain()))""",
    "handler": """
import os, signal
signal.signal(signal.SIGUSR1, lambda *_: wait())
os.kill(os.getpid(), signal.SIGUSR1)
wait()""",
    "callback": """
import ctypes
compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda a, b: wait() or 0)
ctypes.CDLL(None).qsort((ctypes.c_int * 4)(), 4, 4, compare)""",
    "sqlite3": """
import sqlite3
c = sqlite3.connect(":memory:")
c.create_function("wait", 0, wait)
c.execute("select wait() from (select 1 union select 2 order by 1)").fetchall()""",
    "ssl": """
import socket, ssl
a, b = socket.socketpair()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
print("ready", flush=True)
context.wrap_socket(a)""",
    "re": """
import re
re.sub("b+", lambda match: wait(), "abba")""",
    "pickle": """
import pickle
class A:
    def __reduce__(self):
        wait()
pickle.dumps([{1: (A(),)}])""",
    "import": """
import importlib.abc, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, *_):
        wait()
sys.meta_path.insert(0, Finder())
import nothing_of_that_name""",
    "threads": """
import queue, select, socket, threading, time
lock, pair = threading.Lock(), socket.socketpair()
lock.acquire()
for target, args in ((time.sleep, (1000,)), (queue.Queue().get, ()), (threading.Event().wait, (1000,)), (lock.acquire, ()),
                     (select.select, ([], [], [], 1000)), (pair[0].recv, (1,))):
    threading.Thread(target=target, args=args, daemon=True).start()
wait()""",
    "numpy": """
import numpy
numpy.vectorize(lambda x: wait())(numpy.arange(3))""",
    "numpy_sort": """
import numpy
class A:
    def __lt__(self, other):
        wait()
numpy.sort(numpy.array([A(), A(), A()], dtype=object))""",
}

# They say "ready", then run in C for longer than we look.
RUNNING = {
    "zlib": """
import os, zlib
data = os.urandom(1 << 24)
print("ready", flush=True)
while True:
    zlib.compress(data)""",
    "sqlite3": """
import sqlite3
c = sqlite3.connect(":memory:")
print("ready", flush=True)
c.execute("with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n").fetchall()""",
    "hashlib": """
import hashlib
print("ready", flush=True)
hashlib.pbkdf2_hmac("sha256", b"word", b"salt", 1 << 30)""",
    "re": """
import re
print("ready", flush=True)
re.match("(a*)*b", "a" * 60)""",
    "pow": """
print("ready", flush=True)
pow(3, (1 << 20000) - 1, (1 << 20000) - 3)""",
    "numpy": """
import numpy
data = numpy.random.random(1 << 24)
print("ready", flush=True)
while True:
    numpy.sort(data)""",
}

WAIT = """import sys, time
def wait():
    print("ready", flush=True)
    time.sleep(1000)
"""

# Both ways of a module that Cython made: a callback from its C code, and a loop of its own.
CYTHON = """
cdef extern from "stdlib.h":
    void qsort(void *base, size_t n, size_t size, int (*compare)(const void *, const void *) noexcept)

waiter = None

cdef int compare(const void *a, const void *b) noexcept:
    waiter()
    return 0

def sort(callback):
    global waiter
    waiter = callback
    cdef int items[3]
    qsort(items, 3, sizeof(int), compare)

class Deep:
    def method(self, n, callback):
        return [self.method(n - 1, callback) for _ in range(1)] if n else callback()

def generate(callback):
    yield 1
    yield callback()

cdef unsigned long step(unsigned long x) noexcept nogil:
    return x * 6364136223846793005UL + 1442695040888963407UL

def spin():
    cdef unsigned long x = 1
    print("ready", flush=True)
    with nogil:
        while x:
            x = step(x) | 1
    return x
"""
CYTHON_ASLEEP = {
    "cython_sort": "import corpus\ncorpus.sort(wait)",
    "cython_deep": "import corpus\ncorpus.Deep().method(20, wait)",
    "cython_generator": "import corpus\nprint(sum(corpus.generate(wait)))",
}
CYTHON_RUNNING = {"cython_spin": "import corpus\ncorpus.spin()"}


def check_asleep(checks, name, command, programs, **options):
    with contextlib.ExitStack() as stack:
        targets = {case: stack.enter_context(Target(command, WAIT + program, stderr=subprocess.DEVNULL, **options))
                   for case, program in sorted(programs.items())}
        for case in [case for case, target in targets.items() if not target.line()]:
            note("%s: no %s" % (name, case))
            del targets[case]
        for target in targets.values():
            wait_at_rest(target.pid)
        ours = {case: driver(target.pid, "asleep") for case, target in targets.items()}
        theirs = gdb_all([target.pid for target in targets.values()])
        for case, target in targets.items():
            compare(checks, "%s, %s" % (name, case), ours[case], theirs.get(target.pid, {}))


def from_interpreter(frames):
    """The frames from the interpreter's call into a library on: the innermost ones that are not its own are left out."""
    for i, frame in enumerate(frames):
        if "python" in os.path.basename(frame[4]):
            return frames[i + 1:]
    return []


def agree(mine, other):
    """Whether ours, from the interpreter on, are gdb's outermost frames."""
    rest = from_interpreter(mine)
    tail = other[-len(rest):]
    return bool(rest) and [f[1] for f in rest] == [f[1] for f in tail] and not same_names(rest, tail)


def check_running(checks, name, command, case, program, **options):
    with Target(command, program, stderr=subprocess.DEVNULL, **options) as target:
        if not target.line():
            note("%s: no %s" % (name, case))
            return
        for _ in range(TRIES):
            theirs = gdb(target.pid).get(target.pid, ([], []))[1]
            heads, ours = zip(*(driver(target.pid, "stop").get(target.pid, (["missing"], [])) for _ in range(LOOKS)))
            if any(agree(mine, theirs) for mine in ours):
                break
    what = "%s, %s" % (name, case)
    checks.that(all(" ".join(head[1:]) == "complete" for head in heads), "%s: %s" % (what, heads))
    checks.that(any(agree(mine, theirs) for mine in ours), "%s: ours %s, gdb's %s" % (what, ours[0], theirs))


def cython(folder):
    """Return: the folder with the module, for the interpreter that Cython belongs to; None where it cannot be had."""
    tool = shutil.which("cython3")
    if not tool or not shutil.which("gcc"):
        return None
    with open(os.path.join(folder, "corpus.pyx"), "w") as file:
        file.write(CYTHON)
    # Of before 3.0 without "noexcept": there it is what happens.
    done = subprocess.run([tool, "-3", "corpus.pyx"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        with open(os.path.join(folder, "corpus.pyx"), "w") as file:
            file.write(CYTHON.replace(" noexcept", ""))
        done = subprocess.run([tool, "-3", "corpus.pyx"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        note("cython3: %s" % done.stdout.decode("utf-8", "replace")[-300:])
        return None
    include = subprocess.run(["/usr/bin/python3", "-c", "import sysconfig; print(sysconfig.get_paths()['include'])"],
                             stdout=subprocess.PIPE, check=True).stdout.decode().strip()
    if not os.path.exists(os.path.join(include, "Python.h")):
        return None
    subprocess.run(["gcc", "-O2", "-w", "-shared", "-fPIC", "-I", include, "-o", "corpus.so", "corpus.c"], cwd=folder, check=True)
    return folder


def check_cython(checks, name, command, folder):
    options = {"env": dict(os.environ, PYTHONPATH=folder)}
    check_asleep(checks, name, command, CYTHON_ASLEEP, **options)
    for case, program in sorted(CYTHON_RUNNING.items()):
        check_running(checks, name, command, case, program, **options)


if os.geteuid() != 0:
    skip("needs root: stops processes")
if not HAS_GDB:
    skip("no gdb")
CHECKS = Checks()
with tempfile.TemporaryDirectory() as work:
    for found, version, start in interpreters("3.11.2-system"):
        if "chroot" in start[0] or version < (3, 7):
            continue
        check_asleep(CHECKS, found, start, ASLEEP)
        for case, program in sorted(RUNNING.items()):
            check_running(CHECKS, found, start, case, program)
        if start == ["/usr/bin/python3"]:
            module = cython(work)
            if module:
                check_cython(CHECKS, found, start, module)
            else:
                note("%s: no cython" % found)
CHECKS.end()
