#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a census of a heap costs: `pyspyd heap` of a program with so many MiB of small objects, with and without looking
for who keeps what, beside a floor in the same run: one pass of process_vm_readv over the same memory.

  bench/heap.py [--mib 256,1024] [--runs 5] [--python PYTHON]

A line for each size: seconds as min / median / max, the ratio of the medians to the floor's, and the peak memory of
pyspyd in percent of the heap."""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PYSPYD = os.environ.get("PYSPYD") or os.path.join(HERE, "../build/pyspyd")
CHUNK = 1 << 20

TARGET = """
import sys, time
class Order:
    def __init__(self, i):
        self.number, self.lines, self.name = i, [i], "order %d" % i
orders = {}
def mib():
    return int([l for l in open("/proc/self/status") if l.startswith("RssAnon")][0].split()[1]) >> 10
i = 0
while mib() < int(sys.argv[1]):
    for i in range(i, i + 20000):
        orders[i] = Order(i)
    i += 1
print("ready", flush=True)
time.sleep(10000)
"""


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def floor(pid):
    """Reads all anonymous writable memory once. Return: seconds."""
    libc = ctypes.CDLL(None, use_errno=True)
    buf = ctypes.create_string_buffer(CHUNK)
    local = Iovec(ctypes.addressof(buf), CHUNK)
    with open("/proc/%d/maps" % pid) as f:
        maps = [line.split() for line in f]
    regions = [[int(x, 16) for x in m[0].split("-")] for m in maps if m[1].startswith("rw") and m[4] == "0"]
    start = time.monotonic()
    for at, end in regions:
        while at < end:
            n = min(CHUNK, end - at)
            local.len = n
            remote = Iovec(at, n)
            libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
            at += n
    return time.monotonic() - start


def measure(pid, *options):
    """Return: seconds, what it said, peak KiB."""
    start = time.monotonic()
    process = subprocess.Popen([PYSPYD, "heap", "--json", *options, str(pid)], stdout=subprocess.PIPE)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("pyspyd heap failed")
    return time.monotonic() - start, json.loads(out), usage.ru_maxrss


def spread(values):
    return "%.2f / %.2f / %.2f s" % (min(values), statistics.median(values), max(values))


def size(mib, runs, python):
    target = subprocess.Popen([python, "-c", TARGET, str(mib)], stdout=subprocess.PIPE)
    try:
        target.stdout.readline()
        floors, counts, paths, peak, heap = [], [], [], 0, None
        for _ in range(runs):
            floors.append(floor(target.pid))
            seconds, heap, rss = measure(target.pid, "--no-paths")
            counts.append(seconds)
            seconds, heap, with_paths = measure(target.pid)
            paths.append(seconds)
            peak = max(peak, rss, with_paths)
    finally:
        target.kill()
        target.wait()
    base = statistics.median(floors)
    print("%5d MiB, %.2f M objects  floor %s  count %s (%.1f×)  with paths %s (%.1f×)  peak %.1f MiB (%.1f %%)" % (
        mib, heap["objects"] / 1e6, spread(floors), spread(counts), statistics.median(counts) / base, spread(paths),
        statistics.median(paths) / base, peak / 1024, 100 * peak / 1024 / mib), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", default="256,1024")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    for mib in options.mib.split(","):
        size(int(mib), options.runs, options.python)


if __name__ == "__main__":
    main()
