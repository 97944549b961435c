#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The service while processes come and go by the hundred: its memory, descriptors and threads, minute by minute.

  bench/soak.py [--minutes 20] [--per-second 3] [--life 2-30] [--pyspyd PROGRAM]

Each child is a Python process with some threads; some spin for a while, some are stopped for a while, so that there are
findings. A line a minute: processes started so far, RSS (KiB), descriptors, threads and CPU of the service; the last line
compares the first quarter of the time (after the first minute) with the last."""

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CONF = """
[watch]
interval = 500ms
spiking-thread.for = 2s
stopped.after = 2s
[store]
path = %(dir)s/pyspyd.db
max-size = 32M
[recorder]
bucket = 10s
[journal]
enabled = no
[file]
enabled = yes
path = %(dir)s/findings.jsonl
[socket]
path = %(dir)s/sock
[rule ours]
match-cmdline = %(mark)s
[rule others]
match-cmdline = .
exclude = yes
"""
MARK = "soak-%d" % os.getpid()  # in the command lines of the children: nobody else is watched
CHILD = """
import sys, threading, time
kind, life = sys.argv[1], float(sys.argv[2])
for i in range(3):
    threading.Thread(target=time.sleep, args=(life,), daemon=True).start()
end = time.monotonic() + life
if kind == "spin":
    stop = time.monotonic() + min(life, 4)
    while time.monotonic() < stop:
        pass
time.sleep(max(end - time.monotonic(), 0))
"""


class Service:
    def __init__(self, program, folder):
        with open(folder + "/conf", "w") as f:
            f.write(CONF % {"dir": folder, "mark": MARK})
        self.log = open(folder + "/log", "wb")
        self.process = subprocess.Popen([program, "daemon", "--foreground", "--config", folder + "/conf"],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def measure(self):
        """RSS in KiB, descriptors, threads, CPU seconds."""
        base = "/proc/%d/" % self.process.pid
        with open(base + "status") as f:
            status = dict(line.split(":", 1) for line in f)
        with open(base + "stat") as f:
            stat = f.read().rsplit(")", 1)[1].split()
        ticks = os.sysconf("SC_CLK_TCK")
        return (int(status["VmRSS"].split()[0]), len(os.listdir(base + "fd")), int(status["Threads"]),
                (int(stat[11]) + int(stat[12])) / ticks)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--per-second", type=float, default=3)
    parser.add_argument("--life", default="2-30")
    parser.add_argument("--pyspyd", default=os.environ.get("PYSPYD") or os.path.join(HERE, "../build/pyspyd"))
    options = parser.parse_args()
    low, high = (float(part) for part in options.life.split("-"))
    chance = random.Random(1)
    children, stopped, started, rows = [], {}, 0, []
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        service = Service(options.pyspyd, folder)
        begin = last = time.monotonic()
        last_cpu = 0
        try:
            while time.monotonic() < begin + options.minutes * 60:
                kind = "spin" if chance.random() < 0.05 else "sleep"
                child = subprocess.Popen([sys.executable, "-c", CHILD, kind, "%.1f" % chance.uniform(low, high), MARK])
                children.append(child)
                started += 1
                if chance.random() < 0.1:
                    child.send_signal(signal.SIGSTOP)
                    stopped[child.pid] = time.monotonic() + 4
                for other in children:
                    if stopped.get(other.pid, 1e18) < time.monotonic():
                        other.send_signal(signal.SIGCONT)
                        del stopped[other.pid]
                children = [other for other in children if other.poll() is None]
                if service.process.poll() is not None:
                    sys.exit("the service ended: %s" % open(folder + "/log").read()[-2000:])
                if time.monotonic() - last >= 60:
                    rss, fds, threads, cpu = service.measure()
                    rows.append((rss, fds, threads))
                    print("%5.1f min  %5d started, %3d alive  %6d KiB  %3d descriptors  %d threads  %.2f %% CPU" % (
                        (time.monotonic() - begin) / 60, started, len(children), rss, fds, threads,
                        100 * (cpu - last_cpu) / (time.monotonic() - last)), flush=True)
                    last, last_cpu = time.monotonic(), cpu
                time.sleep(1 / options.per_second)
        finally:
            for child in children:
                child.kill()
                child.wait()
            service.process.terminate()
            print("service: exit %d; %d findings' events; its log:" % (
                service.process.wait(60), sum(1 for _ in open(folder + "/findings.jsonl"))
                if os.path.exists(folder + "/findings.jsonl") else 0))
            print(open(folder + "/log").read()[-1500:])
    quarter = max(len(rows) // 4, 1)
    for i, name in enumerate(("KiB", "descriptors")):
        first = statistics.median(row[i] for row in rows[1:1 + quarter] or rows)
        end = statistics.median(row[i] for row in rows[-quarter:])
        print("%s: %d at first, %d in the end (%+.1f %%)" % (name, first, end, 100 * (end - first) / first))


if __name__ == "__main__":
    main()
