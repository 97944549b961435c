#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`dump --native` of programs whose threads sleep, run and call back in native code: frames around Python's as the
program has them, threads without Python, short stops, and the same functions as gdb shows.

    native_dump.py [PATTERN...]    only interpreters whose names match"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from live import HERE, Checks, Target, dump, interpreters, note, pyspyd, skip, wait_at_rest

PROGRAM = """
import sys, os, time, threading
def say(name, f, *args):
    t = threading.Thread(target=f, args=args, name=name)
    t.daemon = True
    t.start()
def sleeps(): time.sleep(1000)
lock = threading.Lock()
lock.acquire()
def waits(): lock.acquire()
never, _ = os.pipe()
def reads(): os.read(never, 1)
def deep(n):
    if n: return max([n], key=lambda m: deep(n - 1))
    time.sleep(1000)
for f in sleeps, waits, reads: say(f.__name__, f)
say("deep", deep, 20)
busy = 0
try:
    import zlib
    data = os.urandom(1 << 22)
    def spins():
        while True: zlib.compress(data)
    say("spins", spins)
    busy += 1
except ImportError: pass
try:
    import sqlite3
    def queries():
        sqlite3.connect(":memory:").execute("with recursive n(i) as (select 1 union all select i + 1 from n) "
                                            "select max(i) from n").fetchall()
    say("queries", queries)
    busy += 1
except ImportError: pass
try:
    import ctypes
    libc = ctypes.CDLL(None)
    KIND = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    def compare(a, b):
        time.sleep(1000)
        return 0
    compare = KIND(compare)
    say("sorts", lambda: libc.qsort((ctypes.c_int * 4)(), 4, 4, compare))
    libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, ctypes.cast(libc.pause, ctypes.c_void_p), None)
except (ImportError, AttributeError): pass
sys.stdout.write("ready %d\\n" % busy)
sys.stdout.flush()
sys.stdin.read(1)
"""

NO_REGISTER = "a register is not known"
# The innermost native functions must be among these (newest first), then the Python function comes.
SLEEPS = "clock_nanosleep|__clock_nanosleep|select|__select|pselect|clock_nanosleep_time64|nanosleep"


def names(thread):
    return ["py:" + f["function"] if f["lang"] == "python" else f["function"] for f in thread["stack"]
            if f["lang"] != "kernel"]


def by_name(dumped):
    return {t["name"][:15]: t for t in dumped["threads"]}


def in_order(have, want):
    """Whether the patterns match items of the list in this order."""
    rest = iter(have)
    return all(any(re.match("(%s)$" % w, item) for item in rest) for w in want)


def check_thread(checks, what, threads, name, want, complete=True):
    thread = threads.get(name)
    if thread is None:
        return
    have = names(thread)
    text = "%s, %s: %s %s" % (what, name, have, thread["native"])
    if thread["native"]["why"] == NO_REGISTER and "blocking" not in what:  # only a stop would tell it
        note("%s, %s: %s" % (what, name, NO_REGISTER))
        checks.that(in_order(have, [w for w in want if w.startswith("py:")]), text)
        return
    checks.that(in_order(have, want), text)
    checks.that(not [f for f in thread["stack"] if f.get("doubt") == "unmatched"], "unmatched: " + text)
    checks.that(thread["native"]["agrees"], "does not agree: " + text)
    if complete:
        checks.that(thread["native"]["complete"], "not complete: " + text)
    checks.that(have[-1:] and not have[-1].startswith("py:"), "no native end: " + text)


def check_program(checks, name, version, command):
    with Target(command, PROGRAM) as target:
        busy = int(target.ready().split()[1])
        wait_at_rest(target.pid, busy)
        for options in [], ["--blocking"], ["--locals"]:
            what = "%s %s" % (name, " ".join(options))
            dumped, said = dump(target.pid, "--native", *options)
            if not checks.that(dumped is not None, "%s: %s" % (what, said)):
                continue
            check_dump(checks, what, version, dumped, options)
        wait_at_rest(target.pid, busy)  # who was stopped goes back to sleep
        check_alone(checks, name, target.pid)
        if HAS_GDB and any(part in name for part in ("3.11.2-system", "3.12.1", "3.13.0")):
            check_gdb(checks, name, target.pid, busy)


def check_dump(checks, what, version, dumped, options):
    threads = by_name(dumped)
    checks.that({"sleeps", "waits", "reads", "deep", "MainThread"} <= set(threads), "%s: %s" % (what, sorted(threads)))
    check_thread(checks, what, threads, "sleeps", [SLEEPS, ".*time_sleep.*|.*pysleep.*|.*floatsleep.*|PyObject_.*|_Py.*", "py:sleeps", ".*"])
    check_thread(checks, what, threads, "waits", ["py:waits", "py:run", "py:_bootstrap_inner", ".*"])
    check_thread(checks, what, threads, "reads", ["__libc_read|read|__read", "py:reads", "py:run", ".*"])
    check_thread(checks, what, threads, "deep", ["py:deep", ".*min_max.*|builtin_max.*|max", "py:deep"] * 2)
    check_thread(checks, what, threads, "sorts", [SLEEPS, "py:compare", "qsort.*|__qsort.*|_quicksort|msort.*", "py:<lambda>", "py:run"])
    for name, python in ("spins", "py:spins"), ("queries", "py:queries"):
        thread = threads.get(name)
        if thread is None:
            continue
        stopped = thread["native"]["stopped_us"]
        STOPS.append(stopped)
        if thread["native"]["why"] and "stop" in thread["native"]["why"]:  # a busy machine
            MISSED.append(what)
            continue
        check_thread(checks, what, threads, name, [python, "py:run", ".*"])
        checks.that(bool(options == ["--blocking"]) == (stopped == 0), "%s, %s: stopped for %s" % (what, name, stopped))
    foreign = [t for t in dumped["threads"] if t["interpreter"] is None]
    if "sorts" in threads:
        checks.that(any("pause" in n for t in foreign for n in names(t)), "%s: no thread without Python" % what)
    if os.geteuid() == 0 and options != ["--blocking"] and KERNEL:
        checks.that(any(f["lang"] == "kernel" for f in threads["sleeps"]["stack"]), "%s: no kernel frames" % what)
    if options == ["--locals"]:
        checks.that(any(f.get("locals") for f in threads["deep"]["stack"]), "%s: no variables" % what)


def stops_of(pid):
    """How often each thread went off a CPU of its own accord."""
    out = {}
    for tid in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/status" % (pid, tid)) as f:
            out[tid] = [line for line in f if line.startswith("voluntary")]
    return out


def check_alone(checks, name, pid):
    """Sleeping threads do not notice."""
    before = stops_of(pid)
    dumped, _ = dump(pid, "--native")
    after = stops_of(pid)
    for thread in dumped["threads"] if dumped else []:
        if thread["state"] == "S" and thread["name"] in ("sleeps", "waits", "reads", "deep", "sorts"):
            tid = str(thread["tid"])
            checks.that(before[tid] == after[tid], "%s: %s was woken" % (name, thread["name"]))


def plain(function):
    return re.sub(r"\[clone.*|\.(cold|part|isra|constprop|lto_priv).*|@.*|\(.*", "", function)


def gdb(pid):
    done = subprocess.run(
        ["gdb", "-nx", "-batch", "-ex", "set backtrace past-main on", "-ex", "set backtrace limit 3000",
         "-ex", "set debuginfod enabled off", "-p", str(pid), "-x", os.path.join(HERE, "native_gdb.py")],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
    threads, frames = {}, []
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        words = line.split(" ")
        if words[0] == "thread":
            frames = threads[int(words[1])] = []
        elif words[0] == "frame":
            frames.append(plain(words[2]))
    return threads


def squeeze(frames):
    """One mark for each run of frames of the evaluation loop, and for names that one of the two does not know."""
    out = []
    for frame in frames:
        mark = "LOOP" if frame == "_PyEval_EvalFrameDefault" else "?" if frame == "?" or "+0x" in frame else frame
        if mark not in ("LOOP", "?") or out[-1:] != [mark]:
            out.append(mark)
    return out


def check_gdb(checks, name, pid, busy):
    """The same functions for threads that sleep; libc's have many names each, so those are compared by their number."""
    theirs = gdb(pid)
    wait_at_rest(pid, busy)
    dumped, _ = dump(pid, "--native")
    for thread in dumped["threads"]:
        if thread["name"] not in ("sleeps", "waits", "reads", "deep", "sorts"):
            continue
        other = squeeze(theirs.get(thread["tid"], []))
        mine, libc = [], set()
        for frame in thread["stack"]:
            if frame["lang"] == "kernel" or frame.get("inlined"):
                continue
            mine.append("_PyEval_EvalFrameDefault" if frame["lang"] == "python" else plain(frame["function"]))
            if "libc.so" in frame["module"]:
                libc.add(len(mine) - 1)
        mine = squeeze(mine)
        checks.that(len(mine) == len(other), "%s, %s: ours %s, gdb's %s" % (name, thread["name"], mine, other))
        here = [f["function"] for f in thread["stack"] if "libc.so" in f["module"]]
        wrong = [(a, b) for a, b in zip(mine, other)
                 if a != b and a not in [plain(h) for h in here] and "?" not in (a, b)]
        checks.that(not wrong, "%s, %s: names differ: %s" % (name, thread["name"], wrong))


MANY = """
import sys, threading, time
for i in range(200):
    t = threading.Thread(target=time.sleep, args=(1000,))
    t.daemon = True
    t.start()
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.read(1)
"""


def check_many(checks, name, command):
    with Target(command, MANY) as target:
        target.ready_and_resting()
        before = os.times()
        began = time.monotonic()
        status, out, err = pyspyd("dump", "--native", "--pid", target.pid)
        took = time.monotonic() - began
        cpu = os.times().children_user + os.times().children_system - before.children_user - before.children_system
        checks.that(status == 0 and out.count("nanosleep") + out.count("select") >= 200, "%s: %s" % (name, err))
        note("%s: 200 threads in %.2f s, %.2f s of the processor" % (name, took, cpu))


HAS_GDB = shutil.which("gdb") is not None
KERNEL = os.path.exists("/proc/self/stack")
STOPS, MISSED = [], []
if os.geteuid() != 0:
    skip("needs root: stops processes")
if not HAS_GDB:
    note("no gdb: only known stacks are compared")
CHECKS = Checks()
for found, python_version, start in interpreters():
    check_program(CHECKS, found, python_version, start)
    if found.startswith(("3.11.2", "3.13.0")):
        check_many(CHECKS, found, start)
if STOPS:
    note("stops: %d, the longest %.0f us; %d threads did not stop in time" % (len(STOPS), max(STOPS), len(MISSED)))
    CHECKS.that(len(MISSED) < len(STOPS), "no thread that runs was caught")
CHECKS.end()
