#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What it costs a program to be asked where it opens things (pyspyd handles --origins).

  bench/origins.py [--rounds N] [--seconds S] [--python COMMAND]    BUILD: the build folder

The program opens and closes a descriptor, as fast as it can, at the end of twenty calls; so nearly all that it does are
system calls, each of which the kernel shows to pyspyd. Its own CPU time for a thousand of them is taken by turns without
and with, and once more with a program of eBPF at the same place that does nothing at all (bpftrace, where it is there):
that is what the kernel takes for the place alone. Ratios of neighbours, their median and their extremes."""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.abspath(os.environ.get("BUILD") or os.path.join(TOP, "build"))
TARGET = """
import json, os, sys, time

def open_and_close(name):
    for _ in range(1000):
        os.close(os.open(name, 0))

def call(depth, name):
    if depth:
        call(depth - 1, name)
    else:
        open_and_close(name)

print("ready", flush=True)
for line in sys.stdin:
    end, rounds, began = time.monotonic() + float(line), 0, time.process_time()
    while time.monotonic() < end:
        call(20, "/dev/null")
        rounds += 1
    print(json.dumps((time.process_time() - began) / rounds), flush=True)
"""


def account(target, seconds):
    """CPU time of a thousand."""
    target.stdin.write("%s\n" % seconds)
    target.stdin.flush()
    return json.loads(target.stdout.readline())


def cost(target, seconds, command):
    """How much more a thousand take while the command runs, beside the mean of before and after."""
    before = account(target, seconds)
    watcher = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)  # until its programs are there
    during = account(target, seconds)
    if watcher.poll() is not None:
        sys.exit("%s ended before it should, with %s" % (command[0], watcher.returncode))
    watcher.terminate()
    watcher.wait()
    after = account(target, seconds)
    return during / ((before + after) / 2) - 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--python", default="/usr/bin/python3")
    args = parser.parse_args()
    target = subprocess.Popen(shlex.split(args.python) + ["-c", TARGET], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              universal_newlines=True)
    target.stdout.readline()
    commands = {"pyspyd": [os.path.join(BUILD, "pyspyd"), "handles", "--origins", "1h", "--pid", str(target.pid)]}
    if shutil.which("bpftrace"):
        commands["an empty program"] = ["bpftrace", "-e", "tracepoint:raw_syscalls:sys_exit /pid == 0/ { @ = 1 }"]
    results = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            results[name].append(cost(target, args.seconds, command))
    target.stdin.close()
    target.wait()
    for name, shares in results.items():
        print("%-18s %5.1f %% more CPU time   (%.1f to %.1f, %d rounds)" % (
            name, 100 * statistics.median(shares), 100 * min(shares), 100 * max(shares), len(shares)))


main()
