# SPDX-License-Identifier: MIT
"""Counters of threads by passes through the kernel's tasks, against what /proc says of the same threads; and the sampler
that looks at many processes by such passes.

"inside" as argument: only the comparison, as it is run in a PID namespace."""

import json
import os
import shutil
import subprocess
import sys
import time

import live

DRIVER = os.path.join(live.BUILD, "tests/live/host_tasks_driver")
SAMPLED = os.path.join(live.BUILD, "tests/live/sampled_driver")
PYTHON = "3.11.2-system"
MANY_PROCESSES = 80
STATES = "RSDTtXZPI"
THREADS = """
import os, sys, threading
threading.stack_size(65536)
never, _ = os.pipe()
ready = threading.Semaphore(0)
def asleep():
    ready.release()
    os.read(never, 1)
def spin():
    while True: pass
ends, end = os.pipe()
def brief():
    ready.release()
    os.read(ends, 1)
for _ in range(MANY):
    threading.Thread(target=asleep, daemon=True).start()
    ready.acquire()
last = threading.Thread(target=brief)
last.start()
ready.acquire()
if SPINS: threading.Thread(target=spin, daemon=True).start()
print("ready", flush=True)
sys.stdin.readline()
os.write(end, b"x")
last.join()
print("ended", flush=True)
sys.stdin.readline()
threading.Thread(target=asleep, daemon=True).start()
ready.acquire()
print("begun", flush=True)
sys.stdin.readline()
"""
# The children sleep at one place, and half of them at another one when they are told to.
PLACES = """
import os, sys
def here(pipe): return os.read(pipe, 1)
def there(pipe): return os.read(pipe, 1)
told, tell = os.pipe()
came, come = os.pipe()
never, _ = os.pipe()
children = []
for i in range(MANY):
    pid = os.fork()
    if not pid:
        os.write(come, b"x")
        here(told)
        n = sum(range(1000))
        there(never)
    children.append(pid)
for _ in range(MANY): os.read(came, 1)
print(" ".join(map(str, children)), flush=True)
sys.stdin.readline()
os.write(tell, b"x" * (MANY // 2))
print("told", flush=True)
sys.stdin.readline()
for pid in children: os.kill(pid, 9)
"""


class Passes:
    """The driver. Tasks are by tid."""

    def __init__(self, prefix=()):
        self.process = subprocess.Popen(list(prefix) + [DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.said = self.process.stdout.readline().decode().strip()

    def tell(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def go(self, how="pass"):
        self.tell(how)
        tasks = json.loads(self.process.stdout.readline().decode())
        tids = [task[1] for task in tasks]
        assert tids == sorted(set(tids)), "not by ascending tid"
        return {task[1]: dict(zip(("pid", "tid", "state", "cpu", "run", "wait", "slices", "voluntary", "involuntary", "start"),
                                  task)) for task in tasks}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def read(path):
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return ""


def counters(pid):
    """Of each thread of a process, as /proc has them."""
    found = {}
    for tid in os.listdir("/proc/%d/task" % pid):
        base = "/proc/%d/task/%s/" % (pid, tid)
        stat, sched, status = read(base + "stat"), read(base + "schedstat").split(), read(base + "status")
        if not stat or not sched:
            continue
        words = stat.rsplit(")", 1)[1].split()
        switches = [int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line]
        found[int(tid)] = {"state": words[0], "cpu": int(words[36]), "run": int(sched[0]), "wait": int(sched[1]),
                           "slices": int(sched[2]), "voluntary": switches[0], "involuntary": switches[1],
                           "ticks": int(words[19])}
    return found


def compare(checks, where, pid, before, tasks, after):
    """Return: how many stood still, and how many ran."""
    slept = ran = 0
    hz = os.sysconf("SC_CLK_TCK")
    checks.that(set(before) & set(after) <= set(tasks) <= set(before) | set(after), "%s: not the same threads" % where)
    for tid, task in tasks.items():
        old, new = before.get(tid), after.get(tid)
        if not old or not new:
            continue
        what = "%s: %s between %s and %s" % (where, task, old, new)
        checks.that(task["pid"] == pid and task["state"] in STATES, what)
        checks.that(task["start"] * hz // 10 ** 9 == old["ticks"], what)
        if old == new and old["state"] == "S":
            slept += 1
            checks.that(all(task[key] == old[key] for key in ("state", "cpu", "run", "wait", "slices", "voluntary", "involuntary")), what)
        else:
            ran += 1
            checks.that(all(old[key] <= task[key] <= new[key]
                            for key in ("run", "wait", "slices", "voluntary", "involuntary")), what)
    return slept, ran


def measure(passes, pid):
    before = counters(pid)
    tasks = passes.go()
    return before, tasks, counters(pid)


def threads(checks, passes, command, many, spins):
    where = "%d threads" % many
    program = THREADS.replace("MANY", str(many)).replace("SPINS", str(spins))
    with live.Target(command, program) as target:
        target.ready_and_resting(busy=spins)
        checks.that(not passes.go(), "%s: nobody is watched" % where)
        passes.tell("watch %d" % target.pid)
        first = measure(passes, target.pid)
        slept, ran = compare(checks, where, target.pid, *first)
        checks.that(slept >= many and len(first[1]) == many + 2 + spins, "%s: %d slept, %d ran" % (where, slept, ran))
        checks.that(ran >= spins, "%s: none ran" % where)
        target.say()
        checks.that(target.line() == "ended", "%s: no end" % where)
        live.wait_until(lambda: len(os.listdir("/proc/%d/task" % target.pid)) < len(first[1]))
        second = measure(passes, target.pid)
        compare(checks, where + ", one less", target.pid, *second)
        gone = set(first[1]) - set(second[1])
        checks.that(len(gone) == 1 and not set(second[1]) - set(first[1]), "%s: %s have ended" % (where, gone))
        target.say()
        checks.that(target.line() == "begun", "%s: none begun" % where)
        third = measure(passes, target.pid)
        compare(checks, where + ", one more", target.pid, *third)
        new = [task["start"] for tid, task in third[1].items() if tid not in second[1]]
        checks.that(len(new) == 1 and new[0] > max(task["start"] for task in second[1].values()), "%s: %s is new" % (where, new))
        passes.tell("leave %d" % target.pid)
        checks.that(not passes.go(), "%s: it is left" % where)
        live.note("%s: %d stood still and are equal, %d ran" % (where, slept, ran))


def everybody(checks, passes, command):
    with live.Target(command, THREADS.replace("MANY", "3").replace("SPINS", "0")) as target:
        target.ready()
        before = counters(target.pid)
        told = passes.go("all")
        tasks = {tid: task for tid, task in told.items() if task["pid"] == target.pid}
        compare(checks, "among all", target.pid, before, tasks, counters(target.pid))
        checks.that({os.getpid(), passes.process.pid} <= set(told), "not all are there")


def namespace(checks):
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run(inside + ["true"], stderr=subprocess.DEVNULL).returncode:
        live.note("no PID namespaces here")
        return
    done = subprocess.run(inside + [sys.executable, os.path.abspath(__file__), "inside"], stdout=subprocess.PIPE,
                          timeout=live.COMMAND_S)
    said = done.stdout.decode().strip().replace("\n", "; ")
    checks.that(done.returncode == 0, "in a PID namespace: %s" % said)
    live.note("in a PID namespace: " + said)


def privileges(checks):
    if not shutil.which("setpriv"):
        live.note("no setpriv here")
        return
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    wanted = "-all,+bpf,+perfmon"
    with Passes(nobody + ["--inh-caps", wanted, "--ambient-caps", wanted]) as passes:
        checks.that(passes.said == "ready", "two capabilities: " + passes.said)
        if passes.said == "ready":
            checks.that(passes.process.pid in passes.go("all"), "two capabilities: not there")
    with Passes(nobody) as passes:
        checks.that("not permitted" in passes.said and "CAP_BPF" in passes.said, "no capabilities: " + passes.said)


def is_passing():
    if not shutil.which("bpftool", path=os.environ["PATH"] + ":/usr/sbin"):
        return None
    return b"tell_tasks" in subprocess.run(["bpftool", "prog", "list"], stdout=subprocess.PIPE,
                                           env=dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin")).stdout


def sampler(checks, command):
    """All the time of each thread is accounted for, where it slept, whether it was there already or went there."""
    hz, seconds = 100, 8
    with live.Target(command, PLACES.replace("MANY", str(MANY_PROCESSES))) as target:
        children = {int(n) for n in target.ready().split()}
        with subprocess.Popen([SAMPLED, "stacks", "bpf", "wall", str(hz), str(seconds)] + [str(n) for n in children],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as driver:
            driver.stderr.readline()
            target.say()
            target.line()
            passing = is_passing()
            while passing is False and driver.poll() is None:
                time.sleep(live.REST_S)
                passing = is_passing()
            out = driver.stdout.read().decode()
    if not checks.that(out, "the sampler of %d processes" % MANY_PROCESSES):
        return
    said = json.loads(out)
    by = {}
    for stack in said["stacks"]:
        leaf = [frame[0] for frame in stack["frames"][:1]]
        counts = by.setdefault(stack["pid"], {})
        counts[leaf[0] if leaf else ""] = counts.get(leaf[0] if leaf else "", 0) + stack["count"]
    checks.that(set(by) == children, "%d of %d processes were seen" % (len(by), len(children)))
    for pid, counts in by.items():
        checks.that(set(counts) <= {"here", "there", "<module>"}, "%d: %s" % (pid, counts))
        checks.that(0.8 * hz * seconds <= sum(counts.values()) <= 1.1 * hz * seconds + 5, "%d: %s" % (pid, counts))
    moved = sum("there" in counts for counts in by.values())
    checks.that(moved == MANY_PROCESSES // 2, "%d processes sleep at the second place" % moved)
    checks.that(passing is not False, "no passes were made")
    live.note("the sampler of %d processes: %.3f s of CPU in %d s, %s; %s" % (
        len(by), said["cpu_s"], seconds, "by passes" if passing else "perhaps by passes", list(by.values())[0]))


def main():
    inside = sys.argv[1:] == ["inside"]
    del sys.argv[1:]
    checks = live.Checks()
    command = live.interpreters(PYTHON)[0][2]
    with Passes() as passes:
        if passes.said != "ready":
            live.skip(passes.said)
        threads(checks, passes, command, 5, 1)
        if not inside:
            threads(checks, passes, command, 5000, 1)
        everybody(checks, passes, command)
    if not inside:
        namespace(checks)
        privileges(checks)
        sampler(checks, command)
    checks.end()


main()
