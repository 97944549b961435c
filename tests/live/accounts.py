# SPDX-License-Identifier: MIT
"""Time as the sampler tells it against the program's own account of it: threads that sleep in several places for
different times, that run and sleep in turn, and that end soon; by both sources, at a high and a low rate, in each mode.

Times are drawn by lot, so that no rate keeps step with them. For how long it was sampled is known from the main thread,
which sleeps."""

import json
import os

import live
import sampled

PYTHON = "3.11.2-system 3.14.10-sid"
SLEEPERS = 4
SIGMAS = 5.5  # of a check, less than one in ten millions is beyond by chance
PROGRAM = """
import random, sys, threading, time, json
wall, cpu = {}, {}
def timed(f):
    def wrapper():
        mine = "%s %d" % (f.__name__, threading.get_ident())
        w, c = time.monotonic(), time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
        f()
        wall[mine] = wall.get(mine, 0) + time.monotonic() - w
        cpu[mine] = cpu.get(mine, 0) + time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) - c
    return wrapper
def some(seconds):
    return random.uniform(0.5, 1.5) * seconds
@timed
def nap_5():
    time.sleep(some(0.005))
@timed
def nap_20():
    time.sleep(some(0.020))
@timed
def nap_75():
    time.sleep(some(0.075))
@timed
def work():
    end = time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) + some(0.03)
    while time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) < end:
        for _ in range(100): pass
@timed
def rest():
    time.sleep(some(0.02))
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
for f in [worker, starter] + SLEEPERS * [sleeper]:
    threading.Thread(target=f, name=f.__name__, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps({"at": time.monotonic(), "wall": dict(wall), "cpu": dict(cpu)}), flush=True)
""".replace("SLEEPERS", str(SLEEPERS))


def account(target):
    target.say()
    said = json.loads(target.line())
    for what in ("wall", "cpu"):
        by_thread, said[what] = said[what], {}
        for key, seconds in by_thread.items():
            name = key.split()[0]
            said[what][name] = said[what].get(name, 0) + seconds
    return said


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


def check_shares(checks, where, found, own, samples, more):
    total, own_total = sum(found.values()), sum(own[name] for name in found)
    for name, n in found.items():
        share, truth = n / max(total, 1), own[name] / own_total
        bound = SIGMAS * (truth * (1 - truth) / samples) ** 0.5 + more
        checks.that(abs(share - truth) < bound, "%s: %s has %.3f, not %.3f, of %d; the bound is %.3f" % (
            where, name, share, truth, total, bound))
    return " ".join("%s %.3f/%.3f" % (name, n / max(total, 1), own[name] / own_total) for name, n in sorted(found.items()))


def wall(checks, where, target, source, hz, seconds):
    queued = queued_s(target.pid)
    before = account(target)
    said, message = sampled.sample(source, "wall", target.pid, hz=hz, seconds=seconds)
    after = account(target)
    queued = queued_s(target.pid) - queued
    if not checks.that(said, "%s: %s" % (where, message)):
        return
    own, window = between(before, after, "wall"), after["at"] - before["at"]
    threads = sampled.totals(said)
    ticks = threads.get("MainThread", 0)
    accuracy = said["accuracy"]
    lost = max(accuracy["expected"] - accuracy["looks"], 0) + accuracy["discarded"]
    checks.that(0.9 * hz * seconds - 3 <= ticks <= hz * window + 3, "%s: %d ticks in %.1f s: %s" % (
        where, ticks, window, accuracy))
    for name, many in (("sleeper", SLEEPERS), ("starter", 1)):
        n, slack = threads.get(name, 0), many * (0.06 * ticks + 3)
        checks.that(-slack - lost < n - many * ticks < slack, "%s: %s has %d of %d ticks: %s" % (
            where, name, n, many * ticks, accuracy))
    # Samples of one that runs come at random.
    n, slack = threads.get("worker", 0), 0.06 * ticks + SIGMAS * (0.25 * ticks) ** 0.5 + 3
    checks.that(-slack - lost < n - ticks < slack, "%s: worker has %d of %d ticks: %s" % (where, n, ticks, accuracy))
    brief = sum(s["count"] for s in said["stacks"] if any(f[0] == "brief" for f in s["frames"]))
    # Of a thread that ends between two looks the last moments are lost, and of one that is new the first: more of them
    # where a CPU has to be waited for.
    least = 0.5 - 0.3 * min(queued / seconds, 1)
    checks.that(least * ticks < brief < 1.06 * ticks + 3, "%s: threads that end have %d of %d ticks" % (where, brief, ticks))
    # What has begun and not ended is in no account; where one waited for a CPU is a guess: the place at which it was
    # seen last.
    more = 0.03 + queued / seconds
    # In the kernel, the time since the last of so many looks goes to the place that is seen: longer times weigh more.
    looks = hz * seconds if source == "vm" else min(hz, 20) * seconds / 1.5
    naps = check_shares(checks, where, by_function(said, "sleeper", ("nap_5", "nap_20", "nap_75")), own, looks * SLEEPERS, more)
    half = check_shares(checks, where, by_function(said, "worker", ("work", "rest")), own, hz * seconds, more)
    live.note("%s: %s %s; queued %.2f s; of %d ticks: %s, brief %d" % (where, naps, half, queued, ticks, " ".join(
        "%s %d" % item for item in sorted(threads.items()) if item[0] != "brief"), brief))


def on_cpu(checks, where, target, source, hz, seconds):
    queued = queued_s(target.pid)
    before = account(target)
    said, message = sampled.sample(source, "cpu", target.pid, hz=hz, seconds=seconds)
    after = account(target)
    queued = queued_s(target.pid) - queued
    if not checks.that(said, "%s: %s" % (where, message)):
        return
    # The sampling is a part of the time between the two accounts: how much it ran then the kernel knows.
    own = between(before, after, "cpu")
    ran_s = sum(said["run_ns"][tid] for tid in {str(s["tid"]) for s in said["stacks"] if s["name"] == "worker"}) / 1e9
    want = ran_s * hz * own["work"] / (own["work"] + own["rest"])
    got = by_function(said, "worker", ("work", "rest"))
    accuracy = said["accuracy"]
    if source == "bpf":
        bound = SIGMAS * want ** 0.5 + 0.08 * want + max(accuracy["expected"] - accuracy["looks"], 0)
        checks.that(abs(got["work"] - want) < bound, "%s: %d samples of work, not %d: %s" % (where, got["work"], want, accuracy))
    # From outside of the kernel, one that waits for a CPU may pass for one that runs.
    most = 0.05 * want + 3 + (queued * hz if source == "vm" else 0)
    checks.that(got["rest"] <= most, "%s: %s" % (where, got))
    sleeping = sum(by_function(said, "sleeper", ("nap_5", "nap_20", "nap_75")).values())
    checks.that(sleeping <= most, "%s: %d samples of one that sleeps" % (where, sleeping))
    live.note("%s: %d samples of work by its own account of %.0f" % (where, got["work"], want))
    return got["work"]


def with_gil(checks, where, target, source, hz, seconds):
    said, message = sampled.sample(source, "gil", target.pid, hz=hz, seconds=seconds)
    if not checks.that(said, "%s: %s" % (where, message)):
        return
    threads = sampled.totals(said)
    checks.that(threads.get("worker", 0) >= 0.8 * sum(threads.values()) - 3, "%s: %s" % (where, threads))
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
