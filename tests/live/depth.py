# SPDX-License-Identifier: MIT
"""Recursion of 1,000 (whole, over several chunks) and 6,000 (4,096 frames and the mark "truncated"): plain calls, and
calls through C, whose frames before 3.11 and entry frames after it lie elsewhere."""

import live

PROGRAM = """
import sys, threading, os
sys.setrecursionlimit(100000)
threading.stack_size(512 << 20)
never, _ = os.pipe()
ready = threading.Semaphore(0)

def plain(n):
    if n > 1:
        return plain(n - 1)
    ready.release()
    os.read(never, 1)

def through_c(n):
    if n > 1:
        return max([n], key=lambda m:
            through_c(m - 1))
    ready.release()
    os.read(never, 1)

def produce(n):
    if n > 1:
        yield from produce(n - 1)
    else:
        ready.release()
        yield os.read(never, 1)

def generators(n):
    for _ in produce(n - 1): pass

def start(f, n):
    threading.Thread(target=f, args=(n,), name="%s-%d" % (f.__name__, n), daemon=True).start()
    ready.acquire()

for n in (1000, DEEP): start(plain, n)
for n in (150, DEEP // 2):
    # 3.12 and 3.13 count calls through C, and allow few
    if n == 150 or not (3, 12) <= sys.version_info[:2] <= (3, 13): start(through_c, n)
start(generators, 900)
print("ready")
sys.stdin.readline()
"""
DEEP = 6000
LIMIT = 4096


def expected(name, n):
    if name == "plain":
        return ["plain"] * n
    if name == "generators":
        return ["produce"] * (n - 1) + ["generators"]
    return (["through_c", "<lambda>"] * n)[:2 * n - 1]


def check(checks, where, thread):
    name, n = thread["name"].split("-")
    want = expected(name, int(n)) + ["run", "_bootstrap_inner", "_bootstrap"]
    got = live.functions(thread)
    deep = len(want) > LIMIT
    checks.that(not thread["incomplete"], "%s %s: incomplete" % (where, thread["name"]))
    checks.that(thread["truncated"] == deep, "%s %s: truncated is %s" % (where, thread["name"], thread["truncated"]))
    checks.that(len(got) == min(len(want), LIMIT), "%s %s: %d frames" % (where, thread["name"], len(got)))
    wrong = [i for i, (a, b) in enumerate(zip(want, got)) if a != b]
    checks.that(not wrong, "%s %s: frame %s wrong" % (where, thread["name"], wrong[:3]))


def main():
    checks = live.Checks()
    for name, version, command in live.interpreters():
        with live.Target(command, PROGRAM.replace("DEEP", str(DEEP))) as target:
            try:
                target.ready_and_resting()
            except RuntimeError as e:
                checks.that(False, "%s: %s" % (name, e))
                continue
            dumped, said = live.dump(target.pid)
            if not checks.that(dumped, "%s: %s" % (name, said)):
                continue
            threads = [t for t in dumped["threads"] if "-" in t["name"]]
            checks.that(len(threads) == (4 if version in ((3, 12), (3, 13)) else 5), "%s: %d threads" % (name, len(threads)))
            for thread in threads:
                check(checks, name, thread)
            live.note(name)
    checks.end()


main()
