#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What it costs a program to be asked where it opens things (pyspyd handles --origins).

  bench/origins.py [--rounds N] [--seconds S] [--python COMMAND]    BUILD: the build folder, with the tests' drivers

The program opens and closes a descriptor, as fast as it can, at the end of twenty calls; so nearly all that it does are
system calls, each of which the kernel shows to pyspyd. Its own CPU time for two hundred of them, again and again, is
taken by turns with the programs of eBPF in their place and without: each pair of neighbours is half a second apart, so
that what else this host does is in both. Twice: of all of the time, and without the slowest fifth of it.

Then it goes on alone: where it costs too much, pyspyd looks for a part of the time only. What is left of the cost by
that is the last number."""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.abspath(os.environ.get("BUILD") or os.path.join(TOP, "build"))
ALONE_S = 10
TARGET = """
import json, os, sys, time

def open_and_close(name):
    for _ in range(200):
        os.close(os.open(name, 0))

def call(depth, name):
    if depth:
        call(depth - 1, name)
    else:
        open_and_close(name)

print("ready", flush=True)
for line in sys.stdin:
    end, took, before = time.monotonic() + float(line), [], time.process_time()
    while time.monotonic() < end:
        call(20, "/dev/null")
        now = time.process_time()
        took.append(now - before)
        before = now
    took.sort()
    most = took[:len(took) * 4 // 5]
    print(json.dumps([sum(took) / len(took), sum(most) / len(most)]), flush=True)
"""


class Driver:
    """Looks at where the target makes what; `hold` makes it pause."""

    def __init__(self, pid):
        self.process = subprocess.Popen([os.path.join(BUILD, "tests/live/origins_driver"), str(pid)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True)
        line = self.process.stdout.readline()
        if line != "watching\n":
            sys.exit("the driver: " + line)

    def ask(self, what):
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def paused_s(self):
        return json.loads(self.ask("look"))["paused_s"]

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def work(target, seconds):
    """CPU time of two hundred: of all, of four in five."""
    target.stdin.write("%s\n" % seconds)
    target.stdin.flush()
    return json.loads(target.stdout.readline())


def compare(target, driver, rounds, seconds):
    """How much more they take with it, once for each pair, in turns of which is first."""
    ratios = []
    for i in range(rounds):
        took = {}
        for what in ("hold", "go") if i % 2 else ("go", "hold"):
            driver.ask(what)
            took[what] = work(target, seconds)
        ratios.append([a / b - 1 for a, b in zip(took["go"], took["hold"])])
    driver.ask("go")
    return ratios


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.25)
    parser.add_argument("--python", default="/usr/bin/python3")
    args = parser.parse_args()
    target = subprocess.Popen(shlex.split(args.python) + ["-c", TARGET], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              universal_newlines=True)
    target.stdout.readline()
    driver = Driver(target.pid)
    ratios = compare(target, driver, args.rounds, args.seconds)
    before = driver.paused_s()
    work(target, ALONE_S)
    paused = driver.paused_s() - before
    target.stdin.close()
    target.wait()
    driver.end()
    for of, shares in zip(("all", "four fifths"), zip(*ratios)):
        low, middle, high = statistics.quantiles(shares, n=4)
        print("looking, %5.1f %% more CPU time of %-11s (quartiles %.1f to %.1f, %d pairs)" % (
            100 * middle, of, 100 * low, 100 * high, len(shares)))
    print("looking for %.0f %% of the time: %.1f %% more CPU time" % (
        100 - 100 * paused / ALONE_S, (1 - paused / ALONE_S) * 100 * statistics.median(row[0] for row in ratios)))


main()
