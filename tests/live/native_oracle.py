#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Native stacks against gdb's, address by address and name by name: programs with known stacks (native_target.c,
native_cxx.cc), and interpreters in native code. Then merged stacks of every interpreter against what its program does.

    native_oracle.py [PATTERN...]    only interpreters whose names match"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from live import BUILD, HERE, Checks, Target, interpreters, note, skip, wait_at_rest
from native_compare import DRIVER, HAS_GDB, compare, driver, gdb, in_a_call

TARGET = os.path.join(BUILD, "tests/live/native_target")

CASES = {
    "wait": ["known_wait", "main"],
    "deep": ["known_wait"] + ["known_deep"] * 601 + ["run_deep", "main"],
    "realigned": ["known_wait", "known_alloca", "known_realigned", "run_realigned", "main"],
    "qsort": ["known_wait", "known_compare", "known_qsort", "main"],
    "signal": ["known_wait", "known_handler", "known_signal", "main"],
    "alternate": ["known_wait", "known_handler", "known_alternate", "main"],
    "aborts": ["known_wait", "known_handler", "known_aborts", "main"],
    "mutex": ["known_wait", "known_mutex", "main"],
    "nowhere": ["known_wait", "known_handler", "known_nowhere", "main"],
}

# Programs of an interpreter in native code; gdb looks at them stopped.
PYTHON = {
    "sleep": "import time\nprint('ready', flush=True)\ntime.sleep(1000)",
    "zlib": "import zlib, os\ndata = os.urandom(1 << 26)\nprint('ready', flush=True)\nwhile True:\n zlib.compress(data)",
    "sqlite": "import sqlite3\nc = sqlite3.connect(':memory:')\nprint('ready', flush=True)\n"
              "c.execute('with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n').fetchall()",
    "sort": "import ctypes, time\nC = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)\n"
            "def f(a, b):\n print('ready', flush=True)\n time.sleep(1000)\n return 0\n"
            "ctypes.CDLL(None).qsort((ctypes.c_int * 4)(), 4, 4, C(f))",
}

MERGED = """
import sys, threading
def wait():
    print("ready"); sys.stdout.flush()
    sys.stdin.read(1)
def leaf(x):
    wait()
    return x
def generate():
    yield leaf(1)
class Number(object):
    def __init__(self):
        self.value = list(map(leaf, [1]))
    def __lt__(self, other):
        for x in generate():
            next(generate())
        return True
def inner():
    sorted([Number.__new__(Number), Number.__new__(Number)])
def outer():
    inner()
outer()
"""
MERGED_WANT = ["python " + name for name in ("wait", "leaf", "generate", "__lt__", "inner", "outer", "<module>")]


def known(frames):
    return [f[3] for f in frames if f[3].startswith(("known_", "run_")) or f[3] == "main"]


def check_case(checks, name, want):
    with Target([TARGET, name]) as target:
        checks.that(target.ready(), "%s: not ready" % name)
        wait_at_rest(target.pid)
        for mode in "asleep", "stop":
            threads = driver(target.pid, mode)
            got = known(threads.get(target.pid, ([], []))[1])
            # The stack under the alternate one is not in the copy that a stop takes.
            expected = want[:-1] if (name, mode) == ("alternate", "stop") else want
            checks.that(got == expected, "%s, %s: %s" % (name, mode, got))
        if HAS_GDB:
            compare(checks, name, driver(target.pid, "asleep"), gdb(target.pid))


def check_vfork(checks):
    """The parent waits in the kernel until its child ends: nobody can stop it."""
    with Target([TARGET, "vfork"]) as target:
        checks.that(target.ready(), "vfork: not ready")
        in_a_call(target)
        head, frames = driver(target.pid, "asleep").get(target.pid, (["missing"], []))
        checks.that(known(frames) == ["known_vfork", "main"] and head[-1] == "complete", "vfork: %s %s" % (head, frames))


def check_stubs(checks, path):
    """Names of the PLT's stubs against those that objdump makes up."""
    shown = subprocess.run(["objdump", "-d", "-j", ".plt", "-j", ".plt.sec", "-j", ".plt.got", path], stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL).stdout.decode("utf-8", "replace")
    want = set(re.findall(r"^[0-9a-f]+ <(?!\*ABS)[^>]*@plt>:$", shown, re.M))
    got = set(subprocess.run([DRIVER, path, "stubs"], stdout=subprocess.PIPE).stdout.decode("utf-8", "replace").splitlines())
    checks.that(want <= got and (bool(want) or not got),
                "stubs of %s: missing %s" % (path, sorted(want - got)[:5]))
    # With .plt.sec, objdump gives no names to those of .plt, which the others jump to at the first call.
    if "section .plt.sec" not in shown:
        checks.that(got <= want, "stubs of %s: too many: %s" % (path, sorted(got - want)[:5]))


def check_bare(checks, folder):
    """A copy without section headers: the stacks are as long, and code of others has its names."""
    bare = os.path.join(folder, "bare")
    with open(TARGET, "rb") as file:
        image = bytearray(file.read())
    image[0x28:0x30] = bytes(8)  # e_shoff
    image[0x3c:0x40] = bytes(4)  # e_shnum, e_shstrndx
    with open(bare, "wb") as file:
        file.write(image)
    os.chmod(bare, 0o755)
    for case in "deep", "qsort", "signal":
        stacks = []
        for program in TARGET, bare:
            with Target([program, case]) as target:
                target.ready()
                wait_at_rest(target.pid)
                head, frames = driver(target.pid, "asleep").get(target.pid, (["missing"], []))
                stacks.append([f[4] for f in frames])
                checks.that(" ".join(head[1:]) == "complete", "%s %s: %s" % (program, case, head))
        checks.that(len(stacks[0]) == len(stacks[1]) > 3, "%s without sections: %d frames, not %d" % (
            case, len(stacks[1]), len(stacks[0])))
    plain = [subprocess.run([DRIVER, path, "stubs"], stdout=subprocess.PIPE).stdout for path in (TARGET, bare)]
    checks.that(plain[0] and sorted(plain[0].splitlines()) == sorted(plain[1].splitlines()), "stubs without sections")


def check_running(checks, name, want, times=20):
    with Target([TARGET, name]) as target:
        checks.that(target.ready(), "%s: not ready" % name)
        for _ in range(times):
            head, frames = driver(target.pid, "stop").get(target.pid, (["missing"], []))
            checks.that(known(frames)[-len(want):] == want and head[-1] == "complete", "%s: %s %s" % (name, head, frames))
        if name == "jit":
            os.unlink("/tmp/perf-%d.map" % target.pid)


def check_cxx(checks, folder):
    program = os.path.join(folder, "cxx")
    if not shutil.which("g++"):
        note("no g++: C++ is left out")
        return
    subprocess.run(["g++", "-O2", "-g", "-o", program, os.path.join(HERE, "native_cxx.cc")], check=True)
    for arguments, want in ([], "known::unwinding"), (["terminate"], "known::thrower<int>"):
        with Target([program] + arguments) as target:
            checks.that(target.ready(), "C++: not ready")
            wait_at_rest(target.pid)
            ours = driver(target.pid, "asleep")
            names = [f[3] for f in ours.get(target.pid, ([], []))[1]]
            checks.that(want in names and "known::wait" in names, "C++: %s" % names)
            if HAS_GDB:
                compare(checks, "C++ %s" % arguments, ours, gdb(target.pid))


def check_python(checks, name, command):
    for case, program in sorted(PYTHON.items()):
        with Target(command, program) as target:
            if not target.ready():
                note("%s: no %s" % (name, case))
                continue
            if case in ("sleep", "sort"):
                wait_at_rest(target.pid)
            os.kill(target.pid, signal.SIGSTOP)
            os.waitpid(target.pid, os.WUNTRACED)
            compare(checks, "%s, %s" % (name, case), driver(target.pid, "stop"), gdb(target.pid))


def squeeze(frames):
    out = []
    for frame in frames:
        word = " ".join(frame[:2]) if frame[0] == "python" else "*"
        if word != "*" or out[-1:] != ["*"]:
            out.append(word)
    return out


def check_merged(checks, name, command):
    with Target(command, MERGED) as target:
        if not checks.that(target.ready(), "%s: not ready" % name):
            return
        wait_at_rest(target.pid)
        head, frames = driver(target.pid, "merge").get(target.pid, (["missing"], []))
        got = squeeze(frames)
        # Generators are run by the loop that asks for their next value from 3.12 on; before, natively.
        checks.that([w for w in got if w != "*"] == MERGED_WANT, "%s: %s" % (name, got))
        checks.that(got[:1] == ["*"] and got[-1:] == ["*"], "%s: native frames at both ends: %s" % (name, got))
        i = got.index("python __lt__") if "python __lt__" in got else 0
        checks.that(got[i + 1:i + 2] == ["*"], "%s: native frames below __lt__: %s" % (name, got))
        checks.that(not [f for f in frames if "!" in f[-1] or "!" in f[2]], "%s: unmatched: %s" % (name, frames))
        checks.that(" ".join(head[1:]) == "complete", "%s: %s" % (name, head))


def check_cold(checks, name, command):
    """The part of the evaluation loop that was moved away, against the separate file's symbol."""
    root = command[1] if command[0] == "chroot" else ""
    path = os.path.realpath(command[-1]) if not root else os.path.join(root, command[-1].lstrip("/"))
    head = subprocess.run(["readelf", "-nSW", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode()
    found = re.search(r"Build ID: (..)([0-9a-f]+)", head)
    if not found or ".symtab" in head:
        return
    separate = "%s/usr/lib/debug/.build-id/%s/%s.debug" % (root, found.group(1), found.group(2))
    symbols = subprocess.run(["readelf", "-sW", separate], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    want = re.search(r"0*([0-9a-f]+) +(\d+) FUNC .* _PyEval_EvalFrameDefault\.cold$", symbols.decode(), re.M)
    if not want:
        return
    got = subprocess.run([DRIVER, path, "cold"], stdout=subprocess.PIPE).stdout.decode().split()
    checks.that(got == ["cold", want.group(1), want.group(2)], "%s: %s, not %s" % (name, got, want.groups()))


if os.geteuid() != 0:
    skip("needs root: stops processes")
if not HAS_GDB:
    note("no gdb: only known stacks are compared")
CHECKS = Checks()
for case, expected in CASES.items():
    check_case(CHECKS, case, expected)
check_vfork(CHECKS)
check_running(CHECKS, "spin", ["known_spin", "main"])
check_running(CHECKS, "calls", ["known_calls", "main"], 100)
check_running(CHECKS, "jit", ["known_spin", "known_made", "known_jit", "main"])
with tempfile.TemporaryDirectory() as work:
    check_cxx(CHECKS, work)
    check_bare(CHECKS, work)
if shutil.which("objdump"):
    FILES = [TARGET, os.path.realpath("/usr/bin/python3")] + sorted(
        {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line})[:10]
    for stub_file in FILES:
        check_stubs(CHECKS, stub_file)
else:
    note("no objdump: names of stubs are not compared")
for found, _, start in interpreters():
    if HAS_GDB and "chroot" not in start[0] and os.environ.get("NATIVE_GDB", "3.11.2") in found:
        check_python(CHECKS, found, start)
    check_merged(CHECKS, found, start)
    check_cold(CHECKS, found, start)
CHECKS.end()
