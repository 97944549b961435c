# SPDX-License-Identifier: MIT
"""The main thread collects garbage all the time. Prints "ready PID", ends when its stdin does."""
import gc
import os
import sys
import threading


def end_with_stdin():
    sys.stdin.read()
    os._exit(0)


def collect(kept):
    while kept:
        gc.collect()


def main():
    threading.Thread(target=end_with_stdin, daemon=True).start()
    print("ready %d" % os.getpid(), flush=True)
    collect([[] for _ in range(300000)])


main()
