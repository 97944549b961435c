# SPDX-License-Identifier: MIT
"""Allocates known amounts at known lines under tracemalloc, collects garbage, and says what the interpreter counted.

Runs on Python 3.6 and later, from its standard input. Writes one line for each fact, then "ready", and waits for a byte
on descriptor 3; so again for each look, until the descriptor is closed. tracemalloc_driver.c reads the same from
outside:

    start PID
    gc ENABLED COLLECTING COLLECTIONS COLLECTED UNCOLLECTABLE …   of the three generations, the young one first
    traced 0|1                        whether tracemalloc runs
    memory CURRENT PEAK               of a moment before: a little is allocated until the look
    line COUNT BYTES LINENO FILE      each line of the files whose names begin with /known/
"""

import gc
import os
import sys
import tracemalloc

NESTED = 40
LINES = 300
BLOCKS = 100000

nobody = os.open(os.devnull, os.O_WRONLY)
lines = []
keep = []


def tell(*fields):
    lines.append(" ".join(str(field) for field in fields))


def tell_collector(collecting):
    stats = gc.get_stats()
    fields = []
    for generation in stats:
        fields += [generation["collections"], generation["collected"], generation["uncollectable"]]
    tell("gc", int(gc.isenabled()), collecting, *fields)


def tell_traced():
    tell("traced", int(tracemalloc.is_tracing()))
    if not tracemalloc.is_tracing():
        return
    for statistic in tracemalloc.take_snapshot().statistics("lineno"):
        frame = statistic.traceback[0]
        if frame.filename.startswith("/known/"):
            tell("line", statistic.count, statistic.size, frame.lineno, frame.filename)
    tell("memory", *tracemalloc.get_traced_memory())


def account(collecting):
    del lines[:]
    tell_traced()
    tell_collector(collecting)
    tell("ready")
    return ("\n".join(lines) + "\n").encode("utf-8")


def look(collecting=0):
    # What was freed at a known line may be kept for reuse, and counts there until the telling itself takes it: so the
    # first accounts are told to nobody.
    for out in nobody, nobody, 1:
        data = account(collecting)
        while data:
            data = data[os.write(out, data):]
    if not os.read(3, 1):
        sys.exit(0)


def run(name, source):
    exec(compile(source, name, "exec"), {"keep": keep})


def many_lines():
    source = "".join("keep.append(bytearray(%d))\n" % (n * 7 % 5000 + 600) for n in range(LINES))
    run("/known/many.py", source)
    run("/known/na\u00efve \u6f22\u5b57 \U0001f40d.py", "keep.append([bytes(1000) for _ in range(50)])\n")
    run("/known/" + "d/" * 120 + "deep.py", "\n" * 99999 + "keep.append({n: str(n) for n in range(2000)})\n")
    run("/known/freed.py", "x = [bytes(100) for _ in range(1000)]\ndel x\n")


def nested(depth):
    source = ["def f0():", "    keep.append(bytearray(3000))"]
    for n in range(1, depth):
        source += ["def f%d():" % n, "    f%d()" % (n - 1)]
    source += ["for _ in range(10): f%d()" % (depth - 1)]
    run("/known/nested.py", "\n".join(source))


def garbage():
    for n in range(3):
        for _ in range(10 * (n + 1)):
            cycle = []
            cycle.append(cycle)
        del cycle
        gc.collect(n)


def during_collection(phase, info):
    if phase == "start":
        look(collecting=1)


os.write(1, b"start %d\n" % os.getpid())
gc.disable()
look()

tracemalloc.start()
many_lines()
garbage()
look()

tracemalloc.stop()
gc.enable()
gc.set_threshold(0)
garbage()
look()

gc.disable()
del keep[:]
tracemalloc.start(25)
nested(NESTED)
gc.callbacks.append(during_collection)
gc.collect(1)
gc.callbacks.remove(during_collection)
for _ in range(20):  # more than a ring has items
    garbage()
look()

run("/known/blocks.py", "import itertools\nkeep.append([bytes(99) for _ in itertools.repeat(0, %d)])\n" % BLOCKS)
look()
tracemalloc.stop()
look()
