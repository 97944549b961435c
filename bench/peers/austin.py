# SPDX-License-Identifier: MIT
"""austin 3.7 out of Debian trixie, in its CPU mode (-s: threads that run).

    P19967;T0:19967;/tmp/ground_truth.py:<module>:91;…;ground_truth_paths.py:phase_61:806 2902
    Error rate : 0/4348 (0.00 %) invalid samples
"""
import os
import re

from peers import collapsed, process

NAME = "austin"
TREE = "trixie"
PROGRAM = "usr/bin/austin"
TARGETS = ("3.13",)
HIGHEST_HZ = 1000000


def stacks(file, pid):
    """One line is one sample of one thread; its number is time, not a count."""
    main = "P%d;T0:%d;" % (pid, pid)
    for line in file:
        # Two lines in one happen at the very beginning; frames are "file:function:line".
        if line.count("P%d;" % pid) == 1 and line.startswith(main):
            frames, _ = collapsed.split(line)
            yield [f.split(":")[-2] if f.count(":") >= 2 else f for f in frames], 1


def command(tree, pid, rate_hz, seconds, out):
    interval_us = max(1, int(1e6 / rate_hz))
    return ["chroot", tree, "/" + PROGRAM, "-s", "-i", str(interval_us), "-x", str(int(seconds)), "-o", out, "-p", str(pid)]


def run(tree, pid, rate_hz, seconds, whole, folder, cpu=None):
    """Return: as collapsed.count, with cpu_ns, rss_kib and discarded; None where it failed."""
    inside = "/tmp/austin.%d" % pid
    out = os.path.join(folder, "austin.txt")
    status, cpu_ns, rss = process.run(command(tree, pid, rate_hz, seconds, inside), out, cpu, seconds + 20)
    if status or not os.path.exists(tree + inside):
        return None
    with open(tree + inside, errors="replace") as file:
        result = collapsed.count(stacks(file, pid), whole)
    os.unlink(tree + inside)
    with open(out, errors="replace") as file:
        text = re.sub(r"\x1b\[[0-9;]*m", "", file.read())
    errors = re.search(r"Error rate.*?(\d+)/(\d+)", text)
    result.update(cpu_ns=cpu_ns, rss_kib=rss, discarded=int(errors.group(1)) if errors else 0)
    return result
