# SPDX-License-Identifier: MIT
"""Time off CPU, against the program's own account of what its threads slept where: time that passed, less what they were
on a CPU. Of the time in which they waited for one we count what comes after a sleep, and the program knows the sum only.
Sleeps that began before the recording and go on after it, short ones that are only summed, waits for the GIL; few
privileges, and none."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile

import live

INTERPRETERS = "3.8.* 3.11.*-system 3.14.*-sid"
NEAR = 0.02  # of what the program says
TARGET = r"""
import json, os, sys, threading, time

def queued():
    try:
        with open("/proc/thread-self/schedstat") as f:
            return int(f.read().split()[1]) / 1e9
    except OSError:
        return 0

def account(sums, name, call, *args):
    waited, began, ran = queued(), time.monotonic(), time.thread_time()
    call(*args)
    most = time.monotonic() - began - (time.thread_time() - ran)
    least = most - (queued() - waited)
    before = sums.get(name, (0, 0))
    sums[name] = before[0] + least, before[1] + most

def nap(): time.sleep(0.02)
def rest(): time.sleep(0.05)
def blink(): time.sleep(0.0003)
def receive(fd): os.read(fd, 1)
def idle(event): event.wait()

def sleeper(sums):
    for _ in range(20):
        account(sums, "nap", nap)
        account(sums, "rest", rest)

def blinker(sums):
    for _ in range(1500):
        account(sums, "blink", blink)

def receiver(sums, fd):
    for _ in range(40):
        account(sums, "receive", receive, fd)

def sender(sums, fd):
    for _ in range(40):
        time.sleep(0.025)
        os.write(fd, b"x")

def spin():
    end = time.monotonic() + 0.5
    while time.monotonic() < end: pass

def work():
    sums = {}
    busy = queued() + time.thread_time()
    r, w = os.pipe()
    threads = [threading.Thread(target=f, args=args) for f, *args in (
        (sleeper, sums), (blinker, sums), (receiver, sums, r), (sender, sums, w))]
    began = time.monotonic()
    for t in threads: t.start()
    for t in threads: t.join()
    sums["join"] = time.monotonic() - began
    sums["busy"] = queued() + time.thread_time() - busy
    return sums

never = threading.Event()
threading.Thread(target=idle, args=(never,), daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    if line == "work\n":
        print(json.dumps(work()), flush=True)
    else:
        spinners = [threading.Thread(target=spin) for _ in range(2)]
        for t in spinners: t.start()
        for t in spinners: t.join()
        print("spun", flush=True)
"""


def start_record(pid, path, *args, **options):
    """Runs it until its programs are attached and all that it has still to do is to wait. Return: the process."""
    record = subprocess.Popen(list(options.get("prefix", ())) + [
        live.PYSPYD, "record", "--mode", "offcpu", "--pid", str(pid), "-f", "collapsed", "-o", path] + list(args),
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while record.poll() is None:
        try:
            if attached(record.pid) and all(state(record.pid, tid) == "S" for tid in tasks(record.pid)):
                break
        except FileNotFoundError:
            pass
        os.sched_yield()
    return record


def tasks(pid):
    return os.listdir("/proc/%d/task" % pid)


def state(pid, tid):
    with open("/proc/%d/task/%s/stat" % (pid, tid)) as f:
        return f.read().rsplit(")", 1)[1].split()[0]


def attached(pid):
    """Whether a process holds links of eBPF programs, and has its samplers."""
    folder = "/proc/%d/fd" % pid
    return len(tasks(pid)) > 1 and any(os.readlink(os.path.join(folder, fd)) == "anon_inode:bpf_link"
                                       for fd in os.listdir(folder))


def until_it_reads(pid):
    """Waits for its main thread to sleep in read(0, …)."""
    def reads():
        with open("/proc/%d/syscall" % pid) as f:
            return f.read().split()[:2] == ["0", "0x0"]
    live.wait_until(reads)


def end_record(record, path):
    """As wait_record."""
    record.send_signal(signal.SIGINT)
    return wait_record(record, path)


def wait_record(record, path):
    """Return: exit status, stderr, {stack: seconds}."""
    said = record.communicate(timeout=live.COMMAND_S)[1].decode()
    stacks = {}
    if os.path.exists(path):
        with open(path) as f:
            for line in f:
                stack, us = line.rsplit(" ", 1)
                stacks[stack] = stacks.get(stack, 0) + int(us) / 1e6
    return record.returncode, said, stacks


def seconds(stacks, *parts):
    """Of the stacks in which each of these functions (or leaves) is."""
    return sum(s for stack, s in stacks.items()
               if all(re.search(r"(^|;)%s( \(|;|$)" % re.escape(part), stack) for part in parts))


def near(told, slept, awake):
    """Whether that is the time of somebody who was awake for a part of it, known only in its bounds."""
    return slept * (1 - NEAR) - awake <= told <= slept * (1 + NEAR)


def check_sleeps(checks, name, target, folder):
    path = os.path.join(folder, "sleeps")
    record = start_record(target.pid, path)
    before = live.stolen()
    target.say("work\n")
    own = json.loads(target.line() or "{}")
    until_it_reads(target.pid)
    lost = live.stolen() - before  # in no account of a thread: who has a CPU seems to sleep
    own_join, awake = own.pop("join", 0), own.pop("busy", 0) + lost
    status, said, stacks = end_record(record, path)
    live.note("%s: %s | %s | stolen %.2f s" % (
        name, said.strip().split("\n")[0],
        ", ".join("%s %.3f of %.3f to %.3f s" % (k, seconds(stacks, k), *v) for k, v in own.items()), lost))
    checks.that(status == 0, "%s: exit %s: %s" % (name, status, said))
    checks.that(" 0 lost, 0 unreadable" in said, "%s: %s" % (name, said))
    # Each blink has two clocks around it whose cost is near that of what is measured.
    for function, part in (("nap", NEAR), ("rest", NEAR), ("receive", NEAR), ("blink", 0.1)):
        told, (least, most) = seconds(stacks, function), own.get(function, (9, 9))
        checks.that(least * (1 - part) - lost <= told <= most * (1 + part),
                    "%s: %s slept %.4f to %.4f s, told %.4f, stolen %.2f" % (name, function, least, most, told, lost))
    return own_join, awake, stacks


def check_ends(checks, name, own_join, awake, stacks):
    """Who slept from before the beginning until after the end, and who did for a part of it. `awake`: the main thread
    was on a CPU, or waited for one."""
    idle = seconds(stacks, "idle")
    main = seconds(stacks, "<module>")
    checks.that(idle > own_join > 0, "%s: the idle thread slept %.3f s of %.3f" % (name, idle, own_join))
    checks.that(near(main, idle, awake), "%s: the main thread slept %.3f s, the idle one %.3f" % (name, main, idle))
    checks.that(near(seconds(stacks, "work"), own_join, awake), "%s: joins took %.3f s of %.3f" % (
        name, seconds(stacks, "work"), own_join))
    checks.that(seconds(stacks, "<module>", "[read]") > 0, "%s: nobody in [read]: %s" % (name, sorted(stacks)[:3]))
    checks.that(not seconds(stacks, "[stack not known]"), "%s: stacks that are not known" % name)


def check_gil(checks, name, target, folder):
    path = os.path.join(folder, "gil")
    record = start_record(target.pid, path)
    target.say("spin\n")
    target.line()
    _, said, stacks = end_record(record, path)
    waits = seconds(stacks, "spin", "[gil]")
    checks.that(waits > 0.2, "%s: waits for the GIL: %.3f s: %s" % (name, waits, said))
    checks.that(waits > 0.9 * seconds(stacks, "spin"), "%s: spin slept %.3f s, %.3f of it for the GIL" % (
        name, seconds(stacks, "spin"), waits))


def check_kernel(checks, target, folder):
    path = os.path.join(folder, "kernel")
    record = start_record(target.pid, path, "--kernel")
    status, said, stacks = end_record(record, path)
    with open("/proc/kallsyms") as f:
        hidden = f.read(16) == "0" * 16
    checks.that(status == 0, "--kernel: exit %s: %s" % (status, said))
    if hidden:
        live.note("the kernel hides its addresses")
    else:
        checks.that(any("read" in stack.rsplit("<module>", 1)[-1] and "[read]" not in stack for stack in stacks),
                    "no functions of the kernel: %s" % sorted(stacks))


def check_privileges(checks, target, folder):
    if not shutil.which("setpriv"):
        live.note("no setpriv here")
        return
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    few = ",".join("+" + c for c in ("bpf", "perfmon", "sys_ptrace"))
    open_folder = tempfile.mkdtemp(prefix="offcpu-", dir="/tmp")
    os.chmod(open_folder, 0o777)
    try:
        path = os.path.join(open_folder, "few")
        record = start_record(target.pid, path, "-d", "1", prefix=nobody + ["--inh-caps", few, "--ambient-caps", few])
        status, said, stacks = wait_record(record, path)
        checks.that(status == 0 and stacks, "with three capabilities: exit %s: %s" % (status, said))
        record = start_record(target.pid, os.path.join(open_folder, "none"), "-d", "1",
                              prefix=nobody + ["--inh-caps=-all", "--ambient-caps=-all"])
        said = record.communicate(timeout=live.COMMAND_S)[1].decode()
        checks.that(record.returncode == 4 and "not permitted" in said, "with none: exit %s: %s" % (
            record.returncode, said))
    finally:
        shutil.rmtree(open_folder)


def check_refused(checks, pid, folder):
    status, _, said = live.pyspyd("record", "--mode", "offcpu", "--source", "vm", "--pid", pid, "-o", folder + "/x.svg")
    checks.that(status == 5 and "eBPF" in said, "--source vm: exit %d: %s" % (status, said))
    for args in (["--threshold", "1s"], ["--kernel"]):
        status, _, said = live.pyspyd("record", "--pid", pid, "-o", folder + "/x.svg", *args)
        checks.that(status == 2 and "offcpu" in said, "%s: exit %d: %s" % (args, status, said))


def main():
    if os.geteuid():
        live.skip("needs root: loads eBPF programs")
    checks = live.Checks()
    with tempfile.TemporaryDirectory(prefix="offcpu-") as folder:
        for name, _, command in live.interpreters(INTERPRETERS):
            with live.Target(command, TARGET) as target:
                target.ready_and_reading()
                own_join, awake, stacks = check_sleeps(checks, name, target, folder)
                check_ends(checks, name, own_join, awake, stacks)
                check_gil(checks, name, target, folder)
        # One that a user without privileges may read, too.
        system = [command for name, _, command in live.interpreters(INTERPRETERS) if name.endswith("-system")]
        if not system:
            live.skip("the system's interpreter was not asked for")
        with live.Target(system[0], TARGET) as target:
            target.ready_and_reading()
            check_kernel(checks, target, folder)
            check_privileges(checks, target, folder)
            check_refused(checks, target.pid, folder)
    checks.end()


main()
