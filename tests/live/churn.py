# SPDX-License-Identifier: MIT
"""Targets that change while they are looked at: threads by the thousand, forks and execs, ends of every kind, a pyspyd
that is killed while it holds threads.

CHURN_ROUNDS   dumps of a target whose threads come and go (default 30)"""

import os
import signal
import subprocess
import tempfile

import live
import profiles

THREADS = """
import sys, threading
def brief():
    sum(range(50))
def churn():
    while True:
        some = [threading.Thread(target=brief) for _ in range(20)]
        for t in some: t.start()
        for t in some: t.join()
threading.Thread(target=churn, name="churn", daemon=True).start()
print("ready")
sys.stdin.readline()
"""
MANY = """
import sys, threading, os
never, _ = os.pipe()
ready = threading.Semaphore(0)
def asleep():
    ready.release()
    os.read(never, 1)
def spin():
    ready.release()
    while True: pass
for _ in range(300): threading.Thread(target=asleep, daemon=True).start()
threading.Thread(target=spin, daemon=True).start()
for _ in range(301): ready.acquire()
print("ready")
sys.stdin.readline()
"""
FAMILY = """
import os, sys
def child_spins():
    while True: pass
def grandchild():
    while True: pass
def parent_waits():
    print("ready", flush=True)
    sys.stdin.readline()
    first = os.fork()
    if first == 0: child_spins()
    second = os.fork()
    if second == 0:
        os.execv(sys.executable, [sys.executable, "-c", "def after_exec():\\n while True: pass\\nafter_exec()"])
    third = os.fork()
    if third == 0:
        try:
            os.execv("/bin/sleep", ["sleep", "1000"])
        except OSError:
            os._exit(0)
    print(first, second, third, flush=True)
    sys.stdin.readline()
parent_waits()
"""
EXECS = """
import os, sys
def before():
    print("ready", flush=True)
    sys.stdin.readline()
    os.execv(sys.executable, [sys.executable, "-c", "print('again', flush=True)\\ndef after():\\n while True: pass\\nafter()"])
before()
"""
SPIN = """
import sys, threading, time
def spin():
    while True: pass
threading.Thread(target=spin, daemon=True).start()
print("ready", flush=True)
sys.stdin.readline()
"""
COUNTS = """
import sys, threading
counter = 0
def count():
    global counter
    while True: counter += 1
for _ in range(3): threading.Thread(target=count, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    print(counter, flush=True)
"""
ROUNDS = int(os.environ.get("CHURN_ROUNDS", "30"))
GONE = 3


class Recording:
    """pyspyd record in the background, into a collapsed file."""

    def __init__(self, folder, *args):
        self.path = os.path.join(folder, "out.collapsed")
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.process = subprocess.Popen([live.PYSPYD, "record", "-o", self.path] + [str(a) for a in args],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def wait_attached(self, pid):
        live.wait_attached(self.process, pid)

    def end(self):
        """Return: exit status, stacks (None where no file was written), stderr."""
        try:
            _, err = self.process.communicate(timeout=live.COMMAND_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, err = self.process.communicate()
            return None, None, "it did not end: " + err.decode()
        stacks = None
        if os.path.exists(self.path):
            with open(self.path, "rb") as f:
                stacks = profiles.collapsed(f.read())
        return self.process.returncode, stacks, err.decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def leaves(stacks):
    return {stack[-1].split(" (")[0] for stack in stacks or ()}


def threads_come_and_go(checks, name, command, folder):
    with live.Target(command, THREADS) as target:
        target.ready()
        with Recording(folder, "-d", "2s", "-r", "500", "--pid", target.pid) as recording:
            failed = 0
            for _ in range(ROUNDS):
                dumped, said = live.dump(target.pid)
                failed += not dumped
                if dumped:
                    checks.that(any(t["name"] == "churn" or t["tid"] == target.pid for t in dumped["threads"]),
                                name + ": threads that stay are not there")
                elif "changed too fast" not in said:
                    checks.that(False, "%s: %s" % (name, said))
            checks.that(failed <= ROUNDS // 4, "%s: %d of %d dumps found no list of threads" % (name, failed, ROUNDS))
            status, stacks, err = recording.end()
        checks.that(status == 0 and stacks, "%s: record under churn: %s %r" % (name, status, err))
        checks.that(stacks and any("churn (" in frame for stack in stacks for frame in stack), name + ": no churn")
        checks.that(live.state_of(target.pid) in "SR", name + ": the target does not run on")


def many_asleep(checks, name, command, folder):
    """Threads that sleep are counted unread: the sum is ticks times threads all the same."""
    with live.Target(command, MANY) as target:
        target.ready_and_reading()
        with Recording(folder, "-d", "2s", "-r", "100", "--pid", target.pid) as recording:
            status, stacks, err = recording.end()
        if not checks.that(status == 0 and stacks, "%s: record of many: %s %r" % (name, status, err)):
            return
        looks = 200
        by_function = {f: sum(n for s, n in stacks.items() if any(x.startswith(f + " (") for x in s))
                       for f in ("asleep", "spin")}
        total = sum(stacks.values())
        checks.that(abs(total - looks * 302) < 0.02 * looks * 302, "%s: %d samples of %d: %s" % (
            name, total, looks * 302, err))
        checks.that(abs(by_function["asleep"] - looks * 300) < 0.02 * looks * 300, "%s: %s" % (name, by_function))
        # Chance has its part in how often a thread is met that shares its CPU with others.
        checks.that(0.8 * looks < by_function["spin"] <= 1.15 * looks, "%s: %s" % (name, by_function))


def family(checks, name, command, folder):
    with live.Target(command, FAMILY) as target:
        target.ready_and_reading()
        with Recording(folder, "-d", "3s", "--children", "--pid", target.pid) as recording:
            recording.wait_attached(target.pid)
            target.say()
            children = [int(n) for n in target.line().split()]
            status, stacks, err = recording.end()
        for child in children:
            os.kill(child, signal.SIGKILL)
        checks.that(len(children) == 3, name + ": no children")
        want = {"parent_waits", "child_spins", "after_exec"}
        checks.that(status == 0 and want <= leaves(stacks), "%s children: %s, %s, %r" % (name, status, leaves(stacks),
                                                                                          err))


def exec_in_the_middle(checks, name, command, folder):
    for children in ((), ("--children",)):
        with live.Target(command, EXECS) as target:
            target.ready_and_reading()
            with Recording(folder, "-d", "2s", "--pid", target.pid, *children) as recording:
                recording.wait_attached(target.pid)
                target.say()
                checks.that(target.line() == "again", name + ": no exec")
                status, stacks, err = recording.end()
            checks.that(status == 0 and {"after"} <= leaves(stacks), "%s exec %s: %s, %s, %r" % (
                name, children, status, leaves(stacks), err))


def killed(checks, name, command, folder):
    with live.Target(command, SPIN) as target:
        target.ready()
        with Recording(folder, "-d", "60s", "-r", "1000", "--pid", target.pid) as recording:
            recording.wait_attached(target.pid)
            begun = cpu_ticks(target.pid)
            while cpu_ticks(target.pid) < begun + 20:  # there is something to collect
                os.sched_yield()
            target.process.kill()
            status, stacks, err = recording.end()
        checks.that(status == GONE, "%s killed: exit %s, %r" % (name, status, err))
        checks.that(stacks and "spin" in leaves(stacks), "%s killed: what was collected is not written" % name)


def cpu_ticks(pid):
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def ends_by_itself(checks, name, command, folder):
    with live.Target(command, SPIN) as target:
        target.ready()
        with Recording(folder, "--pid", target.pid) as recording:
            recording.wait_attached(target.pid)
            while cpu_ticks(target.pid) < 20:
                os.sched_yield()
            target.say()
            target.process.wait()
            status, stacks, err = recording.end()
        checks.that(status == 0 and stacks, "%s ended: exit %s, %r" % (name, status, err))


def command_of_its_own(checks, name, command, folder):
    program = "def work():\n for i in range(6000000): pass\nwork()"
    with Recording(folder, "-r", "500", "--", *command, "-c", program) as recording:
        status, stacks, err = recording.end()
    checks.that(status == 0 and "work" in leaves(stacks), "%s -- CMD: exit %s, %s, %r" % (name, status, leaves(stacks), err))
    with Recording(folder, "-d", "500ms", "--", *command, "-c", "while True: pass") as recording:
        status, stacks, err = recording.end()
    checks.that(status == 0 and stacks, "%s -- CMD -d: exit %s, %r" % (name, status, err))
    with Recording(folder, "--", *command, "-c", "raise SystemExit(3)") as recording:
        status, stacks, err = recording.end()
    checks.that(status is not None and status in (0, 3, 5), "%s -- CMD that ends at once: exit %s, %r" % (name, status, err))


def runs_on(checks, where, target):
    """Its threads are not stopped, and its counter goes up."""
    states = {}
    for tid in os.listdir("/proc/%d/task" % target.pid):
        with open("/proc/%d/task/%s/stat" % (target.pid, tid)) as f:
            states[tid] = f.read().rsplit(")", 1)[1].split()[0]
    checks.that(not set(states.values()) & set("tT"), "%s: %s" % (where, states))
    target.say()
    first = second = target.line()
    for _ in range(20000):  # where there is much else to do, its threads have to wait for a CPU
        target.say()
        second = target.line()
        if second != first:
            break
    checks.that(first and second and second != first, "%s: its counter stands still: %r" % (where, second))


def blocking(checks, name, command, folder):
    with live.Target(command, COUNTS) as target:
        target.ready()
        for _ in range(5):
            dumped, said = live.dump(target.pid, "--blocking")
            checks.that(dumped and len(dumped["threads"]) == 4, "%s blocking: %s" % (name, said))
        runs_on(checks, name + " after blocking dumps", target)
        with Recording(folder, "-d", "1s", "--blocking", "--pid", target.pid) as recording:
            status, stacks, err = recording.end()
        checks.that(status == 0 and "count" in leaves(stacks), "%s blocking record: %s %r" % (name, status, err))
        runs_on(checks, name + " after a blocking record", target)
        for _ in range(5):
            with Recording(folder, "-d", "60s", "-r", "5000", "--blocking", "--pid", target.pid) as recording:
                recording.wait_attached(target.pid)
                wait_traced(target.pid, recording.process)
                recording.process.kill()
                recording.process.wait()
                wait_untraced(target.pid)
                runs_on(checks, name + " after SIGKILL of pyspyd", target)


def traced(pid):
    for tid in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/status" % (pid, tid)) as f:
            if "TracerPid:\t0\n" not in f.read():
                return True
    return False


def wait_traced(pid, tracer):
    while tracer.poll() is None and not traced(pid):
        os.sched_yield()


def wait_untraced(pid):
    """The kernel lets go when the tracer is gone; a stop that stays would end the script by its time limit."""
    for _ in range(200000):
        if not traced(pid):
            return
        os.sched_yield()


def main():
    checks = live.Checks()
    parts = [threads_come_and_go, many_asleep, killed, ends_by_itself, blocking, family, exec_in_the_middle,
             command_of_its_own]
    wanted = os.environ.get("CHURN_PARTS", "").split()
    with tempfile.TemporaryDirectory() as folder:
        for name, _, command in live.interpreters("3.11.2-system 3.8.18-* 3.14.*-sid"):
            for part in parts:
                if command[0] == "chroot" and part is exec_in_the_middle:
                    continue  # sys.executable needs a /proc on some
                if not wanted or part.__name__ in wanted:
                    part(checks, name, command, folder)
            live.note(name)
    checks.end()


main()
