# SPDX-License-Identifier: MIT
"""Time as the sampler tells it against the program's own account of it: threads that sleep in several places for
different times, that run and sleep in turn, and that end soon; by both sources, at a high and a low rate, in each mode."""

import json
import os

import live
import sampled

PYTHON = "3.11.2-system 3.14.10-sid"
PROGRAM = """
import sys, threading, time, json
wall, cpu, lock = {}, {}, threading.Lock()
def timed(f):
    def wrapper():
        w, c = time.monotonic(), time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
        f()
        wall[f.__name__] = wall.get(f.__name__, 0) + time.monotonic() - w
        cpu[f.__name__] = cpu.get(f.__name__, 0) + time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) - c
    return wrapper
@timed
def nap_5():
    time.sleep(0.005)
@timed
def nap_20():
    time.sleep(0.020)
@timed
def nap_75():
    time.sleep(0.075)
@timed
def work():
    end = time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) + 0.03
    while time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) < end:
        for _ in range(100): pass
@timed
def rest():
    time.sleep(0.02)
def sleeper():
    while True:
        nap_5(); nap_20(); nap_75()
def worker():
    while True:
        work(); rest()
def brief():
    time.sleep(0.3)
def starter():
    while True:
        t = threading.Thread(target=brief, name="brief", daemon=True)
        t.start()
        t.join()
for f in (sleeper, worker, starter):
    threading.Thread(target=f, name=f.__name__, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps({"at": time.monotonic(), "wall": wall, "cpu": cpu}), flush=True)
"""


def account(target):
    target.say()
    return json.loads(target.line())


def queued_s(pid):
    """For how long its threads have waited for a CPU."""
    total = 0
    for tid in os.listdir("/proc/%d/task" % pid):
        try:
            with open("/proc/%d/task/%s/schedstat" % (pid, tid)) as f:
                total += int(f.read().split()[1])
        except OSError:
            pass
    return total / 1e9


def between(before, after, what):
    return {name: after[what][name] - before[what].get(name, 0) for name in after[what]}


def by_function(said, thread, names):
    found = {name: 0 for name in names}
    for stack in said["stacks"]:
        if stack["name"] == thread:
            for function, _, _ in stack["frames"]:
                if function in found:
                    found[function] += stack["count"]
    return found


def check_shares(checks, where, found, own, bound):
    total, own_total = sum(found.values()), sum(own[name] for name in found)
    for name, n in found.items():
        share, truth = n / max(total, 1), own[name] / own_total
        checks.that(abs(share - truth) < bound, "%s: %s has %.3f, not %.3f, of %d" % (where, name, share, truth, total))
    return " ".join("%s %.3f/%.3f" % (name, n / max(total, 1), own[name] / own_total) for name, n in sorted(found.items()))


def wall(checks, where, target, source, hz, seconds):
    queued = queued_s(target.pid)
    before = account(target)
    said, message = sampled.sample(source, "wall", target.pid, hz=hz, seconds=seconds)
    after = account(target)
    queued = queued_s(target.pid) - queued
    if not checks.that(said, "%s: %s" % (where, message)):
        return
    own = between(before, after, "wall")
    threads = sampled.totals(said)
    ticks = hz * seconds
    for name in ("sleeper", "worker", "starter", "MainThread"):
        slack = 0.06 * ticks + (3 * ticks ** 0.5 if name == "worker" else 3)  # samples of one that runs come at random
        checks.that(abs(threads.get(name, 0) - ticks) < slack, "%s: %s has %d of %d ticks: %s" % (
            where, name, threads.get(name, 0), ticks, said["accuracy"]))
    brief = sum(s["count"] for s in said["stacks"] if any(f[0] == "brief" for f in s["frames"]))
    # Of a thread that ends between two looks the last moments are lost, and of one that is new the first.
    checks.that(0.5 * ticks < brief < 1.06 * ticks + 3, "%s: threads that end have %d of %d ticks" % (where, brief, ticks))
    # So many looks at whole naps: the standard error of the longest one's share is about half of 1/sqrt(looks).
    looks = min(hz, 20) * seconds
    bound = 3.5 * 0.5 / looks ** 0.5
    # Where it waited for a CPU is a guess: the place at which it was seen last.
    if queued > 0.05 * seconds:
        live.note("%s: its threads waited %.1f of %d s for a CPU: shares are not compared" % (where, queued, seconds))
        bound = 1
    naps = check_shares(checks, where, by_function(said, "sleeper", ("nap_5", "nap_20", "nap_75")), own, bound)
    half = check_shares(checks, where, by_function(said, "worker", ("work", "rest")), own, bound)
    live.note("%s: %s %s; of %d ticks: %s" % (where, naps, half, ticks, " ".join("%s %d" % item for item in sorted(threads.items()))))


def on_cpu(checks, where, target, source, hz, seconds):
    before = account(target)
    said, message = sampled.sample(source, "cpu", target.pid, hz=hz, seconds=seconds)
    after = account(target)
    if not checks.that(said, "%s: %s" % (where, message)):
        return
    # The sampling is a part of the time between the two accounts.
    want = between(before, after, "cpu")["work"] / (after["at"] - before["at"]) * seconds * hz
    got = by_function(said, "worker", ("work", "rest"))
    accuracy = said["accuracy"]
    if source == "bpf":
        bound = 4 * want ** 0.5 + 0.12 * want
        checks.that(abs(got["work"] - want) < bound, "%s: %d samples of work, not %d: %s" % (where, got["work"], want, accuracy))
    checks.that(got["rest"] <= 0.05 * want + 3, "%s: %s" % (where, got))
    sleeping = sum(by_function(said, "sleeper", ("nap_5", "nap_20", "nap_75")).values())
    checks.that(sleeping <= 0.05 * want + 3, "%s: %d samples of one that sleeps" % (where, sleeping))
    live.note("%s: %d samples of work by its own account of %.0f" % (where, got["work"], want))
    return got["work"]


def with_gil(checks, where, target, source, hz, seconds):
    said, message = sampled.sample(source, "gil", target.pid, hz=hz, seconds=seconds)
    if not checks.that(said, "%s: %s" % (where, message)):
        return
    threads = sampled.totals(said)
    checks.that(threads.get("worker", 0) >= 0.8 * sum(threads.values()), "%s: %s" % (where, threads))
    live.note("%s: %s" % (where, threads))


def main():
    checks = live.Checks()
    usable = sampled.usable_sources()
    for name, _, command in live.interpreters(PYTHON):
        with live.Target(command, PROGRAM) as target:
            target.ready()
            for source in usable:
                where = "%s %s" % (name, source)
                wall(checks, where + " wall 20 Hz", target, source, 20, 6)
                wall(checks, where + " wall 1000 Hz", target, source, 1000, 4)
                on_cpu(checks, where + " cpu 500 Hz", target, source, 500, 2)
                with_gil(checks, where + " gil 500 Hz", target, source, 500, 1)
    checks.end()


main()
