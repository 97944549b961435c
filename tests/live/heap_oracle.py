# SPDX-License-Identifier: MIT
"""Counts of `pyspyd heap` against a quiet target's own: gc.get_objects() by type, instances of its own classes with and
without the collector, large objects, lengths of containers, and what grew between two counts.

The collector knows no tuples and dicts that hold nothing it could free: of these there may be more. What a target makes
to tell its own numbers (a few dicts, lists and strings) is there too."""

import json
import tempfile

import live

PROGRAM = r'''
import collections, gc, os, sys

class Slotted:
    __slots__ = ("a", "b")

class Plain:
    def __init__(self):
        self.x = 1

class Outer:
    class Inner(dict):
        pass

class Text(str):
    pass

SLOTTED = [Slotted() for _ in range(5000)]
PLAIN = [Plain() for _ in range(3000)]
INNER = [Outer.Inner(a=1) for _ in range(700)]
TEXTS = [Text("x" * 2000 + str(i)) for i in range(600)]
WIDE = [tuple([[]] * 100) for _ in range(400)]
TABLE = {i: None for i in range(40000)}
UNIQUE = set(range(9000))
QUEUE = collections.deque([Plain() for _ in range(2500)])
DEEP = [[Text("y" * 900)] for _ in range(300)]
GROWS = []
gc.collect()
gc.disable()
if hasattr(gc, "unfreeze"):
    gc.unfreeze()

def name(t):
    return t.__qualname__ if t.__module__ == "builtins" else t.__module__ + "." + t.__qualname__

def tell():
    counts = {}
    for o in gc.get_objects():
        t = type(o)
        counts[t] = counts.get(t, 0) + 1
    lines = ["%s %d" % (name(t), n) for t, n in counts.items()]
    return "|".join(lines) + "#%d\n" % sys.getallocatedblocks()

tell()  # what it imports lazily, it has afterwards
gc.collect()
text = tell().encode()
sys._debugmallocstats()
os.write(1, text)
del text
while os.read(0, 1):
    GROWS.extend(Slotted() for _ in range(1234))
    os.write(1, b"grew\n")
'''

OWN = {"__main__.Slotted": 5000, "__main__.Plain": 5500, "__main__.Outer.Inner": 700, "__main__.Text": 900}
LINES_MAX = 128
BLOCKS_OFF = 16  # that come and go between the target's words and ours
# Of these the collector does not know all: there are at least as many. The list, dict and frame that tell are there too.
LOOSE = {"tuple", "dict", "list", "frozenset", "cell", "frame"}
LENGTHS = {"SLOTTED": 5000, "PLAIN": 3000, "INNER": 700, "WIDE": 400, "TABLE": 40000, "UNIQUE": 9000, "QUEUE": 2500}


def look(pid, *args):
    status, out, err = live.pyspyd("heap", "--json", "--pid", pid, *args)
    return (json.loads(out) if status == 0 else None), "exit %d: %s" % (status, err.strip())


def free_threaded(name):
    return name.split("-")[0].endswith("t")


def check_types(checks, name, told, heap):
    seen = {t["type"]: t["count"] for t in heap["types"]}
    off, same = [], 0
    for kind, n in told.items():
        # Types of C by another name than their class says, and static objects, are left out; the latter are no heap.
        if kind in seen and kind not in LOOSE and seen[kind] != n:
            off.append("%s %d instead of %d" % (kind, seen[kind], n))
        same += kind in seen and seen[kind] == n
    checks.that(not off, "%s: %s" % (name, "; ".join(off)))
    checks.that(same >= 15, "%s: only %d types are the same" % (name, same))
    for kind in ("tuple", "dict", "list", "frozenset"):
        least = told.get(kind, 0) - 3
        checks.that(seen.get(kind, 0) >= least, "%s: %s %s, not %d" % (name, kind, seen.get(kind), least))
    checks.that(abs(seen["list"] - told["list"]) <= 3, "%s: list %d, %d told" % (name, seen["list"], told["list"]))
    for kind, n in OWN.items():
        checks.that(seen.get(kind) == n, "%s: %s %s instead of %d" % (name, kind, seen.get(kind), n))
    return same


def check_blocks(checks, name, stats, blocks, heap):
    """Blocks in pools as sys._debugmallocstats tells them, class by class; sys.getallocatedblocks() has the large
    blocks in it too, of objects and tables."""
    stats.seek(0)
    rows = [line.split() for line in stats.read().decode().splitlines()]
    in_pools = sum(int(row[3]) for row in rows if len(row) == 5 and all(word.isdigit() for word in row))
    seen = heap["pools"]["blocks"]
    if free_threaded(name):  # the large ones are in pages as all others; the lines are told while they are there
        checks.that(abs(seen - blocks) <= LINES_MAX, "%s: %d blocks, %d told" % (name, seen, blocks))
        return blocks
    checks.that(abs(seen - in_pools) <= BLOCKS_OFF, "%s: %d blocks, %d told" % (name, seen, in_pools))
    checks.that(0 <= heap["large"] <= blocks - in_pools, "%s: %d large objects, %d large blocks" % (
        name, heap["large"], blocks - in_pools))
    return in_pools


def check_containers(checks, name, heap):
    lengths = {c["path"]: c["length"] for c in heap["containers"]}
    for path, n in LENGTHS.items():
        found = lengths.get("__main__." + path)
        checks.that(found == n, "%s: length of %s is %s instead of %d" % (name, path, found, n))


def check_growth(checks, name, target):
    before, why = look(target.pid)
    target.say()
    checks.that(target.ready_and_reading() == "grew", "%s: did not grow" % name)
    after, why = look(target.pid, "--diff", "50ms")
    if not checks.that(before and after, "%s: %s" % (name, why)):
        return
    count = [next(t["count"] for t in heap["types"] if t["type"] == "__main__.Slotted") for heap in (before, after)]
    checks.that(count[1] - count[0] == 1234, "%s: grew from %d to %d" % (name, count[0], count[1]))
    checks.that(all(t["grew_count"] == 0 for t in after["types"]), "%s: a quiet target grew" % name)
    grown = [c["length"] for c in after["containers"] if c["path"] == "__main__.GROWS"]
    checks.that(grown == [1234], "%s: GROWS has %s" % (name, grown))


def check(checks, name, command):
    with tempfile.TemporaryFile() as stats, live.Target(command, PROGRAM, stderr=stats) as target:
        text, _, blocks = target.ready_and_reading().partition("#")
        told = {line.rsplit(" ", 1)[0]: int(line.rsplit(" ", 1)[1]) for line in text.split("|")}
        heap, why = look(target.pid)
        if not checks.that(heap, "%s: %s" % (name, why)):
            return
        same = check_types(checks, name, told, heap)
        check_containers(checks, name, heap)
        in_pools = check_blocks(checks, name, stats, int(blocks), heap)
        checks.that(not heap["incomplete"] and not heap["pools"]["moved"], "%s: not whole" % name)
        check_growth(checks, name, target)
        live.note("%s: %d objects, %d types the same, %d blocks (told: %d), %d large objects in %d large blocks, %.0f ms" % (
            name, heap["objects"], same, heap["pools"]["blocks"], in_pools, heap["large"], int(blocks) - in_pools,
            heap["cost_ms"]))


def main():
    checks = live.Checks()
    for name, _, command in live.interpreters():
        check(checks, name, command)
    checks.end()


main()
