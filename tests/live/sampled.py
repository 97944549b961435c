# SPDX-License-Identifier: MIT
"""A program whose threads run through known situations, sampled by each source on every interpreter: each stack must be
one that its thread can have had, with the right lines, names, GIL and collector; and each situation must be seen.

SAMPLED_SOURCES   "vm bpf" by default
SAMPLED_SECONDS   of each sampling, 1"""

import json
import os
import re
import subprocess
import sys

import live

DRIVER = os.path.join(live.BUILD, "tests/live/sampled_driver")
SECONDS = os.environ.get("SAMPLED_SECONDS", "1")
HZ = "997"
DEEP = 1500
TRIES = 5
MARKED = "incomplete, and marked so"  # the interpreter was between two words of a chain
MOST = {"vm": 4096, "bpf": 1024}
PROGRAM = """
import sys, threading, time, gc, zlib, os
begun, write_begun = os.pipe()
sys.setrecursionlimit(10000)
threading.stack_size(256 << 20)
SUB = '''
import os
os.write(BEGUN, b"x")
def sub_leaf(x):
    return x * 7 % 3
def in_sub():
    while True:
        for i in range(1000):
            sub_leaf(i)
in_sub()
'''.replace("BEGUN", str(write_begun))
def plain():
    i = 0
    while True:
        i = plain_caller(i) % 1000

def plain_caller(x):
    return plain_leaf(x) + 1

def plain_leaf(x):
    y = x * 3
    return y % 7

def inner(n):
    for i in range(n):
        yield i * 3

def outer(n):
    yield from inner(n)

def generators():
    while True:
        for i in outer(50):
            i * 2

class Later:
    def __await__(self):
        yield 1
        return sum(i * 3 for i in range(200))

async def co_leaf():
    return await Later()

async def co_caller():
    return await co_leaf()

def coroutines():
    while True:
        c = co_caller()
        c.send(None)
        try:
            c.send(None)
        except StopIteration:
            pass

def deep(n=DEEP):
    if n > 1:
        return deep(n - 1)
    while True:
        n = n * 3 % 7

def key(x):
    return -x * 3 % 11

def through_c():
    while True:
        sorted(range(50), key=lambda x: key(x))

def collect():
    some = [[i] for i in range(30000)]
    while True:
        collect_now()

def collect_now():
    gc.collect()

def without_gil():
    data = b"some text " * 400000
    while True:
        zlib.compress(data, 6)

def until_cpu(ns, mine):
    end = mine() + ns
    while mine() < end:
        for _ in range(40): pass

def short(mine):
    until_cpu(0.0011, mine)

def long(mine):
    until_cpu(0.0033, mine)

def shares():
    mine = lambda: time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
    while True:
        short(mine)
        long(mine)

def asleep():
    asleep_inside()

def asleep_inside():
    time.sleep(100000)

def sub():
    try:
        import _interpreters as i
        interp = i.create()
        getattr(i, "exec")(interp, SUB)
    except ImportError:
        import _xxsubinterpreters as i
        i.run_string(i.create(), SUB)

some = [plain, generators, coroutines, deep, through_c, collect, without_gil, shares, asleep]
if SUBS:
    some.append(sub)
for f in some:
    threading.Thread(target=f, name=f.__name__, daemon=True).start()
if SUBS:
    os.read(begun, 1)
print("ready", flush=True)
sys.stdin.readline()
"""
BOTTOM = ["run", "_bootstrap_inner", "_bootstrap"]
# Innermost first, of what each thread runs; a name may be left out where it has "?", repeated where it has "+".
CAN_BE = {
    "plain": "plain_leaf? plain_caller? plain",
    "generators": "inner? outer? generators",
    "coroutines": "<genexpr>? __await__? co_leaf? co_caller? coroutines",
    "deep": "deep+",
    "through_c": "key? <lambda>? through_c",
    "collect": "<listcomp>? collect_now? collect",
    "without_gil": "without_gil",
    "shares": "<lambda>? until_cpu? short? shares|<lambda>? until_cpu? long? shares|<lambda>? shares",
    "asleep": "asleep_inside? asleep",
    "sub": "sub_leaf? in_sub? <module>|sub",
}


def short_name(qualified):
    return qualified.rsplit(".", 1)[-1]


def pattern(text):
    one = "|".join("".join("(?:%s )%s" % (re.escape(word.rstrip("?+")), word[-1] if word[-1] in "?+" else "")
                           for word in way.split()) for way in text.split("|"))
    return re.compile("^(?:%s)$" % one)


def lines_of(program):
    """Function → the lines that it has. Those of SUB are its own."""
    found, name = {}, None
    for number, text in enumerate(program.split("\n"), 1):
        match = re.match(r"\s*(?:async )?def (\w+)", text)
        if match:
            name = match.group(1)
            found[name] = set()
        if name:
            found[name].add(number)
    for name, lines in (("sub_leaf", {4, 5}), ("in_sub", {6, 7, 8, 9})):
        found[name] = lines
    return found


def sample(source, mode, *pids, hz=HZ, seconds=SECONDS):
    """Return: what the driver says, or None; and its messages."""
    done = subprocess.run([DRIVER, "stacks", source, mode, str(hz), str(seconds)] + [str(p) for p in pids],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
    return (json.loads(done.stdout.decode()) if done.returncode == 0 else None), done.stderr.decode().strip()


class Oracle:
    def __init__(self, program):
        self.lines = lines_of(program)
        self.can_be = {name: pattern(text) for name, text in CAN_BE.items()}

    def wrong(self, name, stack, source):
        """What is wrong with one stack of this thread; "" for nothing."""
        functions = [short_name(function) for function, _, _ in stack["frames"]]
        truncated = "truncated" in stack["flags"]
        if truncated and len(functions) < MOST[source]:
            return MARKED
        if truncated != (len(functions) == MOST[source]):
            return "truncated is %s with %d frames" % (truncated, len(functions))
        if not truncated and not (name == "sub" and stack["interpreter"]):
            if functions[-len(BOTTOM):] != BOTTOM:
                return "begins with %s" % functions[-len(BOTTOM):]
            functions = functions[:-len(BOTTOM)]
        if not self.can_be[name].match("".join(function + " " for function in functions)):
            return "cannot be: %s" % functions[:12]
        for function, _, line in stack["frames"]:
            lines = self.lines.get(short_name(function))
            if lines and line and line not in lines:
                return "line %s of %s" % (line, function)
        return ""


def totals(said, keep=lambda stack: True):
    """Thread → samples."""
    found = {}
    for stack in said["stacks"]:
        if keep(stack):
            found[stack["name"]] = found.get(stack["name"], 0) + stack["count"]
    return found


def check_stacks(checks, where, said, oracle, source):
    torn = samples = marked = 0
    for stack in said["stacks"]:
        name = stack["name"]
        if name not in CAN_BE:
            continue
        samples += stack["count"]
        wrong = oracle.wrong(name, stack, source)
        if wrong == MARKED:
            marked += stack["count"]
        elif wrong:
            torn += stack["count"]
            if source == "bpf" or torn < 5:
                live.note("%s %s: %s" % (where, name, wrong))
    # Without eBPF a generator's frame that has just let go of its caller passes for a whole stack on 3.12.
    bound = 0 if source == "bpf" else max(10, samples // 100)
    checks.that(torn <= bound, "%s: %d of %d stacks are wrong" % (where, torn, samples))
    checks.that(marked <= max(5, samples // 500), "%s: %d of %d stacks are incomplete" % (where, marked, samples))
    return samples, torn, marked


def check_flags(checks, where, said, source, free_threaded, knows_gc):
    by = {}
    for stack in said["stacks"]:
        count = by.setdefault(stack["name"], {"n": 0, "gil": 0, "gc": 0})
        if "running" not in stack["flags"]:
            continue
        count["n"] += stack["count"]
        for flag in ("gil", "gc"):
            count[flag] += stack["count"] if flag in stack["flags"] else 0
    for name in ("plain", "deep", "generators"):
        count = by.get(name)
        if count and count["n"] >= 30 and not free_threaded:
            # Without eBPF a thread counts that is about to run, and may still want the GIL.
            least = 0.5 if source == "bpf" else 0.1
            checks.that(count["gil"] >= least * count["n"], "%s: %s has the GIL in %s" % (where, name, count))
            checks.that(count["gc"] <= 0.1 * count["n"], "%s: %s collects in %s" % (where, name, count))
    count = by.get("without_gil")
    if count and count["n"] >= 20:
        checks.that(count["gil"] <= 0.2 * count["n"], "%s: without the GIL in %s" % (where, count))
    count = by.get("collect")
    if count and count["n"] >= 20 and knows_gc:
        checks.that(count["gc"] >= 0.5 * count["n"], "%s: the collector in %s" % (where, count))


def near_a_quarter(short, n):
    """Within five standard errors: of the hundreds of times that this is asked in a year, none is beyond by chance."""
    return abs(short / n - 0.25) < 5 * (0.25 * 0.75 / n) ** 0.5 + 0.02


def check_shares(checks, where, said, source, sums):
    """Its own account: one part in four."""
    short = long = 0
    for stack in said["stacks"]:
        if stack["name"] == "shares" and "running" in stack["flags"]:
            functions = {short_name(function) for function, _, _ in stack["frames"]}
            short += stack["count"] if "short" in functions else 0
            long += stack["count"] if "long" in functions else 0
    n = short + long
    before = sums.get(source, (0, 0))
    sums[source] = before[0] + short, before[1] + n
    if n >= 50:
        checks.that(near_a_quarter(short, n), "%s: a share of 0.25 is %.3f of %d" % (where, short / n, n))


def check_run_times(checks, where, said, source, lost):
    """Each thread's part of the samples against its part of the CPU time; and no more samples than CPUs. `lost`: seconds
    in which there are no interrupts, of threads that have a CPU by their own account."""
    counts = dict.fromkeys(said["run_ns"], 0)
    for stack in said["stacks"]:
        if "running" in stack["flags"]:
            counts[str(stack["tid"])] += stack["count"]
    n, all_ns = sum(counts.values()), sum(said["run_ns"].values())
    most = said["accuracy"]["expected"] * (1 if source == "bpf" else os.cpu_count())
    checks.that(n <= 1.02 * most, "%s: %d samples of running threads, of %d at most" % (where, n, most))
    for tid, ns in said["run_ns"].items():
        share, part = ns / all_ns, counts[tid] / n
        bound = 5 * (share * (1 - share) / n) ** 0.5 + 0.03 + lost * 1e9 / all_ns
        checks.that(abs(part - share) < bound, "%s: thread %s is %.3f of the samples, and %.3f of the CPU time" % (
            where, tid, part, share))


def missing(said, names):
    seen = totals(said)
    return [name for name in names if not seen.get(name) and name != "asleep"]


def merged(one, other):
    if one:
        other["stacks"] += one["stacks"]
        other["run_ns"] = {tid: ns + one["run_ns"].get(tid, 0) for tid, ns in other["run_ns"].items()}
        for key, value in one["accuracy"].items():
            if isinstance(value, int):
                other["accuracy"][key] += value
    return other


def check_seen(checks, where, said, names, source, free_threaded):
    seen = totals(said)
    checks.that(not missing(said, names), "%s: nothing seen of %s (%s)" % (where, missing(said, names), seen))
    if "sub" in names:
        inside = totals(said, lambda s: s["interpreter"] and any(f[0] == "in_sub" for f in s["frames"]))
        checks.that(inside.get("sub"), "%s: nothing seen in the sub-interpreter" % where)
    deep = [s for s in said["stacks"] if s["name"] == "deep" and len(s["frames"]) >= 1024]
    if seen.get("deep"):
        checks.that(deep, "%s: no deep stack is whole" % where)


def one(checks, name, version, command, source, sums):
    program = PROGRAM.replace("DEEP", str(DEEP)).replace("SUBS", str(version >= (3, 12)))
    free_threaded = name.split("-")[0].endswith("t")
    where = "%s %s" % (name, source)
    oracle = Oracle(program)
    with live.Target(command, program) as target:
        target.ready_and_reading()
        names = [n for n in CAN_BE if n != "sub" or version >= (3, 12)]
        said, lost = None, live.stolen()
        for _ in range(TRIES):  # where there is much else to do, some may not have had their turn
            more, message = sample(source, "cpu", target.pid)
            if not checks.that(more, "%s: %s" % (where, message)):
                return
            said = merged(said, more)
            if not missing(said, names):
                break
        lost = live.stolen() - lost
    samples, torn, marked = check_stacks(checks, where, said, oracle, source)
    check_seen(checks, where, said, names, source, free_threaded)
    check_flags(checks, where, said, source, free_threaded, (3, 7) <= version and not free_threaded)
    check_shares(checks, where, said, source, sums)
    check_run_times(checks, where, said, source, lost)
    accuracy = said["accuracy"]
    checks.that(source == "vm" or accuracy["torn"] == 0, "%s: %s" % (where, accuracy))
    live.note("%s: %d samples, %d wrong, %d incomplete; %s" % (where, samples, torn, marked, " ".join(
        "%s %s" % (key, accuracy[key]) for key in ("torn", "discarded", "unreadable", "unknown"))))


def usable_sources():
    """Those that work here; the script ends as skipped where eBPF is wanted and does not."""
    found, wanted = [], os.environ.get("SAMPLED_SOURCES", "vm bpf").split()
    for source in wanted:
        probe = subprocess.run([DRIVER, "stacks", source, "cpu", "10", "0.01", "1"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        said = probe.stderr.decode().strip()
        if "cannot sample" in said:
            live.note("without %s: %s" % (source, said))
        else:
            found.append(source)
    if "bpf" in wanted and "bpf" not in found:
        live.skip("eBPF cannot be used here")
    return found


def main():
    checks = live.Checks()
    usable, sums = usable_sources(), {}
    for name, version, command in live.interpreters():
        for source in usable:
            one(checks, name, version, command, source, sums)
    for source, (short, n) in sums.items():
        checks.that(n and near_a_quarter(short, n), "%s: a share of 0.25 is %d of %d on all" % (source, short, n))
    checks.end()


if __name__ == "__main__":
    main()
