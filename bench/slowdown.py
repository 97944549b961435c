# SPDX-License-Identifier: MIT
"""By how much a program runs slower while something samples it.

A machine's own ups and downs are larger than what is looked for. So the sampler is there all the time, and is switched off and on
several times a second: the program's speed in each window with it is set against the mean of the two windows without it that lie
around it. What many such windows say has a median, and the median a standard error.

What works in interrupts is switched by its perf events, from outside; whatever else is stopped and continued.
"""
import ctypes
import fcntl
import math
import mmap
import os
import random
import signal
import statistics
import struct
import time

WINDOW_S = 0.06
SETTLE_S = 0.003  # left out after a switch
PIDFD_GETFD = 438
PERF_ENABLE, PERF_DISABLE = 0x2400, 0x2401


class Log:
    """What ground_truth.py writes down."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self.rows_n = (len(self.map) - 8) // 16

    def n(self):
        return struct.unpack_from("=Q", self.map, 0)[0]

    def rows(self, begin, end):
        """[(wall ns, CPU ns)] of the rows from begin on, of which none may be too old."""
        assert end - begin < self.rows_n
        return [struct.unpack_from("=QQ", self.map, 8 + i % self.rows_n * 16) for i in range(begin, end)]


class Interrupts:
    """The perf events of a process, switched by copies of its descriptors."""

    def __init__(self, pid):
        libc = ctypes.CDLL(None, use_errno=True)
        folder = "/proc/%d/fd" % pid
        pidfd = os.pidfd_open(pid)
        self.fds = [libc.syscall(PIDFD_GETFD, pidfd, int(name), 0) for name in os.listdir(folder)
                    if os.readlink(os.path.join(folder, name)) == "anon_inode:[perf_event]"]
        os.close(pidfd)

    def switch(self, on):
        for fd in self.fds:
            fcntl.ioctl(fd, PERF_ENABLE if on else PERF_DISABLE, 0)

    def close(self):
        for fd in self.fds:
            os.close(fd)


class Stopped:
    """A process that is stopped and continued."""

    def __init__(self, pid):
        self.pid = pid

    def switch(self, on):
        os.kill(self.pid, signal.SIGCONT if on else signal.SIGSTOP)

    def close(self):
        pass


def switch_of(pid):
    """How a sampler is switched; None, with pid None: nothing is, which shows the noise."""
    interrupts = Interrupts(pid) if pid else None
    if not pid or interrupts.fds:
        return interrupts
    return Stopped(pid)


def watch(log, switch, seconds):
    """Switches it for so long. Return: [(on, begin, end)] in wall ns, and the rows of that time."""
    windows, first, on = [], log.n(), False
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if switch:
            switch.switch(on)
        begin = time.monotonic_ns()
        time.sleep(WINDOW_S * random.uniform(0.8, 1.2))  # in step with nothing
        windows.append((on, begin + int(SETTLE_S * 1e9), time.monotonic_ns()))
        on = not on
    if switch:
        switch.switch(True)
    return windows, log.rows(first, log.n())


def speeds(windows, rows):
    """[(on, rows per CPU second, rows per wall second)]; None in place of a window with too few of them."""
    result, i = [], 0
    for on, begin, end in windows:
        while i < len(rows) and rows[i][0] < begin:
            i += 1
        first = i
        while i < len(rows) and rows[i][0] <= end:
            i += 1
        n = i - 1 - first
        if n < 5:
            result.append(None)
            continue
        (wall, cpu), (last_wall, last_cpu) = rows[first], rows[i - 1]
        result.append((on, n / (last_cpu - cpu), n / (last_wall - wall)))
    return result


def shares(windows, rows):
    """[(by CPU time, by wall time)], one for each window with it between two without it."""
    measured = speeds(windows, rows)
    result = []
    for before, during, after in zip(measured, measured[1:], measured[2:]):
        if before and during and after and during[0] and not before[0]:
            result.append(tuple(1 - during[i] / ((before[i] + after[i]) / 2) for i in (1, 2)))
    return result


def measure(log, pid, seconds):
    """pid: of what samples, None: of nothing. Return: shares by which the program was slower, one for each window."""
    switch = switch_of(pid)
    try:
        return shares(*watch(log, switch, seconds))
    finally:
        if switch:
            switch.close()


def median_error(values):
    """Median in per cent, and its standard error as the spread of the middle half tells it."""
    ordered = sorted(100 * v for v in values)
    spread = ordered[3 * len(ordered) // 4] - ordered[len(ordered) // 4]
    return statistics.median(ordered), 0.93 * spread / math.sqrt(len(ordered))
