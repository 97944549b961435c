# SPDX-License-Identifier: MIT
"""profiling.sampling (Tachyon) of CPython 3.15 out of Debian sid, main thread alone.

    tid:20143;ground_truth.py:<module>:91;ground_truth.py:main:86;ground_truth.py:spin:53;ground_truth_paths.py:phase_9:130 554
    Captured 997 samples in 1.00 seconds
    Error rate: 9.03
"""
import os
import re

from peers import collapsed, process

NAME = "tachyon"
TREE = "sid"
PROGRAM = "usr/bin/python3.15"
TARGETS = ("3.15",)
HIGHEST_HZ = 1000000


def stacks(file):
    for line in file:
        frames, times = collapsed.split(line)
        yield [f.split(":")[-2] if f.count(":") >= 2 else f for f in frames], times


def command(tree, pid, rate_hz, seconds, out):
    return ["chroot", tree, "/" + PROGRAM, "-m", "profiling.sampling", "attach", "-r", str(int(rate_hz)), "-d",
            str(int(seconds)), "--collapsed", "-o", out, str(pid)]


def run(tree, pid, rate_hz, seconds, whole, folder, cpu=None):
    """Return: as collapsed.count, with cpu_ns, rss_kib and discarded; None where it failed."""
    inside = "/tmp/tachyon.%d" % pid
    out = os.path.join(folder, "tachyon.txt")
    status, cpu_ns, rss = process.run(command(tree, pid, rate_hz, seconds, inside), out, cpu, seconds + 30)
    if status or not os.path.exists(tree + inside):
        return None
    with open(tree + inside, errors="replace") as file:
        result = collapsed.count(stacks(file), whole)
    os.unlink(tree + inside)
    with open(out, errors="replace") as file:
        text = file.read()
    captured = re.search(r"Captured ([\d,]+) samples", text)
    rate = re.search(r"Error rate: ([\d.]+)", text)
    tried = int(captured.group(1).replace(",", "")) if captured else 0
    result.update(cpu_ns=cpu_ns, rss_kib=rss, discarded=round(tried * float(rate.group(1)) / 100) if rate else 0)
    return result
