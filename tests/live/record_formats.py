# SPDX-License-Identifier: MIT
"""One thread spins and three sleep: what record writes in each format and mode.

RECORD_SECONDS   length of each recording (default 1)"""

import os
import tempfile
import time

import live
import profiles

PROGRAM = """
import sys, threading, os
never, _ = os.pipe()
ready = threading.Semaphore(0)
def hot():
    for i in range(1000):
        i * i
def spin():
    ready.release()
    while True:
        hot()
def asleep():
    ready.release()
    os.read(never, 1)
for f in (spin, asleep, asleep):
    threading.Thread(target=f, name=f.__name__, daemon=True).start()
for _ in range(3): ready.acquire()
def here():
    print("ready")
    sys.stdin.readline()
here()
"""
SECONDS = float(os.environ.get("RECORD_SECONDS", "1"))
HZ = 200
READERS = {"collapsed": profiles.collapsed, "speedscope": profiles.speedscope, "pprof": profiles.pprof,
           "html": profiles.html_page, "gecko": profiles.gecko, "chrome": profiles.chrome}
ROOTS = ("<module> (<string>:", "Thread._bootstrap (", "_bootstrap (")


def run_s(pid):
    """For how long its threads were on a CPU."""
    run_ns = 0
    for tid in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/schedstat" % (pid, tid)) as f:
            run_ns += int(f.read().split()[0])
    return run_ns / 1e9


def record(checks, where, pid, folder, *args):
    """Return: the file's bytes, or None."""
    path = os.path.join(folder, "profile")
    if os.path.exists(path):
        os.unlink(path)
    status, out, err = live.pyspyd("record", "-d", SECONDS, "-r", HZ, "-o", path, "--pid", pid, *args)
    if not checks.that(status == 0 and os.path.exists(path), "%s: exit %d %r" % (where, status, err)):
        return None
    checks.that(not out, where + ": something on stdout")
    checks.that(" 0 torn" in err and " 0 unreadable" in err, "%s: %r" % (where, err))
    with open(path, "rb") as f:
        return f.read()


def share(stacks, function):
    return sum(n for stack, n in stacks.items() if any(f.startswith(function + " (") for f in stack)) / sum(
        stacks.values())


def check_wall(checks, where, stacks, lost):
    """`lost`: of the time, since a host that runs another machine's processes does not interrupt ours. The thread that
    runs has fewer samples by at most as much."""
    checks.that(all(stack[0].startswith(ROOTS) for stack in stacks), "%s: a root is not one: %s" % (
        where, {stack[0] for stack in stacks}))
    for function, want in (("spin", 0.25), ("asleep", 0.5), ("here", 0.25)):
        got = share(stacks, function)
        checks.that(abs(got - want) < 0.03 + 0.25 * lost, "%s: %s has %.3f of the samples, not %.2f" % (
            where, function, got, want))


def one(checks, name, target, folder):
    nearest = 9
    for form, reader in READERS.items():
        where = "%s %s wall" % (name, form)
        lost, began = live.stolen(), time.monotonic()
        data = record(checks, where, target.pid, folder, "--format", form)
        if data is None:
            continue
        try:
            stacks = reader(data)
        except (ValueError, KeyError, IndexError, OSError) as e:
            checks.that(False, "%s: %r" % (where, e))
            continue
        took, lost = time.monotonic() - began, (live.stolen() - lost) / SECONDS
        check_wall(checks, where, stacks, lost)
        if form == "speedscope":  # which has other weights
            continue
        total = sum(stacks.values())
        # Whoever begins and ends it may have to wait for a CPU himself, but not each time.
        nearest = min(nearest, abs(total / (4 * SECONDS * HZ) - 1) - lost)
        checks.that(0.5 < total / (4 * SECONDS * HZ) < 1.02 * took / SECONDS, "%s: %d samples in %.2f s" % (where, total, took))
    checks.that(nearest < 0.1, "%s wall: no recording has the samples of its time: %.3f of them too many or few" % (
        name, nearest))
    data = record(checks, name + " svg", target.pid, folder, "--format", "svg")
    if data:
        titles = profiles.svg(data)
        for function in ("spin", "hot", "asleep", "here"):
            checks.that(any(function in (t or "") for t in titles), "%s svg: no %s" % (name, function))
    for mode in ("cpu", "gil"):
        where = "%s %s" % (name, mode)
        if mode == "gil" and name.split("-")[0].endswith("t"):
            continue  # there is no GIL to hold
        ran, began = run_s(target.pid), time.monotonic()
        data = record(checks, where, target.pid, folder, "--format", "collapsed", "--mode", mode)
        took = time.monotonic() - began
        part = (run_s(target.pid) - ran) / took
        if data is None:
            continue
        stacks = profiles.collapsed(data)
        checks.that(stacks and share(stacks, "spin") == 1, "%s: others than the one that runs: %s" % (
            where, [s[-1] for s in stacks][:6]))
        total = sum(stacks.values())
        # Waiting for a CPU is not time on one, and others want it too, at times more than at others.
        checks.that(0.5 * part < total / (SECONDS * HZ) < 1.02 * took / SECONDS,
                    "%s: %d samples in %.2f s, on a CPU for %.2f of them" % (where, total, took, part))
    data = record(checks, name + " threads", target.pid, folder, "--format", "collapsed", "--threads")
    if data:
        roots = {stack[0] for stack in profiles.collapsed(data, threads=True)}
        checks.that(len(roots) == 4 and sum("asleep" in r for r in roots) == 2 and any("MainThread" in r for r in roots),
                    "%s threads: %s" % (name, roots))


def main():
    checks = live.Checks()
    with tempfile.TemporaryDirectory() as folder:
        for name, _, command in live.interpreters("3.11.2-system 3.9.18-* 3.12.* 3.14.*-sid 3.13*t-*"):
            with live.Target(command, PROGRAM) as target:
                target.ready_and_reading()
                one(checks, name, target, folder)
            live.note(name)
    checks.end()


main()
