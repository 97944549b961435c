# SPDX-License-Identifier: MIT
"""The main thread stays in one long call into C. Prints "ready PID", ends when its stdin does."""
import os
import sys
import threading


def end_with_stdin():
    sys.stdin.read()
    os._exit(0)


def add_up():
    return sum(range(10**12))


# a C call that holds the GIL lets no other thread run: the reader of stdin gets its turn between calls only
def main():
    threading.Thread(target=end_with_stdin, daemon=True).start()
    print("ready %d" % os.getpid(), flush=True)
    add_up()


main()
