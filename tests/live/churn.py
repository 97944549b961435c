# SPDX-License-Identifier: MIT
"""Targets that change while they are looked at: threads by the thousand, forks and execs, ends of every kind, a pyspyd
that is killed while it holds threads.

CHURN_ROUNDS   dumps of a target whose threads come and go (default 30)"""

import os
import re
import signal
import subprocess
import tempfile
import time

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
ATTACH_CPU_S = 1  # what a program uses while it is found, attached to and sampled


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

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def wait_used(pid, seconds):
    """Until it has used so much more CPU: what else is to be done at that time gets some, too."""
    until = live.cpu_seconds(pid) + seconds
    return live.wait_until(lambda: live.cpu_seconds(pid) >= until)


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
        checks.that(live.wait_until(lambda: live.state_of(target.pid) in ("S", "R")), name + ": the target does not run on")


def many_asleep(checks, name, command, folder):
    """Threads that sleep are counted unread: the sum is ticks times threads all the same. For how long it is recorded
    is known from the main thread, which sleeps, and roughly from the clock."""
    hz, seconds = 500, 2
    with live.Target(command, MANY) as target:
        target.ready_and_resting(busy=1)
        begun = time.monotonic()
        with Recording(folder, "-d", "%ds" % seconds, "-r", hz, "--pid", target.pid) as recording:
            status, stacks, err = recording.end()
        took = time.monotonic() - begun
        if not checks.that(status == 0 and stacks, "%s: record of many: %s %r" % (name, status, err)):
            return
    by = {f: sum(n for s, n in stacks.items() if any(x.startswith(f + " (") for x in s)) for f in ("asleep", "spin")}
    ticks = sum(stacks.values()) - by["asleep"] - by["spin"]
    missed = int(re.search(r"(\d+) missed", err).group(1))
    what = "%s: %d ticks of the main thread in %.1f s, %s: %s" % (name, ticks, took, by, err)
    checks.that(0.8 * hz * seconds <= ticks <= hz * took + 2, what)
    checks.that(abs(by["asleep"] - 300 * ticks) <= 0.01 * 300 * ticks + 300, what)
    # Chance has its part in how often a thread is met that shares its CPU with others: at worst each tick by half.
    chance = 0.02 * ticks + 5.5 * (ticks * 0.25) ** 0.5
    checks.that(ticks - chance - missed <= by["spin"] <= ticks + chance, what)


def family(checks, name, command, folder):
    with live.Target(command, FAMILY) as target:
        target.ready_and_reading()
        with Recording(folder, "-d", "100s", "--children", "--pid", target.pid) as recording:
            recording.wait_attached(target.pid)
            target.say()
            children = [int(n) for n in target.line().split()]
            for child in children[:2]:
                wait_used(child, ATTACH_CPU_S)
            status, stacks, err = recording.interrupt()
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
            with Recording(folder, "-d", "100s", "--pid", target.pid, *children) as recording:
                recording.wait_attached(target.pid)
                target.say()
                checks.that(target.line() == "again", name + ": no exec")
                wait_used(target.pid, ATTACH_CPU_S)
                status, stacks, err = recording.interrupt()
            checks.that(status == 0 and {"after"} <= leaves(stacks), "%s exec %s: %s, %s, %r" % (
                name, children, status, leaves(stacks), err))


def killed(checks, name, command, folder):
    with live.Target(command, SPIN) as target:
        target.ready()
        with Recording(folder, "-d", "60s", "-r", "1000", "--pid", target.pid) as recording:
            recording.wait_attached(target.pid)
            wait_used(target.pid, 0.5)  # there is something to collect
            target.process.kill()
            status, stacks, err = recording.end()
        checks.that(status == GONE, "%s killed: exit %s, %r" % (name, status, err))
        checks.that(stacks and "spin" in leaves(stacks), "%s killed: what was collected is not written" % name)


def ends_by_itself(checks, name, command, folder):
    with live.Target(command, SPIN) as target:
        target.ready()
        with Recording(folder, "--pid", target.pid) as recording:
            recording.wait_attached(target.pid)
            wait_used(target.pid, 0.5)
            target.say()
            target.process.wait()
            status, stacks, err = recording.end()
        checks.that(status == 0 and stacks, "%s ended: exit %s, %r" % (name, status, err))


def command_of_its_own(checks, name, command, folder):
    program = "import time\ndef work():\n while time.process_time() < %d: pass\nwork()" % ATTACH_CPU_S
    with Recording(folder, "-r", "500", "--", *command, "-c", program) as recording:
        status, stacks, err = recording.end()
    checks.that(status == 0 and "work" in leaves(stacks), "%s -- CMD: exit %s, %s, %r" % (name, status, leaves(stacks), err))
    with Recording(folder, "-d", "2s", "--", *command, "-c", "while True: pass") as recording:
        status, stacks, err = recording.end()
    checks.that(status == 0 and stacks, "%s -- CMD -d: exit %s, %r" % (name, status, err))
    with Recording(folder, "--", *command, "-c", "raise SystemExit(3)") as recording:
        status, stacks, err = recording.end()
    checks.that(status is not None and status in (0, 3, 5), "%s -- CMD that ends at once: exit %s, %r" % (name, status, err))


def runs_on(checks, where, target):
    """Its threads do not stay stopped, and its counter goes up."""
    ok = live.wait_until(lambda: not {state for state, _ in live.threads_of(target.pid).values()} & set("tT"))
    checks.that(ok, "%s: %s" % (where, live.threads_of(target.pid)))
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
                # The kernel lets go when the tracer is gone.
                checks.that(live.wait_until(lambda: not traced(target.pid)), name + ": traced by nobody")
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
