# SPDX-License-Identifier: MIT
"""A program whose profile is known.

LEAVES paths, each main -> spin -> phase_I -> down_I (DEPTH - 4 calls deep) -> leaf_I, all doing the same work in turn: a stack
whose names do not carry the same number was never on the stack, and each path has 1/LEAVES of the time. Threads beside it sleep.

It says "ready"; for each line on its standard input it prints its own account so far as one line of JSON, and ends with the
input: rounds done, CPU time of the thread that works, wall time, and the calibrated share of the loop in the leaves (what the
rounds cost with the leaves' loop and without it; without what calling a leaf costs).

Into LOG, where it is named, it writes all the time how far it is: after each 16 rounds the wall time and its CPU time (of
the thread that works), nanoseconds as two words of 8 bytes, in place n % LOG_ROWS; before them stands n, how many there were.

usage: ground_truth.py DEPTH THREADS [LEAVES] [WORK] [LOG]
"""
import json
import mmap
import struct
import sys
import threading
import time

DEPTH = int(sys.argv[1])
THREADS = int(sys.argv[2])
LEAVES = int(sys.argv[3]) if len(sys.argv) > 3 else 64
WORK = int(sys.argv[4]) if len(sys.argv) > 4 else 60
LOG = sys.argv[5] if len(sys.argv) > 5 else None
LOG_ROWS = 1 << 16
LOG_ROUNDS = 16

PATH = """
def leaf_{i}(work):
    for _ in range(work):
        pass

def down_{i}(depth, work):
    if depth:
        down_{i}(depth - 1, work)
    else:
        leaf_{i}(work)

def phase_{i}(work):
    down_{i}({down}, work)
"""


def build():
    names = {}
    source = "".join(PATH.format(i=i, down=max(DEPTH - 4, 0)) for i in range(LEAVES))
    exec(compile(source, "ground_truth_paths.py", "exec"), names)
    return [names["phase_%d" % i] for i in range(LEAVES)]


def sleeper(event):
    event.wait()


class Account:
    rounds = 0
    ended = False
    log = None


class Log:
    def __init__(self, path):
        with open(path, "w+b") as file:
            file.truncate(8 + 16 * LOG_ROWS)
            self.map = mmap.mmap(file.fileno(), 0)
        self.n = 0

    def write(self):
        struct.pack_into("=QQ", self.map, 8 + self.n % LOG_ROWS * 16, time.monotonic_ns(), time.thread_time_ns())
        self.n += 1
        struct.pack_into("=Q", self.map, 0, self.n)


def spin(phases, work, seconds, account):
    end = time.thread_time() + seconds
    while not account.ended and time.thread_time() < end:
        for phase in phases:
            phase(work)
        account.rounds += 1
        if account.log and account.rounds % LOG_ROUNDS == 0:
            account.log.write()


def calibrate(phases, seconds=0.3):
    """Share of the time that the loop in the leaves takes, and CPU time of a round."""
    cost = {}
    for work in (0, WORK):
        best = float("inf")
        for _ in range(3):
            begin = time.thread_time()
            account = Account()
            spin(phases, work, seconds / 3, account)
            best = min(best, (time.thread_time() - begin) / account.rounds)
        cost[work] = best
    return (cost[WORK] - cost[0]) / cost[WORK], cost[WORK]


def main():
    phases = build()
    event = threading.Event()
    for n in range(THREADS - 1):
        threading.Thread(target=sleeper, args=(event,), name="sleeper-%d" % n, daemon=True).start()
    leaf_share, round_s = calibrate(phases)
    account = Account()
    account.log = Log(LOG) if LOG else None
    clock = time.pthread_getcpuclockid(threading.get_ident())

    def answer():
        begin = time.clock_gettime(clock)
        for _ in sys.stdin:
            now = {"rounds": account.rounds, "cpu_s": time.clock_gettime(clock) - begin, "wall_s": time.monotonic()}
            print(json.dumps(dict(now, leaf_share=leaf_share, round_s=round_s)), flush=True)
        account.ended = True

    threading.Thread(target=answer, name="answer", daemon=True).start()
    print("ready", flush=True)
    spin(phases, WORK, 1e9, account)


main()
