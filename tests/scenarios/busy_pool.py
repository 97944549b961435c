# SPDX-License-Identifier: MIT
"""Two worker processes, each with a spinning main thread; their parent sleeps. Ends when its stdin does."""
import os
import sys


def work_on_and_on():
    n = 0
    while True:
        n = (n * 31 + 7) % 1000003


def main():
    workers = []
    for _ in range(2):
        pid = os.fork()
        if not pid:
            work_on_and_on()
        workers.append(pid)
    print("ready %d" % os.getpid(), flush=True)
    sys.stdin.read()
    for pid in workers:
        os.kill(pid, 9)


main()
