# SPDX-License-Identifier: MIT
"""Native and kernel frames of running threads (record --native): programs whose stacks are known.

    native_record.py [PATTERN...]    only interpreters whose names match"""

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
FEW = "+bpf,+perfmon,+sys_ptrace"


def record(folder, pid, *args, seconds=1, prefix=()):
    """Return: exit status, stacks as lists of functions' names, outermost first, stderr."""
    path = os.path.join(folder, "out.collapsed")
    status, _, said = live.pyspyd("record", "--native", "-m", "cpu", "-d", "%ds" % seconds, "-r", "400", "-o", path, "--pid",
                                  pid, *args, prefix=prefix)
    stacks = {}
    if os.path.exists(path):
        with open(path, "rb") as f:
            for line in f.read().decode().splitlines():
                stack, _, count = line.rpartition(" ")
                names = tuple(frame.split(" (")[0] for frame in stack.split(";"))
                stacks[names] = stacks.get(names, 0) + int(count)
        os.unlink(path)
    return status, stacks, said


def behind(stack, function):
    """What it called: functions' names, outermost first."""
    return stack[stack.index(function) + 1:] if function in stack else ()


def hidden():
    with open("/proc/kallsyms") as f:
        return f.read(16) == "0" * 16


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
        inside = {stack[-1] for stack in calls if any(f.startswith("os_stat") for f in stack)}
        checks.that(sum("vfs_" in function for function in inside) > 1, "%s, --kernel: %s" % (name, sorted(inside)))


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
    interpreters = live.interpreters("3.8.18-pyenv 3.11.2-system 3.14.10-sid")
    with tempfile.TemporaryDirectory() as folder:
        for name, _, command in interpreters:
            check_kernel(checks, name, command, folder)
        check_hidden(checks, interpreters[0][2], folder)
    checks.end()


main()
