#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a look at the wait graph costs: a process whose threads all wait for one lock.

  bench/waits.py [--threads N] [--looks N] [--interpreter PATTERN]…    BUILD: the build folder

Beside each look, in the same run, stands the floor under any tool that asks the kernel for the same: one pass over the
threads that reads /proc/PID/task/TID/stat and /proc/PID/task/TID/syscall. The ratio is what can be compared."""

import argparse
import fnmatch
import json
import os
import shlex
import statistics
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.abspath(os.environ.get("BUILD") or os.path.join(TOP, "build"))
TARGET = """
import os, sys, threading
threading.stack_size(128 << 10)
guard = threading.Lock()

class Worker:
    def __init__(self):
        self.guard = guard

    def work(self):
        self.step()

    def step(self):
        with self.guard:
            pass

guard.acquire()
worker = Worker()
for n in range(int(os.environ["THREADS"])):
    threading.Thread(target=worker.work, daemon=True).start()
print(os.getpid(), flush=True)
sys.stdin.read()
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
            try:
                with open("/proc/%d/task/%s/syscall" % (pid, tid)) as file:
                    asleep += file.read().startswith("202 ")
            except OSError:
                pass
        if asleep >= threads:
            return
        time.sleep(0.05)


def floor_ms(pid):
    began = time.perf_counter()
    for tid in os.listdir("/proc/%d/task" % pid):
        for name in ("stat", "syscall"):
            fd = os.open("/proc/%d/task/%s/%s" % (pid, tid, name), os.O_RDONLY)
            os.read(fd, 4096)
            os.close(fd)
    return (time.perf_counter() - began) * 1e3


def look_ms(pid):
    answer = subprocess.run([os.path.join(BUILD, "pyspyd"), "waits", "--once", "--json", "--pid", str(pid)],
                            stdout=subprocess.PIPE, check=True).stdout
    return json.loads(answer)["cost_ms"]


def measure(name, command, args):
    target = subprocess.Popen(command + ["-c", TARGET], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env=dict(os.environ, THREADS=str(args.threads)))
    try:
        pid = int(target.stdout.readline())
        wait_until_all_sleep(pid, args.threads)
        pairs = [(look_ms(pid), floor_ms(pid)) for _ in range(args.looks)]
    finally:
        target.kill()
        target.wait()
    looks = [look for look, _ in pairs]
    ratios = [look / floor for look, floor in pairs]
    print("%-20s %7d %9.1f (%.1f-%.1f) %9.2f (%.2f-%.2f)" % (
        name, args.threads, statistics.median(looks), min(looks), max(looks), statistics.median(ratios), min(ratios),
        max(ratios)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1000)
    parser.add_argument("--looks", type=int, default=9)
    parser.add_argument("--interpreter", action="append")
    args = parser.parse_args()
    print("%-20s %7s %21s %23s" % ("interpreter", "threads", "ms a look (min-max)", "of the floor (min-max)"))
    found = list(interpreters(args.interpreter or ["3.8.*", "3.*-system", "3.13.*-trixie", "3.14.*-sid", "3.15.*-sid"]))
    for name, command in found:
        measure(name, command, args)
    return 0 if found else 77


if __name__ == "__main__":
    sys.exit(main())
