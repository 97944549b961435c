# SPDX-License-Identifier: MIT
"""One thread spins in a nested function, the others are asleep.

Prints "ready PID" and runs until its stdin ends (or, on a terminal, until Ctrl-C).
"""
import os
import sys
import threading

done = threading.Event()


def collatz_steps(n):
    steps = 0
    while n != 1:
        n = n * 3 + 1 if n % 2 else n // 2
        steps += 1
    return steps


def longest_chain():
    best = 0
    n = 1
    while not done.is_set():
        n = n % 100000 + 1
        best = max(best, collatz_steps(n))
    return best


def wait_for_work():
    done.wait()


def main():
    threading.Thread(target=longest_chain, name="spinner").start()
    for i in range(3):
        threading.Thread(target=wait_for_work, name="sleeper-%d" % i).start()
    print("ready %d" % os.getpid(), flush=True)
    try:
        sys.stdin.read()
    except KeyboardInterrupt:
        pass
    done.set()


main()
