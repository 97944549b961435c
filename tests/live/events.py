# SPDX-License-Identifier: MIT
"""Processes that come and go under a watch, with the kernel's events and by memory and scans alone: short ones, forks,
programs that execute another Python or no Python, targets in a PID namespace, pids that are used again."""

import os
import re
import subprocess
import sys
import threading

from live import PYSPYD, READY_S, Checks, Target, interpreters, note, pyspyd, skip

MARK = "pyspyd-events-%d" % os.getpid()
SHORT = 200
AT_ONCE = 8
REUSE_TRIES = 10
SHORT_LIFE = "import time; time.sleep(0.4) # %s"
HOLD = "import os, sys; print('ready', os.getpid(), flush=True); sys.stdin.readline() # %s"
FORK = """# %s
import os
print('ready', flush=True)
os.read(0, 1)
child = os.fork()
if not child:
    print('child', os.getpid(), flush=True)
os.read(0, 1)
if child:
    os.waitpid(child, 0)
"""
EXEC = """# %s
import os, sys
print('ready', flush=True)
sys.stdin.readline()
os.execvp(sys.argv[1], sys.argv[1:])
"""
SOURCES = ("auto", "vm")


class Watch:
    """A watch in the background; what it says of processes, as it comes."""

    def __init__(self, source, *args, prefix=()):
        self.process = subprocess.Popen(list(prefix) + [PYSPYD, "watch", "--source", source, "--interval", "200ms"] +
                                        list(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.said = []  # (event, pid, rest)
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            match = re.match(r"\S+ (process|ended|finding) pid=(\d+) (.*)", line.decode())
            if match:
                with self.changed:
                    self.said.append((match[1], int(match[2]), match[3]))
                    self.changed.notify_all()

    def has(self, event, pid, text=""):
        return any(e == event and p == pid and text in rest for e, p, rest in self.said)

    def wait(self, event, pid, text=""):
        with self.changed:
            return self.changed.wait_for(lambda: self.has(event, pid, text), READY_S)

    def pids(self):
        with self.changed:
            return {p for _, p, _ in self.said}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()


def start(command, program, *args, **options):
    return Target(list(command) + ["-u", "-c", program % MARK] + list(args), **options)


def short_ones(command, source):
    """How many of SHORT processes, each of which lives for less than half a second, are seen."""
    started, running = set(), []
    with start(command, HOLD) as long_one, Watch(source, "--name", MARK) as watch:
        long_one.ready()
        watch.wait("process", long_one.pid)
        for _ in range(SHORT):
            if len(running) >= AT_ONCE:
                running.pop(0).wait()
            running.append(subprocess.Popen(list(command) + ["-S", "-c", SHORT_LIFE % MARK]))
            started.add(running[-1].pid)
        for process in running:
            process.wait()
        long_one.say()
        watch.wait("ended", long_one.pid)
        return len(watch.pids() & started)


def check_fork(checks, command, source, *choice):
    text = "%s, %s: " % (source, choice)
    with start(command, FORK) as target:
        target.ready()
        choice = [str(target.pid) if c == "PID" else c for c in choice]
        with Watch(source, *choice) as watch:
            checks.that(watch.wait("process", target.pid), text + "not watched")
            target.say()
            child = int(target.line().split()[1])
            checks.that(watch.wait("process", child), text + "the child is not watched")
            target.say("\n\n")
            checks.that(watch.wait("ended", child), text + "the child does not end")


def check_exec(checks, first, second, source, *choice):
    """Another Python under the same pid, then no Python."""
    text = "%s, %s: exec: " % (source, choice)
    with start(first[2], EXEC, *second[2], "-u", "-c", EXEC % MARK, "sleep", "100") as target:
        target.ready()
        choice = [str(target.pid) if c == "PID" else c for c in choice]
        with Watch(source, *choice) as watch:
            checks.that(watch.wait("process", target.pid, "python=" + version_of(first)), text + "not watched")
            target.say()
            target.ready()
            checks.that(watch.wait("process", target.pid, "python=" + version_of(second)), text + "the second is not watched")
            with watch.changed:
                watch.said.clear()
            target.say()
            checks.that(watch.wait("ended", target.pid), text + "sleep is watched")
            checks.that(not watch.has("finding", target.pid), text + "%r" % watch.said)


def version_of(interpreter):
    return "%d.%d" % interpreter[1]


def check_namespace(checks, command, source, events):
    """A target in a PID namespace of its own, watched from here, aborts there."""
    text = "%s: PID namespace: " % source
    program = HOLD % MARK + "\nimport resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()"
    # Not as its first process, whom an abort does not end.
    shell = "\"$@\"; exit 0"
    with Watch(source, "--name", MARK) as watch:
        with Target(["unshare", "-pf", "--kill-child", "sh", "-c", shell, "sh"] + list(command) + ["-u", "-c", program],
                    stderr=subprocess.DEVNULL) as target:
            inside = int(target.ready().split()[1])
            checks.that(inside < 100, text + "pid %d" % inside)
            here = None
            with watch.changed:
                watch.changed.wait_for(lambda: [p for e, p, r in watch.said if e == "process" and "python=" in r], READY_S)
                here = [p for e, p, r in watch.said if e == "process"]
            if not checks.that(here, text + "not watched"):
                return
            target.say()
            checks.that(watch.wait("ended", here[0]), text + "does not end")
            told = (watch.wait if events else watch.has)("finding", here[0], "kind=crash")
            checks.that(told == events, text + "%r" % watch.said)


def check_reuse(checks, command, source):
    """In a namespace of our own, where the next pid can be chosen; threads of the watch take some, too."""
    program = __file__
    done = subprocess.run(["unshare", "-pf", "--mount-proc", sys.executable, program, "--reuse", source] + list(command),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=2 * READY_S)
    checks.that(done.returncode == 0, "%s: pid used again: %s" % (source, done.stdout.decode()[-600:]))


def reused(checks, watch, source, command):
    """Return: whether the second process got the first one's pid."""
    with start(command, HOLD) as first:
        first.ready()
        checks.that(watch.wait("process", first.pid), "the first is not watched")
    with open("/proc/sys/kernel/ns_last_pid", "w") as f:
        f.write(str(first.pid - 1))
    with start(command, HOLD + "\nos.abort()", stderr=subprocess.DEVNULL) as second:
        if second.pid != first.pid:
            return False
        second.ready()

        def said():
            return [event for event, pid, _ in watch.said if pid == first.pid and event != "finding"]

        with watch.changed:
            ok = watch.changed.wait_for(lambda: said() == ["process", "ended", "process"], READY_S)
        if checks.that(ok, "the second is not watched: %r" % watch.said):
            with watch.changed:
                watch.said.clear()
            second.say()
            checks.that(watch.wait("ended", second.pid), "the second does not end")
            if source == "auto":
                checks.that(watch.wait("finding", second.pid, "SIGABRT"), "%r" % watch.said)
    return True


def reuse(source, command):
    checks = Checks()
    with Watch(source, "--name", MARK) as watch:
        checks.that(any(reused(checks, watch, source, command) for _ in range(REUSE_TRIES)), "somebody takes the pid")
    checks.end()


def main():
    checks = Checks()
    events = "the kernel tells of new processes" in pyspyd("doctor")[1]
    by_name = {i[0]: i for i in interpreters() if i[2][0] != "chroot"}
    chosen = sorted(by_name.values(), key=lambda i: i[1])
    if os.geteuid() or len(chosen) < 2:
        skip("needs root and two interpreters")
    first, second = chosen[-1], chosen[0]
    command = by_name.get("3.11.2-system", first)[2]
    seen = {}
    for source in SOURCES[0 if events else 1:]:
        seen[source] = short_ones(command, source)
        check_fork(checks, command, source, "--name", MARK)
        check_fork(checks, command, source, "--pid", "PID", "--children")
        check_exec(checks, first, second, source, "--name", MARK)
        check_exec(checks, first, second, source, "--pid", "PID")
        check_namespace(checks, command, source, events and source == "auto")
        check_reuse(checks, command, source)
    for source, n in seen.items():
        note("%d of %d short processes seen (%s)" % (n, SHORT, source))
    if events:
        # Where they take long to start, scans see nearly all of them.
        checks.that(seen["auto"] > SHORT / 2 and seen["auto"] > min(seen["vm"], 0.9 * SHORT), "%r" % seen)
    else:
        note("the kernel tells nothing of processes here: scans alone")
    checks.end()


if sys.argv[1:2] == ["--reuse"]:
    reuse(sys.argv[2], sys.argv[3:])
main()
