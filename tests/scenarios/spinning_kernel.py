# SPDX-License-Identifier: MIT
"""The main thread spends its time in system calls. Prints "ready PID", ends when its stdin does."""
import os
import sys
import threading


def end_with_stdin():
    sys.stdin.read()
    os._exit(0)


def read_zeros():
    with open("/dev/zero", "rb", buffering=0) as zeros:
        buffer = bytearray(1 << 20)
        while True:
            zeros.readinto(buffer)


def main():
    threading.Thread(target=end_with_stdin, daemon=True).start()
    print("ready %d" % os.getpid(), flush=True)
    read_zeros()


main()
