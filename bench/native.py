#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the native stacks of all threads of a process cost: `pyspyd dump --native` beside `gdb -batch`, and beside pystack and
py-spy where they are installed.

  bench/native.py [--threads 200] [--running 0] [--times 5] [--interpreter PATTERN]…    BUILD: the build folder

Wall time, CPU time of the tool, and for how long the process stood still: the longest stop of one thread as pyspyd says it
itself, and for all tools, seen from inside, the longest pause of a thread of the target that does nothing but read the
clock. The promise: below 0.5 s of wall time, no thread stopped for 1 ms."""

import argparse
import fnmatch
import json
import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.abspath(os.environ.get("BUILD") or os.path.join(TOP, "build"))
TARGET = """
import os, sys, threading, time
threading.stack_size(256 << 10)
gate = threading.Lock()
gate.acquire()
stop = False

def sleep(n):
    return sleep(n - 1) if n else gate.acquire()

def spin():
    while not stop:
        sum(range(100))

def watch():
    # The longest pause since the last question, on request.
    longest, last = 0.0, time.perf_counter()
    while not stop:
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
        if asked.is_set():
            asked.clear()
            print(longest, flush=True)
            longest, last = 0.0, time.perf_counter()

asked = threading.Event()
for n in range(int(os.environ["THREADS"])):
    threading.Thread(target=sleep, args=(10,), daemon=True).start()
for n in range(int(os.environ["RUNNING"])):
    threading.Thread(target=spin, daemon=True).start()
if os.environ["PAUSES"]:
    threading.Thread(target=watch, daemon=True).start()
print(os.getpid(), flush=True)
for line in sys.stdin:
    asked.set()
"""


def interpreters(patterns):
    lines = subprocess.run([os.path.join(TOP, "tools/interpreters")], stdout=subprocess.PIPE, universal_newlines=True,
                           stderr=subprocess.DEVNULL, check=False).stdout.splitlines()
    for name, command in (line.split("\t") for line in lines):
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            yield name, shlex.split(command)


def wait_until_all_sleep(pid, threads):
    """Until that many threads sleep at a futex."""
    while True:
        asleep = 0
        for tid in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/syscall" % (pid, tid)) as file:
                asleep += file.read().startswith("202 ")
        if asleep >= threads:
            return
        time.sleep(0.05)


def tools():
    """(name, command for a pid, how to count the threads that it shows)"""
    yield ("pyspyd dump --native", lambda pid: [os.path.join(BUILD, "pyspyd"), "dump", "--native", "--json", "--pid", str(pid)],
           lambda out: len(json.loads(out)["threads"]))
    if shutil.which("gdb"):
        yield ("gdb -batch", lambda pid: ["gdb", "-nx", "-batch", "-ex", "set debuginfod enabled off", "-p", str(pid), "-ex",
                                          "thread apply all bt"], lambda out: out.count(b"\nThread "))
    if shutil.which("pystack"):
        yield "pystack --native", lambda pid: ["pystack", "remote", "--native", str(pid)], lambda out: out.count(b"Traceback for")
    if shutil.which("py-spy"):
        yield "py-spy dump --native", lambda pid: ["py-spy", "dump", "--native", "--pid", str(pid)], lambda out: out.count(b"Thread ")


def run(command):
    """Return: wall seconds, CPU seconds, stdout."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    out = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, out


def longest_pause(target):
    target.stdin.write(b"\n")
    target.stdin.flush()
    return float(target.stdout.readline())


def measure(name, command, args, pauses):
    environment = dict(os.environ, THREADS=str(args.threads), RUNNING=str(args.running), PAUSES="1" if pauses else "")
    target = subprocess.Popen(command + ["-c", TARGET], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        pid = int(target.stdout.readline())
        wait_until_all_sleep(pid, args.threads)
        for tool, command_of, count in tools():
            walls, cpus, paused, shown, stopped = [], [], [], 0, 0.0
            for _ in range(args.times):
                if pauses:
                    longest_pause(target)
                wall, cpu, out = run(command_of(pid))
                if pauses:
                    paused.append(longest_pause(target))
                walls.append(wall)
                cpus.append(cpu)
                shown = count(out) if out else 0
                if tool.startswith("pyspyd"):
                    stopped = max(stopped, json.loads(out)["counters"]["stopped_max_us"])
            print("%-16s %-21s %7d %8.3f (%.3f-%.3f) %8.3f %12s %12s" % (
                name, tool, shown, statistics.median(walls), min(walls), max(walls), statistics.median(cpus),
                "%.0f us" % stopped if tool.startswith("pyspyd") else "-",
                "%.1f ms" % (1e3 * statistics.median(paused)) if pauses else "-"))
    finally:
        target.kill()
        target.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=200)
    parser.add_argument("--running", type=int, default=0, help="threads beside those that run Python code all the time")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--no-pauses", action="store_true", help="without the thread that looks for pauses")
    parser.add_argument("--interpreter", action="append")
    args = parser.parse_args()
    print("%-16s %-21s %7s %22s %8s %12s %12s" % (
        "interpreter", "tool", "threads", "wall s (min-max)", "CPU s", "longest stop", "pause"))
    found = list(interpreters(args.interpreter or ["3.11.2-system"]))
    for name, command in found:
        measure(name, command, args, not args.no_pauses)
    return 0 if found else 77


if __name__ == "__main__":
    sys.exit(main())
