# SPDX-License-Identifier: MIT
"""Runs a program to its end and says what it used."""
import os
import subprocess
import time

POLL_S = 0.2


def peak_rss_kib(pid):
    try:
        with open("/proc/%d/status" % pid) as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


def run(command, out, cpu=None, limit_s=60):
    """out: a file for both outputs. Return: (exit status, CPU ns, peak RSS KiB)."""
    if cpu is not None:
        command = ["taskset", "-c", str(cpu)] + command
    with open(out, "wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    end = time.monotonic() + limit_s
    rss = 0
    while True:
        # VmHWM and not the children's ru_maxrss, which begins with the size of whoever forked.
        rss = max(rss, peak_rss_kib(process.pid))
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = status
            return status, int((usage.ru_utime + usage.ru_stime) * 1e9), rss
        if time.monotonic() > end:
            process.kill()
        time.sleep(POLL_S)
