#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the service costs on a host with many Python processes: its CPU, of one core, over a minute when it has settled,
and its memory.

  bench/host.py [--processes 200] [--threads 10] [--settle 90] [--seconds 60] [--no-budget] [--pyspyd PROGRAM]

Each process sleeps in all threads but one, which wakes once a second."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CONF = """[store]
path = %(dir)s/pyspyd.db
[journal]
enabled = no
[socket]
path = %(dir)s/sock
[rule sleepers]
match-cmdline = bench/host\\.py
[rule others]
match-cmdline = .
exclude = yes
"""


def sleeper(threads):
    """In a forked child: never returns."""
    for _ in range(threads - 1):
        threading.Thread(target=time.sleep, args=(100000,), daemon=True).start()
    while True:
        threading.Event().wait(1)


def cpu_s(pid):
    """Of each of its threads: {(tid, name): seconds}"""
    used = {}
    for tid in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/stat" % (pid, tid)) as f:
            name = f.read().split("(", 1)[1].rsplit(")", 1)[0]
        with open("/proc/%d/task/%s/schedstat" % (pid, tid)) as f:
            used[tid, name] = int(f.read().split()[0]) / 1e9
    return used


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=200)
    parser.add_argument("--threads", type=int, default=10)
    parser.add_argument("--settle", type=float, default=90)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--no-budget", action="store_true", help="samples at the full rate, whatever it costs")
    parser.add_argument("--pyspyd", default=os.environ.get("PYSPYD") or os.path.join(HERE, "../build/pyspyd"))
    options = parser.parse_args()
    children = []
    for _ in range(options.processes):
        pid = os.fork()
        if not pid:
            sleeper(options.threads)
        children.append(pid)
    try:
        with tempfile.TemporaryDirectory(prefix="host-") as folder:
            with open(folder + "/conf", "w") as f:
                f.write(CONF % {"dir": folder} + ("[watch]\ncpu-budget = 0%\n" if options.no_budget else ""))
            service = subprocess.Popen([options.pyspyd, "daemon", "--foreground", "--config", folder + "/conf"],
                                       stdin=subprocess.DEVNULL)
            time.sleep(options.settle)
            before = cpu_s(service.pid)
            time.sleep(options.seconds)
            parts = {key: value - before.get(key, 0) for key, value in cpu_s(service.pid).items()}
            used = sum(parts.values())
            with open("/proc/%d/status" % service.pid) as f:
                rss = [line.split()[1] for line in f if line.startswith("VmRSS")][0]
            service.terminate()
            service.wait()
            print("%d processes, %d threads: %.2f %% of a core, %.1f MiB" % (
                options.processes, options.processes * options.threads, 100 * used / options.seconds, int(rss) / 1024))
            for (_, name), seconds in sorted(parts.items(), key=lambda part: -part[1]):
                if seconds > 1e-4 * options.seconds:
                    print("  %-16s %.2f %%" % (name, 100 * seconds / options.seconds))
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    sys.exit(main())
