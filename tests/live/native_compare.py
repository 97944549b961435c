# SPDX-License-Identifier: MIT
"""What the tests of native stacks share: our unwinder's account of a process and gdb's, and what it is for the two to be
equal: address by address, and name by name."""

import os
import re
import shutil
import subprocess

from live import BUILD, HERE, wait_until

DRIVER = os.path.join(BUILD, "tests/live/native_driver")
SYSTEM = ("libc.so", "libc-", "ld-linux")  # their functions have many names each
HAS_GDB = shutil.which("gdb") is not None


def driver(pid, mode):
    """[(first line's words, [(pc, flags, name, module)…])…] by thread."""
    done = subprocess.run([DRIVER, str(pid), mode], stdout=subprocess.PIPE, timeout=60)
    return parse(done.stdout.decode("utf-8", "replace"))


def parse(text):
    threads = {}
    frames = []
    for line in text.splitlines():
        words = line.split(" ")
        if words[0] == "thread":
            frames = []
            threads[int(words[1])] = (words[2:], frames)
        elif words[0] in ("frame", "python"):
            frames.append(words)
    return threads


def gdb_all(pids):
    """What gdb shows of each of these processes, one after the other: it reads their files once. {pid: as driver()}"""
    argv = ["gdb", "-nx", "-batch", "-ex", "set backtrace past-main on", "-ex", "set backtrace limit 2000", "-ex",
            "set debuginfod enabled off"]
    for pid in pids:
        argv += ["-ex", "attach %d" % pid, "-ex", "echo \\nprocess %d\\n" % pid, "-ex",
                 "source %s" % os.path.join(HERE, "native_gdb.py"), "-ex", "detach"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
    parts = re.split(r"^process (\d+)$", done.stdout.decode("utf-8", "replace"), flags=re.M)
    return {int(pid): parse(text) for pid, text in zip(parts[1::2], parts[2::2])}


def gdb(pid):
    return gdb_all([pid]).get(pid, {})


def plain(name):
    """A function's name without what one of the two shows and the other does not."""
    name = re.sub(r".*::_FUN$", "_FUN", name)  # a lambda
    name = re.sub(r"\[clone.*|\.(cold|part|isra|constprop|lto_priv).*|@(?!plt).*", "", name)
    return re.sub(r"\(.*", "", name)


def same_names(ours, theirs):
    """Where the names differ, beyond the many names of libc's functions."""
    wrong = []
    for mine, other in zip(ours, theirs):
        if plain(mine[3]) == plain(other[2]) or any(part in mine[4] for part in SYSTEM) or "vdso" in mine[4]:
            continue
        if mine[3] != "?" or other[2] != "?":
            wrong.append((mine[3], other[2]))
    return wrong


def compare(checks, what, ours, theirs):
    checks.that(bool(theirs), "%s: gdb shows nothing" % what)
    for tid, (_, frames) in theirs.items():
        head, mine = ours.get(tid, (["missing"], []))
        text = "%s: thread %d (%s)" % (what, tid, " ".join(head))
        checks.that(" ".join(head[1:]) == "complete", text)
        pcs, other = [f[1] for f in mine], [f[1] for f in frames]
        if checks.that(pcs == other, "%s: ours %s, gdb's %s" % (text, mine[:40], frames[:40])):
            wrong = same_names(mine, frames)
            checks.that(not wrong, "%s: names differ: %s" % (text, wrong))


def in_a_call(target):
    """Waits until the kernel shows the target's first thread asleep in a system call: a page that is fetched is none."""
    def sleeps():
        with open("/proc/%d/syscall" % target.pid) as file:
            return not file.read().startswith(("running", "-1"))
    wait_until(sleeps)
