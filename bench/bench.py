# SPDX-License-Identifier: MIT
"""Measures pyspyd beside its peers on a program whose profile is known (ground_truth.py).

Everything that is compared runs in turn on the same process, several times over, and medians or sums are shown: the machine may
have other work. What is judged are ratios and counts, no absolute time. Run by bench/run.

usage: bench.py [--quick] [--json FILE]
"""
import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import slowdown as slow
from peers import austin, tachyon

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get("BUILD", os.path.join(TOP, "build"))
CACHE = os.environ.get("PYSPYD_CACHE", os.path.join(TOP, "cache"))
SAMPLER = os.path.join(os.path.abspath(BUILD), "bench", "sampler_bench")
PEERS = (austin, tachyon)
WANTED = ("3.13", "3.15")
WARM_UP_S = 1.2  # as in sampler_bench.c
WORD_HZ = 2000
LEAVES, WORK = 64, 60
MANY_HZ = 5000  # for the count of torn stacks


class Plan:
    """How much of it."""

    def __init__(self, quick):
        self.quick = quick
        self.repeats = 1 if quick else 5
        self.other_repeats = 1 if quick else 2
        self.seconds = 1 if quick else 2
        self.peer_seconds = (1, 2) if quick else (1, 3)
        self.depths = () if quick else (5, 100)
        self.threads = (500,) if quick else (50, 500)
        self.slow_s = 4 if quick else 30  # with each way, in so many turns:
        self.slow_turns = 1 if quick else 5
        self.many_s = 2 if quick else 20


def say(text):
    print(text, file=sys.stderr, flush=True)


def cpus():
    """(of the target, of what looks from elsewhere); the same where there is one only."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-1], allowed[0]


TARGET_CPU, OTHER_CPU = cpus()


def pythons():
    """The interpreters that are measured: {minor: (name, command, tree or None)}; those in trees first, as peers need them."""
    listed = subprocess.run([os.path.join(TOP, "tools", "interpreters")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            stdin=subprocess.DEVNULL, universal_newlines=True, check=False).stdout
    found = {}
    for line in listed.splitlines():
        name, command = line.split("\t")[:2]
        version = name.split("-")[0]
        minor = ".".join(version.split(".")[:2])
        if minor not in WANTED or version.endswith("t") or name.endswith("-dbg"):
            continue
        tree = command.split()[1] if command.startswith("chroot ") else None
        serves = any(tree == os.path.join(CACHE, peer.TREE) and minor in peer.TARGETS for peer in PEERS)
        if minor not in found or serves:
            found[minor] = (name, command.split(), tree)
    return found


class Target:
    """The ground-truth program, running while the block does."""

    def __init__(self, python, depth, threads, log=None):
        self.name, command, self.tree = python
        self.depth, self.threads = depth, threads
        self.downs = max(depth - 4, 0) + 1
        script = "/tmp/ground_truth.py" if self.tree else os.path.join(TOP, "bench", "ground_truth.py")
        self.command = ["taskset", "-c", str(TARGET_CPU)] + command + [script, str(depth), str(threads)]
        self.log = log
        if log:
            inside = "/tmp/" + os.path.basename(log)
            self.log = self.tree + inside if self.tree else log
            self.command += [str(LEAVES), str(WORK), inside if self.tree else log]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True)
        self.pid = self.process.pid
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("%s: the target did not start" % self.name)
        return self

    def __exit__(self, *unused):
        self.process.stdin.close()
        self.process.wait()
        if self.log:
            os.unlink(self.log)

    def account(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def sampler(target, *args, cpu=None):
    """One measurement by sampler_bench, or None; why is on stderr."""
    command = [SAMPLER, args[0], str(target.pid)] + [str(a) for a in args[1:]]
    if cpu is not None:
        command = ["taskset", "-c", str(cpu)] + command
    done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, universal_newlines=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def peer_run(peer, target, hz, seconds, folder, cpu):
    """The long run less a short one, so that starting and writing the file count for nothing."""
    results = [peer.run(target.tree, target.pid, hz, s, target.downs, folder, cpu) for s in seconds]
    if None in results:
        return None
    short, long = results
    if long["samples"] <= short["samples"]:
        return None
    return dict(long, marginal_cpu_ns=long["cpu_ns"] - short["cpu_ns"], marginal_samples=long["samples"] - short["samples"],
                wall_ns=seconds[1] * 1e9)


class Row:
    """All runs of one tool in one way on one target."""

    def __init__(self, target, tool, hz, runs):
        self.python, self.depth, self.threads = target.name, target.depth, target.threads
        self.tool, self.hz, self.runs = tool, hz, [r for r in runs if r]

    def sum(self, key):
        return sum(r.get(key, 0) for r in self.runs)

    def cost_ns(self):
        costs = [r.get("marginal_cpu_ns", r["cpu_ns"]) / r.get("marginal_samples", r["samples"])
                 for r in self.runs if r["samples"]]
        return statistics.median(costs) if costs else math.nan

    def rate(self):
        return statistics.median(r["samples"] / r["wall_ns"] * 1e9 for r in self.runs) if self.runs else math.nan

    def share(self, key):
        return self.sum(key) / self.sum("samples") if self.sum("samples") else math.nan

    def lost(self):
        """Looks that gave no sample, as the sampler itself says."""
        return self.sum("discarded") + self.sum("rejected") + self.sum("unreadable")

    def lost_share(self):
        tried = self.sum("samples") + self.lost()
        return self.lost() / tried if tried else math.nan

    def paths(self):
        """(chi² of the 64 equal shares in standard errors from what is expected of it, the share that is farthest off in its own)."""
        counts = [sum(r["paths"][i] for r in self.runs) for i in range(LEAVES)]
        each = sum(counts) / LEAVES
        if not each:
            return math.nan, math.nan
        chi2 = sum((c - each) ** 2 / each for c in counts)
        worst = max(abs(c - each) for c in counts) / math.sqrt(each * (1 - 1 / LEAVES))
        return (chi2 - (LEAVES - 1)) / math.sqrt(2 * (LEAVES - 1)), worst

    def unexplained(self):
        """Looks that gave neither a sample nor a count of what was lost, though the target was on a CPU."""
        return sum(max(0, r["looks"] * min(1, r["target_cpu"]) - r["samples"] - r["discarded"] - r["rejected"] - r["unreadable"])
                   for r in self.runs)

    def leaf_error(self, word):
        """The leaves' share against that of the reference that cannot tear, in standard errors of their difference."""
        n, m = self.sum("samples"), word.sum("samples")
        if not n or not m:
            return math.nan
        both = (self.sum("leaf") + word.sum("leaf")) / (n + m)
        error = math.sqrt(both * (1 - both) * (1 / n + 1 / m))
        return (self.share("leaf") - word.share("leaf")) / error if error else math.nan

    def rss_mib(self):
        return max((r["rss_kib"] for r in self.runs), default=math.nan) / 1024


def measure(target, ways, repeats, folder):
    """ways: {(tool, hz): function of nothing}. Runs them in turn, `repeats` times. Return: {(tool, hz): Row}"""
    runs = {way: [] for way in ways}
    for _ in range(repeats):
        for way, run in ways.items():
            before = target.account()
            result = run()
            after = target.account()
            if result:
                ran = (after["cpu_s"] - before["cpu_s"]) / (after["wall_s"] - before["wall_s"])
                result.update(target_cpu=ran, calibrated_leaf=after["leaf_share"])
            runs[way].append(result)
    return {way: Row(target, way[0], way[1], results) for way, results in runs.items()}


def pyspyd_way(target, seconds, hz, priority, mode="cpu", cpu=None):
    return lambda: sampler(target, "sample", seconds, hz, priority, mode, cpu=cpu)


def reference_ways(target, seconds):
    return {
        ("floor", 1000): lambda: sampler(target, "floor", seconds, 1000, "fifo", cpu=TARGET_CPU),
        ("word", WORD_HZ): lambda: sampler(target, "word", seconds, WORD_HZ, cpu=OTHER_CPU),
        ("readv", 0): lambda: sampler(target, "readv", seconds / 2, cpu=OTHER_CPU),
    }


def peer_ways(target, plan, folder, skipped, rates):
    ways = {}
    for peer in PEERS:
        tree = os.path.join(CACHE, peer.TREE)
        minor = ".".join(target.name.split(".")[:2])
        if minor not in peer.TARGETS:
            continue
        if target.tree != tree or not os.path.exists(os.path.join(tree, peer.PROGRAM)) or not os.path.isdir(tree + "/proc/self"):
            skipped[peer.NAME] = "needs root, tools/debian-tree %s and /proc in it (bench/run sees to that)" % peer.TREE
            continue
        for hz in rates:
            cpu = OTHER_CPU if hz == 0 else None
            real = hz or peer.HIGHEST_HZ
            ways[(peer.NAME, hz)] = lambda peer=peer, real=real, cpu=cpu: peer_run(
                peer, target, real, plan.peer_seconds, folder, cpu)
    return ways


def depth_20(python, plan, folder, skipped):
    with Target(python, 20, 1) as target:
        s = plan.seconds
        ways = {
            ("pyspyd bpf", 999): pyspyd_way(target, s, 999, "bpf"),
            ("pyspyd bpf", 99): pyspyd_way(target, 2 * s, 99, "bpf"),
            ("pyspyd fifo", 1000): pyspyd_way(target, s, 1000, "fifo"),
            ("pyspyd fifo", 100): pyspyd_way(target, 2 * s, 100, "fifo"),
            ("floor", 100): lambda: sampler(target, "floor", 2 * s, 100, "fifo", cpu=TARGET_CPU),
            ("pyspyd nice", 1000): pyspyd_way(target, s, 1000, "nice"),
            ("pyspyd none", 1000): pyspyd_way(target, s, 1000, "none"),
            ("pyspyd other CPU", 1000): pyspyd_way(target, s, 1000, "fifo", cpu=OTHER_CPU),
            ("pyspyd other CPU", 0): pyspyd_way(target, s, 0, "none", cpu=OTHER_CPU),
        }
        ways.update(reference_ways(target, s))
        ways.update(peer_ways(target, plan, folder, skipped, (100, 1000, 0)))
        rows = measure(target, ways, plan.repeats, folder)
        many = {("pyspyd " + way, MANY_HZ): pyspyd_way(target, plan.many_s, MANY_HZ, way) for way in ("fifo", "bpf")}
        rows.update(measure(target, many, 1, folder))
        return rows


def other_depth(python, depth, plan, folder, skipped):
    with Target(python, depth, 1) as target:
        ways = {
            ("pyspyd bpf", 999): pyspyd_way(target, plan.seconds, 999, "bpf"),
            ("pyspyd fifo", 100): pyspyd_way(target, plan.seconds, 100, "fifo"),
            ("pyspyd fifo", 1000): pyspyd_way(target, plan.seconds, 1000, "fifo"),
            ("pyspyd other CPU", 0): pyspyd_way(target, plan.seconds, 0, "none", cpu=OTHER_CPU),
        }
        ways.update(reference_ways(target, plan.seconds))
        ways.update(peer_ways(target, plan, folder, skipped, (1000, 0)))
        return measure(target, ways, plan.other_repeats, folder)


def many_threads(python, threads, plan, folder, skipped):
    with Target(python, 20, threads) as target:
        ways = {
            ("pyspyd bpf", 999): pyspyd_way(target, plan.seconds, 999, "bpf"),
            ("pyspyd bpf, wall", 999): pyspyd_way(target, plan.seconds, 999, "bpf", "wall"),
            ("pyspyd fifo", 1000): pyspyd_way(target, plan.seconds, 1000, "fifo"),
            ("pyspyd fifo, wall", 1000): pyspyd_way(target, plan.seconds, 1000, "fifo", "wall"),
            ("word", WORD_HZ): lambda: sampler(target, "word", plan.seconds, WORD_HZ, cpu=OTHER_CPU),
        }
        ways.update(peer_ways(target, plan, folder, skipped, (1000,)))
        return measure(target, ways, plan.other_repeats, folder)


def slowdown(python, plan, folder, skipped):
    """{(tool, hz): [(by CPU time, by wall time), …]}"""
    def background(command):
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    with Target(python, 20, 1, os.path.join(folder, "slowdown")) as target:
        log, each = slow.Log(target.log), plan.slow_s / plan.slow_turns

        def pyspyd(hz, way):
            return background([SAMPLER, "sample", str(target.pid), str(each + 3), str(hz), way, "cpu"])

        ways = {("nothing", 0): None,
                ("pyspyd bpf", 99): lambda: pyspyd(99, "bpf"),
                ("pyspyd bpf", 999): lambda: pyspyd(999, "bpf"),
                ("pyspyd fifo", 100): lambda: pyspyd(100, "fifo"),
                ("pyspyd fifo", 1000): lambda: pyspyd(1000, "fifo")}
        for name, peer in (("austin", austin), ("tachyon", tachyon)):
            if peer_ways(target, plan, folder, skipped, (1000,)).get((name, 1000)):
                ways[(name, 1000)] = lambda peer=peer: background(
                    peer.command(target.tree, target.pid, 1000, each + 4, "/dev/null"))
        results = {way: [] for way in ways}
        for _ in range(plan.slow_turns):
            for way, start in ways.items():
                process = start() if start else None
                time.sleep(WARM_UP_S)
                results[way] += slow.measure(log, process and process.pid, each)
                if process:
                    process.terminate()
                    process.wait()
        return results


def number(value, digits=2):
    return "-" if value is None or (isinstance(value, float) and math.isnan(value)) else "%.*f" % (digits, value)


def print_table(head, lines):
    widths = [max(len(str(line[i])) for line in [head] + lines) for i in range(len(head))]
    for line in [head] + lines:
        left = [str(c).ljust(w) for c, w in zip(line[:2], widths[:2])]
        print("  ".join(left + [str(c).rjust(w) for c, w in zip(line[2:], widths[2:])]).rstrip())
    print()


HEAD = ("target", "sampler", "Hz", "samples", "us/sample", "per s", "torn", "discarded", "chi2 se", "worst se", "leaf", "leaf se",
        "RSS MiB")


def table_lines(rows):
    lines = []
    word = rows.get(("word", WORD_HZ))
    for (tool, hz), row in rows.items():
        if tool in ("floor", "readv") or not row.runs:
            continue
        target = "%s d%d t%d" % (row.python, row.depth, row.threads)
        if tool == "word":
            lines.append((target, "reference: one word", hz, row.sum("samples"), *[""] * 6, number(row.share("leaf"), 3), "", ""))
            calibrated = statistics.median(r["calibrated_leaf"] for r in row.runs)
            lines.append((target, "own account: the leaves' loop", *[""] * 8, number(calibrated, 3), "", ""))
            continue
        # Samples at the highest rate lie closer than the calls of the target: they say nothing about shares.
        chi2, worst = row.paths() if 0 < hz <= 1000 else (None, None)
        error = row.leaf_error(word) if word and 0 < hz <= 1000 else None
        lines.append((target, tool, hz or "max", row.sum("samples"), number(row.cost_ns() / 1000), "%.0f" % row.rate(),
                      "%d" % row.sum("torn"), "%.2f%%" % (100 * row.lost_share()), number(chi2, 1), number(worst, 1),
                      number(row.share("leaf"), 3), number(error, 1), number(row.rss_mib(), 1)))
    return lines


def floors(rows, hz):
    """Cost of a look over that of a loop that only sleeps, run by run."""
    sampled, floor = rows[("pyspyd fifo", hz)], rows[("floor", hz)]
    ratios = [(a["cpu_ns"] / a["looks"]) / (b["cpu_ns"] / b["looks"]) for a, b in zip(sampled.runs, floor.runs) if a["looks"]]
    cost = statistics.median(b["cpu_ns"] / b["looks"] for b in floor.runs)
    return ratios, cost


def median_of(row, key):
    return statistics.median(r[key] for r in row.runs)


def look_ns(row):
    return statistics.median(r["cpu_ns"] / r["looks"] for r in row.runs)


def judge_kernel(aim, rows):
    """What eBPF promises."""
    runs = [row for row in rows.values() if row.tool == "pyspyd bpf" and row.runs]
    if not runs:
        return
    torn, samples = sum(r.sum("torn") for r in runs), sum(r.sum("samples") for r in runs)
    aim("torn, eBPF", torn, 0, "%d of %d" % (torn, samples))
    own = rows[("pyspyd bpf", 999)]
    aim("eBPF: 64 equal shares, chi2 in standard errors", own.paths()[0], 3)
    aim("eBPF: leaves against callers, standard errors", abs(own.leaf_error(rows[("word", WORD_HZ)])), 3)
    aim("eBPF: CPU at 999 Hz", statistics.median(100 * r["cpu_ns"] / r["wall_ns"] for r in own.runs), 1, unit="%")
    aim("eBPF: resident, MiB", max(r.rss_mib() for r in runs), 64)


def judge(name, rows, crowd, slowed, best_peer):
    """[(what, measured, aim, met)] of one interpreter."""
    fast, own, many = rows[("pyspyd other CPU", 0)], rows[("pyspyd fifo", 1000)], rows[("pyspyd fifo", MANY_HZ)]
    readv, other, word = rows[("readv", 0)], rows[("pyspyd other CPU", 1000)], rows[("word", WORD_HZ)]
    aims = []

    def aim(what, measured, limit, text=None, unit="", below=True):
        met = measured <= limit if below else measured >= limit
        aims.append((name, what, text or number(measured, 2) + unit, ("<= " if below else ">= ") + "%g%s" % (limit, unit),
                     "met" if met else "MISSED"))

    if fast.runs and readv.runs:
        cost = fast.cost_ns()
        aim("highest rate: CPU of a sample / process_vm_readv of 4 KiB", cost / median_of(readv, "page_ns"), 2)
        aim("  / process_vm_readv of the %d bytes of a sample" % median_of(readv, "sample_bytes"),
            cost / median_of(readv, "sample_ns"), 2)
        aim("reads for a sample", fast.sum("reads") / max(1, fast.sum("looks")), 1.01)
    if best_peer:
        aim("highest rate / that of %s" % best_peer[0], fast.rate() / best_peer[1], 1.5, below=False)
    for hz in (1000, 100):
        ratios, cost = floors(rows, hz)
        aim("%d Hz: CPU of a look / of a loop that only sleeps" % hz, statistics.median(ratios), 1.15,
            "%.2f (%.2f-%.2f; the loop %.1f us)" % (statistics.median(ratios), min(ratios), max(ratios), cost / 1000))
    total = [r for r in rows.values() if r.tool in ("pyspyd fifo", "pyspyd nice")]
    torn, samples = sum(r.sum("torn") for r in total), sum(r.sum("samples") for r in total)
    aim("torn, from the target's own CPU", torn, 0, "%d of %d" % (torn, samples))
    lost = own.lost() + many.lost()
    aim("discarded, from the target's own CPU", lost, 0, "%d of %d" % (lost, own.sum("looks") + many.sum("looks")))
    looks = own.sum("looks") + many.sum("looks")
    silent = own.unexplained() + many.unexplained()
    aim("looks without sample or count, while the target ran", 100 * silent / looks if looks else math.nan, 1, unit="%")
    for row, what in ((other, "1 kHz"), (fast, "highest rate")):
        aim("torn, from another CPU, %s" % what, 100 * row.share("torn"), 0.1, unit="%")
    none = rows[("pyspyd none", 1000)]
    aim("torn, without priority", 100 * none.share("torn"), 0.1, unit="%")
    for row in (own, rows.get(("pyspyd nice", 1000))):
        if row and row.runs:
            aim("%s: 64 equal shares, chi2 in standard errors" % row.tool, row.paths()[0], 3)
            aim("%s: leaves against callers, standard errors" % row.tool, abs(row.leaf_error(word)), 3)
    judge_kernel(aim, rows)
    for threads, there in crowd.items():
        wall = there[("pyspyd fifo, wall", 1000)]
        if wall.runs:
            each = (look_ns(wall) - look_ns(own)) / threads / 1000
            aim("%d sleeping threads: us of a look each" % threads, each, 1, number(each, 4))
    for way, hz, limit in (("fifo", 100, 0.5), ("fifo", 1000, 2), ("bpf", 99, 0.5), ("bpf", 999, 2)):
        for i, what in enumerate(("CPU", "wall")):
            value, error = slow.median_error([b[i] for b in slowed[("pyspyd " + way, hz)]])
            aim("%s: slowdown at %d Hz, by %s time" % (way, hz, what), value, limit, "%.2f%% +- %.2f" % (value, error), unit="%")
            # What the machine's noise could hide or feign is not shown.
            if abs(value - limit) < 2 * error:
                aims[-1] = aims[-1][:4] + ("not shown",)
    return aims


def slow_lines(name, slowed):
    lines = []
    for (tool, hz), values in slowed.items():
        cells = ["%.2f%% +- %.2f" % slow.median_error([v[i] for v in values]) for i in (0, 1)]
        lines.append((name, tool, hz or "", len(values), *cells))
    return lines


def best_of(rows):
    peers = [(peer.NAME, rows[(peer.NAME, 0)].rate()) for peer in PEERS if rows.get((peer.NAME, 0)) and rows[(peer.NAME, 0)].runs]
    return max(peers, key=lambda p: p[1]) if peers else None


def as_json(everything):
    return [dict(python=r.python, depth=r.depth, threads=r.threads, tool=r.tool, hz=r.hz, runs=r.runs)
            for rows in everything for r in rows.values()]


def run_one(python, plan, folder, skipped):
    name = python[0]
    say("bench: %s, depth 20" % name)
    rows = depth_20(python, plan, folder, skipped)
    others, crowd = [], {}
    for depth in plan.depths:
        say("bench: %s, depth %d" % (name, depth))
        others.append(other_depth(python, depth, plan, folder, skipped))
    for threads in plan.threads:
        say("bench: %s, %d threads" % (name, threads))
        crowd[threads] = many_threads(python, threads, plan, folder, skipped)
    say("bench: %s, slowdown" % name)
    return rows, others, crowd, slowdown(python, plan, folder, skipped)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="about two minutes")
    parser.add_argument("--json", default=os.path.join(BUILD, "bench.json"))
    options = parser.parse_args()
    plan, skipped, results = Plan(options.quick), {}, {}
    begin = time.monotonic()
    found = pythons()
    for minor in WANTED:
        if minor not in found:
            skipped["python" + minor] = "no such interpreter (tools/interpreters)"
    if TARGET_CPU == OTHER_CPU:
        skipped["the highest rate from another CPU"] = "there is only one: it shares the target's"
    with tempfile.TemporaryDirectory() as folder:
        for minor, python in found.items():
            results[minor] = run_one(python, plan, folder, skipped)
    report(results, skipped, options, begin)


def report(results, skipped, options, begin):
    everything, lines, slowed, aims = [], [], [], []
    peers = [p for p in (best_of(r[0]) for r in results.values()) if p]
    best = max(peers, key=lambda p: p[1]) if peers else None
    for rows, others, crowd, slowed_by in results.values():
        name = next(iter(rows.values())).python
        everything += [rows] + others + list(crowd.values())
        for one in [rows] + others + list(crowd.values()):
            lines += table_lines(one)
        slowed += slow_lines(name, slowed_by)
        aims += judge(name, rows, crowd, slowed_by, best)
    print("%s, Linux %s, %d CPUs, %.0f s\n" % (platform.machine(), platform.release(), os.cpu_count(), time.monotonic() - begin))
    print_table(HEAD, lines)
    print_table(("slowdown of", "by", "Hz", "windows", "by CPU time", "by wall time"), slowed)
    print_table(("target", "aim", "measured", "at most/least", ""), aims)
    for what, why in skipped.items():
        print("skipped: %s: %s" % (what, why))
    with open(options.json, "w") as file:
        json.dump({"schema": "pyspyd.bench/1", "runs": as_json(everything), "slowdown": slowed, "aims": aims, "skipped": skipped}, file)


if __name__ == "__main__":
    main()
