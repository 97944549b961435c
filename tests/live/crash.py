# SPDX-License-Identifier: MIT
"""One watch over programs that end in many ways: each crash is told, with its signal, its thread, its stack and its
sender, and nothing of the others is. Then without the kernel's events: only of a child is it known how it ended."""

import collections
import json
import os
import subprocess
import sys
import threading

from live import PYSPYD, READY_S, Checks, Target, interpreters, note, pyspyd

MARK = "pyspyd-crash-%d" % os.getpid()
HEAD = """
import ctypes, os, resource, signal, sys, threading
mark = %r
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the test was started with
signal.signal(signal.SIGINT, signal.default_int_handler)
def hold():
    sys.stdin.readline()
""" % MARK

# Name → what comes after its look; what is told: None, or severity, signal, sender.
KILLED_BY_PARENT = "parent"
PROGRAMS = {
    "segv": ("ctypes.string_at(8)", ("critical", "SIGSEGV", "kernel")),
    "segv in a thread": ("t = threading.Thread(target=ctypes.string_at, args=(8,)); t.start(); t.join()",
                         ("critical", "SIGSEGV", "kernel")),
    "segv, faulthandler": ("import faulthandler; faulthandler.enable(open(os.devnull, 'w')); ctypes.string_at(8)",
                           ("critical", "SIGSEGV", "itself")),
    "abort": ("os.abort()", ("critical", "SIGABRT", "itself")),
    "bus": ("os.kill(os.getpid(), signal.SIGBUS)", ("critical", "SIGBUS", "itself")),
    "file size": ("signal.signal(signal.SIGXFSZ, signal.SIG_DFL); resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9)); "
                  "os.write(os.open('/dev/shm/' + mark, os.O_CREAT | os.O_WRONLY), b'x' * 9999)\n"
                  "os.write(os.open('/dev/shm/' + mark, os.O_APPEND | os.O_WRONLY), b'x' * 9999)",
                  ("warning", "SIGXFSZ", None)),
    "kills itself": ("os.kill(os.getpid(), 9)", ("warning", "SIGKILL", "itself")),
    "killed by its parent": (None, ("info", "SIGKILL", "parent")),
    "killed by another": (None, ("warning", "SIGKILL", "other")),
    "aborted by its parent": (None, ("warning", "SIGABRT", "parent")),
    "end": ("", None),
    "exit 1": ("sys.exit(1)", None),
    "_exit 1": ("os._exit(1)", None),
    "exit 139": ("sys.exit(139)", None),
    "exec": ("os.execvp('sh', ['sh', '-c', 'exit 3'])", None),
    "exec, then killed": ("os.execvp('sh', ['sh', '-c', 'kill -9 $$'])", None),
    "terminated": (None, None),
    "interrupted": ("os.kill(os.getpid(), signal.SIGINT)", None),
    "hung up": (None, None),
    "a signal of its own": ("os.kill(os.getpid(), signal.SIGUSR1)", None),
}
SIGNALS = {"killed by its parent": 9, "aborted by its parent": 6, "terminated": 15, "hung up": 1}


INTERVALS = 3  # a while in which most threads are looked at where they wait


class Watch:
    """A watch in the background; its lines as they come."""

    def __init__(self, *args):
        self.process = subprocess.Popen([PYSPYD, "watch", "--json"] + list(args), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE)
        self.seen = collections.Counter()  # by pid, how often its object was read: intervals in which it was watched
        self.findings = []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            one = json.loads(line)
            with self.changed:
                if one["schema"].startswith("pyspyd.finding"):
                    self.findings.append(one)
                else:
                    self.seen[one["process"]["pid"]] += 1
                self.changed.notify_all()

    def wait(self, condition):
        with self.changed:
            return self.changed.wait_for(condition, READY_S)

    def sees(self, pids):
        """Waits until all of them were watched for some intervals. Return: whether they were."""
        return self.wait(lambda: all(self.seen[pid] >= INTERVALS for pid in pids))

    def of(self, pid):
        return [f for f in self.findings if f["process"]["pid"] == pid and f["kind"] == "crash"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.reader.join()


def start(command, last):
    return Target(command, HEAD + "print('ready', flush=True)\nhold()\n" + ("signal.pause()" if last is None else last),
                  stderr=subprocess.DEVNULL)


def end(target, name):
    if name in SIGNALS:
        os.kill(target.pid, SIGNALS[name])
    elif name == "killed by another":
        subprocess.run(["sh", "-c", "kill -9 %d; exit" % target.pid], check=True)
    else:
        target.say()
    try:
        target.process.wait(READY_S)
    except subprocess.TimeoutExpired:
        raise RuntimeError("%s: it goes on" % name) from None


def check_told(checks, name, target, found, expected):
    """`found`: its events. Return: whether a thread was last seen where it waited."""
    severity, number, sender = expected
    if not checks.that([f["state"] for f in found] == ["open", "resolved"], "%s: %r" % (name, found)):
        return False
    one, evidence = found[0], found[0]["evidence"]
    checks.that(one["severity"] == severity and evidence["signal"] == number, "%s: %r" % (name, one))
    if sender:
        checks.that(evidence["sent_by"] == sender, "%s: sent by %s" % (name, evidence["sent_by"]))
    if sender in ("parent", "other"):
        checks.that((evidence["sender_pid"] == os.getpid()) == (sender == "parent"), "%s: %r" % (name, evidence))
    if name == "segv in a thread":
        crashed = [t["tid"] for t in one["threads"] if t["role"] == "crashed"]
        checks.that(crashed != [target.pid], "%s: %r" % (name, crashed))
    elif name == "segv":
        checks.that(one["threads"][0]["role"] == "crashed" and one["threads"][0]["tid"] == target.pid,
                    "%s: %r" % (name, one["threads"]))
        checks.that(evidence["address"] == "0x8", "%s: at %s" % (name, evidence["address"]))
    return any(f["function"] == "hold" for t in one["threads"] for f in t["stack"])


def check_events(checks, name, command):
    with Watch("--name", MARK, "--var", "__main__:mark", "--interval", "200ms") as watch:
        targets, last_ones = {}, []
        try:
            for case, (last, _) in PROGRAMS.items():
                targets[case] = start(command, last)
            last_ones += [start(command, "os.abort()") for _ in range(2)]
            for target in list(targets.values()) + last_ones:
                target.ready()
            with watch.changed:
                watch.seen.clear()  # from when they were still on their way
            if not checks.that(watch.sees([t.pid for t in list(targets.values()) + last_ones]),
                               "%s: not all are watched" % name):
                return
            for case, target in targets.items():
                end(target, case)
            # One after the other: what is told of the second comes in an interval after that of all the others.
            for target in last_ones:
                end(target, "last")
                checks.that(watch.wait(lambda one=target: len(watch.of(one.pid)) == 2),
                            "%s: the last crash is not told" % name)
            seen = []
            for case, (_, expected) in PROGRAMS.items():
                pid = targets[case].pid
                if expected:
                    watch.wait(lambda pid=pid: len(watch.of(pid)) >= 2)
                found = watch.of(pid)
                if expected:
                    seen.append(check_told(checks, "%s: %s" % (name, case), targets[case], found, expected))
                else:
                    checks.that(not found, "%s: %s: %r" % (name, case, [f["summary"] for f in found]))
            checks.that(sum(seen) > len(seen) / 2, "%s: seen where they waited: %r" % (name, seen))
        finally:
            for target in list(targets.values()) + last_ones:
                target.__exit__()


def check_child(checks, name, command):
    """A program that the watch starts itself: by memory alone too."""
    for last, expected in (("os.abort()", "SIGABRT"), ("sys.exit(1)", None), ("", None)):
        program = HEAD + "import time\nwhile time.process_time() < 0.8: pass\n" + last
        status, out, err = pyspyd("watch", "--json", "--source", "vm", "--interval", "200ms", "--", *command, "-c", program)
        found = [f for f in map(json.loads, out.splitlines()) if f.get("kind") == "crash"]
        text = "%s: child, %r: exit %d, %s, %r" % (name, last, status, err, [f["summary"] for f in found])
        if expected:
            checks.that(found and found[0]["evidence"]["signal"] == expected and
                        found[0]["evidence"]["sent_by"] is None, text)
        else:
            checks.that(not found, text)


def check_stranger(checks, name, command):
    """Without events nothing is said of a process that somebody else started."""
    with Watch("--name", MARK, "--var", "__main__:mark", "--source", "vm", "--interval", "200ms") as watch:
        with start(command, "os.abort()") as target, start(command, None) as other:
            target.ready()
            other.ready()
            checks.that(watch.sees([target.pid, other.pid]), "%s: not both are watched" % name)
            end(target, "abort")
            with watch.changed:
                watch.seen.clear()
            checks.that(watch.sees([other.pid]), "%s: the other one is not watched" % name)
            checks.that(not watch.of(target.pid), "%s: %r" % (name, watch.findings))


def main():
    checks = Checks()
    events = "the kernel tells of new processes" in pyspyd("doctor")[1]
    chosen = [i for i in interpreters() if i[2][0] != "chroot"]
    if len(sys.argv) < 2:
        by_name = {i[0]: i for i in chosen}
        chosen = [by_name[k] for k in sorted(by_name) if k.startswith(("3.6", "3.11.2-system", "3.13.0", "3.13.5t")) and
                  not k.endswith("dbg")]
    for name, _, command in chosen:
        if events:
            check_events(checks, name, command)
        check_child(checks, name, command)
        check_stranger(checks, name, command)
    if os.path.exists("/dev/shm/" + MARK):
        os.unlink("/dev/shm/" + MARK)
    if not events:
        note("the kernel tells nothing of processes here: only own children were looked at")
    checks.end()


main()
