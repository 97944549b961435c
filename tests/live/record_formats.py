# SPDX-License-Identifier: MIT
"""One thread spins and three sleep: what record writes in each format and mode.

RECORD_SECONDS   length of each recording (default 1)"""

import os
import tempfile

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


def check_wall(checks, where, stacks):
    checks.that(all(stack[0].startswith(ROOTS) for stack in stacks), "%s: a root is not one: %s" % (
        where, {stack[0] for stack in stacks}))
    for function, want in (("spin", 0.25), ("asleep", 0.5), ("here", 0.25)):
        got = share(stacks, function)
        checks.that(abs(got - want) < 0.03, "%s: %s has %.3f of the samples, not %.2f" % (where, function, got, want))


def one(checks, name, target, folder):
    for form, reader in READERS.items():
        where = "%s %s wall" % (name, form)
        data = record(checks, where, target.pid, folder, "--format", form)
        if data is None:
            continue
        try:
            stacks = reader(data)
        except (ValueError, KeyError, IndexError, OSError) as e:
            checks.that(False, "%s: %r" % (where, e))
            continue
        check_wall(checks, where, stacks)
        total = sum(stacks.values()) / (1 if form != "speedscope" or max(stacks.values()) > 4 * SECONDS else 1 / HZ)
        checks.that(form == "speedscope" or abs(total - 4 * SECONDS * HZ) < 0.1 * 4 * SECONDS * HZ,
                    "%s: %d samples" % (where, total))
    data = record(checks, name + " svg", target.pid, folder, "--format", "svg")
    if data:
        titles = profiles.svg(data)
        for function in ("spin", "hot", "asleep", "here"):
            checks.that(any(function in (t or "") for t in titles), "%s svg: no %s" % (name, function))
    for mode in ("cpu", "gil"):
        where = "%s %s" % (name, mode)
        if mode == "gil" and name.split("-")[0].endswith("t"):
            continue  # there is no GIL to hold
        data = record(checks, where, target.pid, folder, "--format", "collapsed", "--mode", mode)
        if data is None:
            continue
        stacks = profiles.collapsed(data)
        checks.that(stacks and share(stacks, "spin") == 1, "%s: others than the one that runs: %s" % (
            where, [s[-1] for s in stacks][:6]))
        total = sum(stacks.values())
        # Waiting for a CPU is not time on one, and others want it too.
        checks.that(0.15 * SECONDS * HZ < total <= 1.05 * SECONDS * HZ, "%s: %d samples" % (where, total))
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
