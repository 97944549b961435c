# SPDX-License-Identifier: MIT
"""Code objects that are made, run and freed at speed, each where the last one was: their names, files and lines say which
one they are, so a name that belongs to another one shows. What could not be told must be counted, never guessed."""

import json
import os
import re
import sys

import live
import sampled

PROGRAM = r'''
import sys, threading
def rounds(n):
    """Most are gone before anybody can look at them; some live for as long as it takes."""
    return 150 if n % 8 else 1000000

def make(n):
    """Line n % 40 + 2 of file n is in function n."""
    text = "\n" * (n % 40) + "def f_%07d():\n    for i in range(%d): pass\nf_%07d()\n" % (n, rounds(n), n)
    exec(compile(text, "m_%07d.py" % n, "exec"), {})

def same_name(n):
    """The file alone says it: the module's code and its function have the same names every time."""
    text = "\n" * (n % 40) + "def again():\n    for i in range(%d): pass\nagain()\n" % rounds(n + 4)
    exec(compile(text, "s_%07d.py" % n, "exec"), {})

def run():
    n = 1000000
    while True:
        make(n)
        same_name(n)
        n += 1
threading.Thread(target=run, name="run", daemon=True).start()
print("ready", flush=True)
sys.stdin.readline()
'''
NUMBER = re.compile(r"_(\d{7})")


def wrong(stack):
    """What the frames of one stack say that cannot be true of one and the same n."""
    numbers = set()
    for function, file, line in stack["frames"]:
        if not file.startswith(("m_", "s_")):
            continue
        n = int(NUMBER.search(file).group(1))
        numbers.add(n)
        if function.startswith("f_"):
            numbers.add(int(function[2:]))
        first = n % 40 + 1
        lines = (0, 1, first, first + 2) if function == "<module>" else (first, first + 1)
        if line not in lines:
            return "line %d of %s in %s" % (line, function, file)
    return "different ones: %s" % sorted(numbers) if len(numbers) > 1 else ""


def one(checks, name, command, source):
    where = "%s %s" % (name, source)
    with live.Target(command, PROGRAM) as target:
        target.ready_and_reading()
        said, message = sampled.sample(source, "cpu", target.pid, hz=1997, seconds=sampled.SECONDS)
    if not checks.that(said, "%s: %s" % (where, message)):
        return
    samples = bad = inside = noted = 0
    for stack in said["stacks"]:
        samples += stack["count"]
        inside += stack["count"] if any(file.startswith(("m_", "s_")) for _, file, _ in stack["frames"]) else 0
        what = wrong(stack)
        if what:
            bad += stack["count"]
            if noted < 3:
                noted += 1
                live.note("%s: %s" % (where, what))
    accuracy = said["accuracy"]
    # Without eBPF the thread may go on, on another CPU, while its code is looked at.
    checks.that(bad <= (0 if source == "bpf" else samples // 100), "%s: %d of %d stacks are wrong" % (where, bad, samples))
    checks.that(inside or source == "vm", "%s: none of %d stacks is in such code: %s" % (where, samples, accuracy))
    live.note("%s: %d samples, %d in such code, %d wrong; %d unresolved, %d torn" % (
        where, samples, inside, bad, accuracy["unreadable"], accuracy["torn"]))


def main():
    checks = live.Checks()
    for source in sampled.usable_sources():
        for name, _, command in live.interpreters("3.6.15-* 3.8.18-* 3.10.13-* 3.11.7-* 3.12.1-* 3.13.5t-* 3.14.10-sid"):
            one(checks, name, command, source)
    checks.end()


main()
