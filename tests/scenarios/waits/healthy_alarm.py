# SPDX-License-Identifier: MIT
# expect: none
"""Two threads wait for each other's lock, but an alarm is set that throws one of them out."""
import signal
import threading

both = threading.Barrier(2)
first, second = threading.Lock(), threading.Lock()


class TimedOut(Exception):
    pass


def give_up(*_):
    raise TimedOut


def other():
    with second:
        both.wait()
        with first:
            pass


signal.signal(signal.SIGALRM, give_up)
threading.Thread(target=other).start()
try:
    with first:
        both.wait()
        signal.alarm(3600)
        print("ready", flush=True)
        with second:
            pass
except TimedOut:
    pass
