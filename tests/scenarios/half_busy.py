# SPDX-License-Identifier: MIT
"""Nothing to report: two threads that each work two fifths of the time, in short turns. Ends when its stdin does."""
import os
import sys
import threading
import time

WORK_S = 0.02
REST_S = 0.03


def turn():
    end = time.thread_time() + WORK_S
    while time.thread_time() < end:
        sum(range(1000))


def worker():
    while True:
        turn()
        time.sleep(REST_S)


def main():
    for i in range(2):
        threading.Thread(target=worker, name="worker-%d" % i, daemon=True).start()
    print("ready %d" % os.getpid(), flush=True)
    sys.stdin.read()


main()
