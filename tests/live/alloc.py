# SPDX-License-Identifier: MIT
"""Samples of allocations (record --mode alloc): bytes by line against what the program has taken there, as its own
interpreter counts it; that no probe stays behind, whatever ends the recording; that it looks for a part of the
time where it costs too much; who else pays; and what it says where it is not permitted."""

import ctypes
import json
import math
import os
import re
import signal
import subprocess
import tempfile
import time

import live

EVERY = 16 << 10
TEXT = open(os.path.join(live.HERE, "alloc_target.py")).read()
TIMES = 6
SIGMAS = 5.5  # of a check, less than one in ten millions is beyond by chance
PAGE = 4096
PPOLL = ("73",) if os.uname().machine == "aarch64" else ("271",)
PR_SET_CHILD_SUBREAPER = 36
WINDOWS_CPU_S = 5
KILLS = 24
LEAF = re.compile(r"(?:.*;)?(\S+) \(<string>:\d+\) (\d+)$")
BUSY = r'''
import json, select, sys

def often(n):
    for _ in range(300): x = bytearray(1000)

def seldom(n):
    for _ in range(100): x = bytearray(1000)

print("ready", flush=True)
sys.stdin.readline()
rounds = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    often(0); seldom(0)
    rounds += 1
one = sys.getsizeof(bytearray(1000))
print(json.dumps({"often": 300 * rounds * one, "seldom": 100 * rounds * one}), flush=True)
sys.stdin.readline()
'''
CAPS = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]


def patched(pid):
    """Addresses at which code of the process is not what its file has, and what the file has: probes."""
    found = []
    with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "rb", 0) as mem:
        for line in maps:
            words = line.split(None, 5)
            if len(words) < 6 or "x" not in words[1] or not words[5].startswith("/"):
                continue
            start, end = (int(n, 16) for n in words[0].split("-"))
            mem.seek(start)
            now = mem.read(end - start)
            with open("/proc/%d/map_files/%x-%x" % (pid, start, end), "rb") as f:
                f.seek(int(words[2], 16))
                then = f.read(len(now))
            for page in range(0, len(then), PAGE):
                if now[page:page + PAGE] != then[page:page + PAGE]:
                    found += [(start + i, then[i]) for i in range(page, min(page + PAGE, len(then))) if now[i] != then[i]]
    return found


def code_differs(pid):
    return bool(patched(pid))


def waits_for_samples(recording):
    """Its main thread: all probes are there by then."""
    try:
        with open("/proc/%d/syscall" % recording.process.pid) as f:
            return f.read().split()[0] in PPOLL
    except OSError:
        return False


def all_probes(pid):
    """Those of a recording that has all of them for two seconds."""
    found = []
    with Recording(pid, "-d", "2s") as recording:
        while recording.process.poll() is None:
            now = patched(pid)
            found = now if len(now) > len(found) else found
        recording.end(None)
    return found


def wait_for(condition, seconds=live.READY_S):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        os.sched_yield()
    return False


def wait_for_orphans(*known):
    """What pyspyd started is ours when it has been killed, and ends then."""
    with open("/proc/thread-self/children") as f:
        pids = [int(pid) for pid in f.read().split()]
    for pid in pids:
        if pid not in known:
            os.waitpid(pid, 0)


class Recording:
    def __init__(self, pid, *args, prefix=()):
        self.file = tempfile.mktemp(suffix=".collapsed")
        self.process = subprocess.Popen(
            list(prefix) + [live.PYSPYD, "record", "--mode", "alloc", "-p", str(pid), "-o", self.file if not prefix else "-",
                            "-f", "collapsed"] + [str(a) for a in args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        self.said = ""

    def end(self, how=signal.SIGINT):
        if how:
            self.process.send_signal(how)
        out, err = self.process.communicate(timeout=live.COMMAND_S)
        self.said = err.decode()
        text = out.decode()
        if os.path.exists(self.file):
            with open(self.file) as f:
                text = f.read()
            os.unlink(self.file)
        return text

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def record(command, *args, prefix=()):
    """Return: (bytes by function that were sampled, bytes by function that were taken, what was said), or a reason."""
    with live.Target(command, TEXT) as target:
        target.ready_and_reading()
        with Recording(target.pid, "--every", EVERY, "--max-slowdown", 0, *args, prefix=prefix) as recording:
            if not wait_for(lambda: recording.process.poll() is not None or
                            (code_differs(target.pid) and waits_for_samples(recording))):
                return None, None, "no probe came"
            if recording.process.poll() is not None:
                recording.end(None)
                return None, None, recording.said
            target.say("\n" * TIMES)
            for _ in range(TIMES):
                if target.line() != "worked":
                    return None, None, "the target does not work"
            profile = recording.end()
            said = recording.said
        if not wait_for(lambda: not code_differs(target.pid)):  # others may have probes in this file just now
            return None, None, "a probe is left"
        target.process.stdin.close()
        taken = json.loads(target.line())
        target.process.stdin = open(os.devnull, "w")
    sampled = {}
    for line in profile.splitlines():
        match = LEAF.match(line)
        if match and "x = " in TEXT.splitlines()[int(re.search(r":(\d+)\) \d+$", line).group(1)) - 1]:
            sampled[match.group(1)] = sampled.get(match.group(1), 0) + int(match.group(2))
    return sampled, taken, said


def errors(sampled, taken):
    """What is beyond so many standard errors. Headers and small neighbours of what is counted are below a percent."""
    wrong = []
    for name, size in taken.items():
        off = abs(sampled.get(name, 0) - size)
        if off > SIGMAS * EVERY * math.sqrt(size / EVERY) + size / 100:
            wrong.append("%s: %d of %d" % (name, sampled.get(name, 0), size))
    return wrong


def shares(checks, name, command, *args, prefix=()):
    where = " ".join((name,) + args)
    sampled, taken, said = record(command, *args, prefix=prefix)
    if sampled is None:
        checks.that(False, "%s: %s" % (where, said))
        return
    wrong = errors(sampled, taken)
    checks.that(not wrong, "%s: %s" % (where, wrong))
    checks.that("slowdown" in said and " 0 lost" in said, "%s: %s" % (where, said))
    live.note("%s: %s" % (where, " | ".join(line.replace("pyspyd: ", "") for line in said.splitlines()[:2])))


def killed(checks, command):
    with live.Target(command, TEXT) as target:
        target.ready_and_reading()
        with Recording(target.pid) as recording:
            checks.that(wait_for(lambda: code_differs(target.pid)), "SIGKILL: no probe came")
            recording.end(signal.SIGKILL)
        wait_for_orphans(target.pid)
        checks.that(wait_for(lambda: not code_differs(target.pid)), "SIGKILL: a probe is left")
        target.say()
        checks.that(target.line() == "worked", "SIGKILL: the target does not work any more")


def killed_meanwhile(checks, command):
    """SIGKILL for its group while probes come or go, as soon as that one among them does: where it ends in the middle,
    all go."""
    with live.Target(command, TEXT) as target, open("/proc/%d/mem" % target.pid, "rb", 0) as mem:
        target.ready_and_reading()
        places = all_probes(target.pid)
        if not checks.that(len(places) > 1, "killed: %d probes" % len(places)):
            return
        meanwhile = 0
        for i in range(KILLS):
            coming = i % 3 != 2
            nth = len(places) * i // KILLS
            at, was = places[nth]

            def has_probe():
                return os.pread(mem.fileno(), 1, at)[0] != was

            with Recording(target.pid) as recording:
                seen = wait_for(has_probe)
                if not coming:
                    recording.process.send_signal(signal.SIGINT)
                    seen = seen and wait_for(lambda: not has_probe())
                os.killpg(recording.process.pid, signal.SIGKILL)
                meanwhile += 0 < len(patched(target.pid)) < len(places)
                recording.end(None)
            wait_for_orphans(target.pid)
            where = "SIGKILL while probes %s, at %d of %d" % ("come" if coming else "go", nth, len(places))
            checks.that(seen, where + ": not seen")
            if not checks.that(wait_for(lambda: not code_differs(target.pid)),
                               "%s: %d are left" % (where, len(patched(target.pid)))):
                return
        target.say()
        checks.that(target.line() == "worked", "killed: the target does not work any more")
        live.note("killed %d times, %d of them seen half way" % (KILLS, meanwhile))


def windows(checks, command):
    """Of a program that does little but allocate, only a part of the time is looked at, up to its end; what was seen
    there stands for all of it: each place's share, and how much there was, or that this is not known where nearly all of the
    time that is looked at goes to the probes."""
    with live.Target(command, BUSY) as target:
        target.ready_and_reading()
        with Recording(target.pid, "--max-slowdown", 5, "--every", "32K") as recording:
            checks.that(wait_for(lambda: code_differs(target.pid) and waits_for_samples(recording)),
                        "windows: no probe came")
            target.say()
            # Of its own time, which is what the parts are chosen by: others may take most of the machine's.
            wait_for(lambda: recording.process.poll() is not None or live.cpu_seconds(target.pid) > WINDOWS_CPU_S)
            checks.that(recording.process.poll() is None, "windows: it ended early")
            profile = recording.end()
            said = recording.said
        checks.that(wait_for(lambda: not code_differs(target.pid)), "windows: a probe is left")
        target.say()
        taken = json.loads(target.line())
    seen = {"often": 0, "seldom": 0}
    for line in profile.splitlines():
        match = LEAF.match(line)
        if match and match.group(1) in seen:
            seen[match.group(1)] += int(match.group(2))
    parts = re.search(r"looked at ([0-9.e-]+) % of its time, in (\d+) parts", said)
    cost = re.search(r"slowdown of ([0-9.]+) %", said)
    checks.that(recording.process.returncode == 0, "windows: exit %d: %s" % (recording.process.returncode, said))
    if not checks.that(parts and cost and taken["often"] and all(seen.values()), "windows: %s, %s" % (seen, said)):
        return
    truth = taken["often"] / (taken["often"] + taken["seldom"])
    share = seen["often"] / sum(seen.values())
    samples = int(re.search(r"(\d+) samples", said).group(1))
    checks.that(int(parts.group(2)) > 1 and float(parts.group(1)) < 50, "windows: %s" % said)
    checks.that(float(cost.group(1)) < 10, "windows: %s" % said)
    error = SIGMAS * math.sqrt(truth * (1 - truth) / samples) + 0.03  # samples of one window lie close to each other
    checks.that(abs(share - truth) < error, "windows: a share of %.3f and not %.3f, %d samples" % (share, truth, samples))
    total = sum(seen.values()) / sum(taken.values())
    checks.that("rough guess" in said or 0.5 < total < 2, "windows: %s of %s: %s" % (seen, taken, said))
    live.note("windows: a share of %.3f of %.3f, %.2f of all, %s %% of the time in %s parts, slowdown %s %%" % (
        share, truth, total, parts.group(1), parts.group(2), cost.group(1)))


def others(checks, command):
    """A process of the same file has no probes, where the kernel can tell them apart."""
    with live.Target(command, TEXT) as target, live.Target(command, TEXT) as other:
        target.ready_and_reading()
        other.ready_and_reading()
        with Recording(target.pid) as recording:
            checks.that(wait_for(lambda: code_differs(target.pid)), "others: no probe came")
            checks.that(wait_for(lambda: not code_differs(other.pid)), "others: one that is not recorded has a probe")
            recording.end()


def old_probes(checks, command):
    """As kernels before 6.6 have them: in all processes of the file, of which one is sampled."""
    with live.Target(command, TEXT) as target, live.Target(command, TEXT) as other:
        target.ready_and_reading()
        other.ready_and_reading()
        with live.Target([os.path.join(live.BUILD, "tests/live/alloc_driver"), str(target.pid)]) as driver:
            said = driver.line()
            if said != "attached":
                live.note("old probes: not tried: " + said)
                return
            for process in (target, other):
                process.say()
                checks.that(process.line() == "worked", "old probes: a target does not work")
            driver.process.stdin.close()
            counts = json.loads(driver.line())
            driver.process.stdin = open(os.devnull, "w")
        off = abs(counts["weight"] - counts["bytes"])
        checks.that(counts["lost"] == 0 and counts["bytes"] > 1 << 20, "old probes: %s" % counts)
        checks.that(off < SIGMAS * counts["every"] * math.sqrt(counts["bytes"] / counts["every"]), "old probes: %s" % counts)
        checks.that(counts["others"] > 1000, "old probes: others have none: %s" % counts)
        checks.that(wait_for(lambda: not code_differs(target.pid) and not code_differs(other.pid)),
                    "old probes: one is left")


def forbidden(checks, command):
    with live.Target(command, TEXT, user=65534, group=65534, extra_groups=[]) as target:
        target.ready_and_reading()
        with Recording(target.pid, prefix=CAPS) as recording:
            recording.end(None)
        checks.that(recording.process.returncode == 4 and "CAP_" in recording.said,
                    "without privileges: exit %d: %s" % (recording.process.returncode, recording.said))


def unprivileged(checks, name, command):
    caps = "-all,+bpf,+perfmon,+sys_ptrace"
    shares(checks, name, command, prefix=CAPS + ["--inh-caps=" + caps, "--ambient-caps=" + caps])


def main():
    if os.geteuid() != 0:
        live.skip("probes in allocators need root here")
    status, _, err = live.pyspyd("record", "--mode", "alloc", "-p", os.getpid(), "-d", "100ms", "-o", "/dev/null",
                                 "-f", "collapsed")
    if status in (4, 5):
        live.skip("allocations cannot be sampled here: " + err.strip())
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    found = live.interpreters()
    checks = live.Checks()
    for name, _, command in found:
        shares(checks, name, command)
    plain = [(name, command) for name, _, command in found if command[0] != "chroot"]
    if plain:
        name, command = plain[0]
        shares(checks, name, command, "--native")
        killed(checks, command)
        killed_meanwhile(checks, command)
        windows(checks, command)
        others(checks, command)
    few = [command for _, command in plain if not command[0].startswith("/usr/")]  # probes; others may run these too
    for command in few[:1]:
        old_probes(checks, command)
    for name, command in [p for p in plain if p[1][0].startswith("/usr/")][:1]:  # that anybody may read
        forbidden(checks, command)
        unprivileged(checks, name, command)
    checks.end()


if __name__ == "__main__":
    main()
