# SPDX-License-Identifier: MIT
"""Native and kernel frames of running threads (record --native): programs whose stacks are known.

    native_record.py [PATTERN...]    only interpreters whose names match"""

import json
import os
import shutil
import subprocess
import tempfile

import live
import sampled

CALLS = """
import os
def calls():
    while True: os.stat("/")
print("ready", flush=True)
calls()
"""
BUSY = """
import json, re, zlib
data = {"a": list(range(50)), "b": {"x": "y" * 20}}
def key(x):
    return (x * 7) % 13
def work():
    while True:
        text = json.dumps(data, indent=1)
        json.loads(text)
        sorted(range(100), key=key)
        sum(map(key, range(50)))
        re.sub("a+", lambda m: "b", "caab" * 10)
        zlib.compress(text.encode())
print("ready", flush=True)
work()
"""
# More C on the stack than comes with a sample.
DEEP = """
import sys
sys.setrecursionlimit(10000)
def spin():
    x = 1
    while True:
        x = x * 3 % 7
class C:
    def __init__(self, n): self.n = n
    def __lt__(self, other): return down(self.n)
def down(n):
    if not n:
        print("ready", flush=True)
        spin()
    return sorted([1], key=lambda _: max([C(n - 1), C(n - 1)]))
down(LEVELS)
"""
LEVELS = 60
# A library that comes while it is recorded.
LATE = """
import sys
def early():
    return sum(range(100))
def late():
    import sqlite3
    c = sqlite3.connect(":memory:")
    print("late", flush=True)
    c.execute("with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n").fetchall()
print("ready", flush=True)
import threading
waiting = threading.Thread(target=sys.stdin.readline)
waiting.start()
while waiting.is_alive(): early()
late()
"""
UNWIND = os.path.join(live.BUILD, "tests/live/unwind_driver")
FEW = "+bpf,+perfmon,+sys_ptrace"


def read(path):
    stacks = {}
    if os.path.exists(path):
        with open(path, "rb") as f:
            for line in f.read().decode().splitlines():
                stack, _, count = line.rpartition(" ")
                names = tuple(frame.split(" (")[0] for frame in stack.split(";"))
                stacks[names] = stacks.get(names, 0) + int(count)
        os.unlink(path)
    return stacks


def record(folder, pid, *args, seconds=1, prefix=()):
    """Return: exit status, stacks as lists of functions' names, outermost first, stderr."""
    path = os.path.join(folder, "out.collapsed")
    status, _, said = live.pyspyd("record", "--native", "-m", "cpu", "-d", "%ds" % seconds, "-r", "400", "-o", path, "--pid",
                                  pid, *args, prefix=prefix)
    return status, read(path), said


def behind(stack, function):
    """What it called: functions' names, outermost first."""
    return stack[stack.index(function) + 1:] if function in stack else ()


def hidden():
    with open("/proc/kallsyms") as f:
        return f.read(16) == "0" * 16


def check_same(checks, name, command, what, program):
    """What the program in the kernel unwinds is what user space makes of a copy, sample by sample."""
    with live.Target(command, program) as target:
        target.ready()
        # Long against the time that it takes until the tables of all its libraries are told.
        done = subprocess.run([UNWIND, "400", "3", str(target.pid)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if not checks.that(done.returncode == 0, "%s, %s: %s" % (name, what, done.stderr.decode())):
        return
    said = json.loads(done.stdout.decode())
    first = said.pop("first")
    live.note("%s, %s: %s" % (name, what, " ".join("%s %s" % item for item in said.items())))
    checks.that(not said["differ"], "%s, %s: %s\n%s" % (name, what, said, first))
    checks.that(said["whole"] > 0.7 * said["samples"] > 10, "%s, %s: %s" % (name, what, said))
    checks.that(said["same"] + said["beyond"] == said["whole"], "%s, %s: %s" % (name, what, said))
    checks.that(said["table_bytes"] > 1000 and not said["table_bytes_left"], "%s, %s: %s" % (name, what, said))


def is_whole(stack):
    """Of DEEP: native frames outside of Python's, and in each call of Python code by sorted or max."""
    python = [i for i, f in enumerate(stack) if f.rsplit(".", 1)[-1] in ("<module>", "down", "<lambda>", "__lt__")]
    names = [stack[i].rsplit(".", 1)[-1] for i in python]
    return names.count("down") == LEVELS + 1 and python[0] > 0 and all(
        j > i + 1 for i, j in zip(python, python[1:]) if stack[i].endswith(("down", "<lambda>")))


def check_deep(checks, name, command, folder):
    with live.Target(command, DEEP.replace("LEVELS", str(LEVELS))) as target:
        target.ready()
        status, stacks, said = record(folder, target.pid, seconds=3)
    whole = sum(count for stack, count in stacks.items() if is_whole(stack))
    checks.that(status == 0 and whole > 0.7 * sum(stacks.values()) > 10, "%s, deep: %d of %d, %s\n%s" % (
        name, whole, sum(stacks.values()), said, list(stacks)[-1:]))


def check_late(checks, name, command, folder):
    path = os.path.join(folder, "late.collapsed")
    with live.Target(command, LATE) as target:
        target.ready()
        with subprocess.Popen([live.PYSPYD, "record", "--native", "-m", "cpu", "-d", "3s", "-r", "400", "-o", path, "--pid",
                               str(target.pid)], stderr=subprocess.PIPE) as recording:
            live.wait_attached(recording, target.pid)
            target.say()
            checks.that(target.line() == "late", "%s: no library" % name)
            said = recording.stderr.read().decode()
    stacks = read(path)
    inside = sum(count for stack, count in stacks.items() if stack[0] != "<module>" and any(
        "sqlite" in f.lower() for f in behind(stack, "late")))
    whole = sum(count for stack, count in stacks.items() if "late" in stack)
    checks.that(inside > 0.4 * whole > 10, "%s, a library that comes later: %d of %d, %s" % (name, inside, whole, said))


def check_kernel(checks, name, command, folder):
    with live.Target(command, CALLS) as target:
        target.ready()
        status, plain, said = record(folder, target.pid)
        inside = [stack for stack in plain if "[kernel]" in behind(stack, "calls")]
        checks.that(status == 0 and inside and all(stack[-1] == "[kernel]" for stack in inside),
                    "%s, without --kernel: %s, %s" % (name, said, list(plain)[:3]))
        checks.that("hides" not in said, "%s, without --kernel: %s" % (name, said))
        if hidden():
            live.note("the kernel hides its addresses")
            return
        status, named, said = record(folder, target.pid, "--kernel")
        checks.that(status == 0 and not any("[kernel]" in stack for stack in named), "%s, --kernel: %s" % (name, said))
        calls = [behind(stack, "calls") for stack in named]
        inside = {f for stack in calls if any(f.startswith("os_stat") for f in stack) for f in stack}
        checks.that(sum("vfs_" in f for f in inside) > 1 and any("syscall" in f or "el0_" in f for f in inside),
                    "%s, --kernel: %s" % (name, sorted(inside)))


def check_hidden(checks, command, folder):
    """Who may not see the kernel's addresses is told so."""
    if not shutil.which("setpriv"):
        live.note("no setpriv here")
        return
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps", "-all," + FEW,
              "--ambient-caps", "-all," + FEW]
    shown = subprocess.run(nobody + ["head", "-c16", "/proc/kallsyms"], stdout=subprocess.PIPE).stdout
    os.chmod(folder, 0o777)
    with live.Target(command, CALLS) as target:
        target.ready()
        status, stacks, said = record(folder, target.pid, "--kernel", prefix=nobody)
        checks.that(status == 0 and ("hides" in said) == (shown == b"0" * 16), "few privileges, %s: %s" % (shown, said))
        checks.that("hides" not in said or any("[kernel]" in stack for stack in stacks), "hidden: %s" % list(stacks)[:3])


def main():
    sampled.usable_sources()
    checks = live.Checks()
    interpreters = live.interpreters("3.8.18-pyenv 3.14.10-sid")
    with tempfile.TemporaryDirectory() as folder:
        for name, _, command in interpreters:
            for what, program in (("busy", BUSY), ("calls", CALLS), ("deep", DEEP.replace("LEVELS", str(LEVELS)))):
                check_same(checks, name, command, what, program)
            check_deep(checks, name, command, folder)
            check_late(checks, name, command, folder)
            check_kernel(checks, name, command, folder)
        check_hidden(checks, interpreters[0][2], folder)
    checks.end()


main()
