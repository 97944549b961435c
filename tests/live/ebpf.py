# SPDX-License-Identifier: MIT
"""The eBPF source where it is hard: namespaces, forks and execs, many threads, many processes, a ring that is too small,
other programs at work meanwhile, and few privileges.

EBPF_PARTS   only these functions"""

import json
import os
import shutil
import signal
import subprocess
import tempfile

import live
import profiles
import sampled

PYTHON = "3.11.2-system"
SPIN = """
import sys
def leaf(n):
    return n * 3 % 7
def spin():
    n = 1
    print("ready", flush=True)
    while True:
        n = leaf(n) + 1
spin()
"""
THREADS = """
import sys, threading, os
threading.stack_size(65536)
never, _ = os.pipe()
ready = threading.Semaphore(0)
def asleep():
    ready.release()
    os.read(never, 1)
def spin():
    while True: pass
started = 0
for _ in range(MANY):
    threading.Thread(target=asleep, daemon=True).start()
    ready.acquire()
threading.Thread(target=spin, daemon=True, name="spinner").start()
print("ready", flush=True)
sys.stdin.readline()
"""
PROCESSES = """
import os, sys, time
r, w = os.pipe()
children = []
def spin_brief():
    sum(i for i in range(2000))
for i in range(MANY):
    pid = os.fork()
    if not pid:
        os.close(0)
        os.write(w, b"x")
        while True:
            if i % 100 == 0: spin_brief()
            else: time.sleep(0.5)
    children.append(pid)
got = 0
while got < MANY: got += len(os.read(r, 4096))
print(" ".join(map(str, children)), flush=True)
sys.stdin.readline()
for pid in children: os.kill(pid, 9)
"""
CHANGES = """
import os, sys
def before():
    print("ready", flush=True)
    sys.stdin.readline()
    pid = os.fork()
    if not pid:
        def child():
            while True: pass
        child()
    print(pid, flush=True)
    sys.stdin.readline()
    os.execv(sys.executable, [sys.executable, "-c", "print('again', flush=True)\\ndef after():\\n while True: pass\\nafter()"])
before()
"""
CALLS = "import os\nprint('ready', flush=True)\nwhile True: os.getppid(); os.stat('/')"
LATE = r'''
import sys, threading, os, time
try:
    import _interpreters as i
    ex = getattr(i, "exec")
except ImportError:
    import _xxsubinterpreters as i
    ex = i.run_string
created = {}
def run(n):
    begun = time.thread_time()
    interpreter = i.create()
    created[n] = time.thread_time() - begun
    ex(interpreter, """
import os
def sub_%d():
    x = 0
    while True: x = x * 3 + 1 & 0xffff
sub_%d()
""" % (n, n))
print("ready", flush=True)
sys.stdin.readline()
for n in range(6):
    threading.Thread(target=run, args=(n,), name="late%d" % n, daemon=True).start()
while len(created) < 6: time.sleep(0.01)
print(sum(created.values()), flush=True)
sys.stdin.readline()
os._exit(0)
'''
PRIVILEGES = ["cap_bpf", "cap_perfmon", "cap_sys_ptrace"]


def counts(hz, seconds, ring, take, *pids, prefix=()):
    done = subprocess.run(list(prefix) + [sampled.DRIVER, "counts", str(hz), str(seconds), str(ring), take] + [str(p) for p in pids],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
    return json.loads(done.stdout.decode()) if done.returncode == 0 else {}


def record(folder, *args, **options):
    """Return: exit status, stacks, stderr."""
    path = os.path.join(folder, "out.collapsed")
    status, _, err = live.pyspyd("record", "-o", path, *args, **options)
    stacks = {}
    if os.path.exists(path):
        with open(path, "rb") as f:
            stacks = profiles.collapsed(f.read())
        os.unlink(path)
    return status, stacks, err


def functions_in(stacks):
    return {frame.split(" (")[0].rsplit(".", 1)[-1] for stack in stacks for frame in stack}


def whole(stacks):
    """Of SPIN: each is one that can be."""
    can = (["<module>", "spin"], ["<module>", "spin", "leaf"])
    return stacks and all([frame.split(" (")[0] for frame in stack] in can for stack in stacks)


def small_ring(checks, command, _folder):
    """What the interrupts were is what came and what each cause took."""
    with live.Target(command, SPIN) as target:
        target.ready()
        for ring, take in ((4096, "leave"), (4096, "take"), (65536, "leave"), (0, "take")):
            said = counts(4999, 0.7, ring, take, target.pid)
            if not checks.that(said, "counts with a ring of %d" % ring):
                continue
            where = "ring of %d, %s: %s" % (ring, take, said)
            checks.that(said["target"] == said["samples"] + said["no_state"] + said["ring_full"], where)
            checks.that(said["events"] == said["samples"] and said["without_code"] == 0, where)
            # They begin on each CPU in turn, and are expected from when they come on all.
            early = 4999 * os.cpu_count() * said["load_ms"] / 1000
            checks.that(said["ticks"] <= said["expected"] * 1.02 + 20 + early, where)
            fills = take == "leave" and said["target"] * 100 > ring  # a sample is longer than that
            checks.that(said["target"] > 0 and (said["ring_full"] > 0 or not fills), where)
            checks.that(ring or not said["ring_full"], where)
            live.note("ring of %d, %s: %s" % (ring, take, " ".join("%s %s" % item for item in sorted(said.items()))))


def many_threads(checks, command, _folder):
    with live.Target(command, THREADS.replace("MANY", "5000")) as target:
        target.ready()
        for mode in ("cpu", "wall"):
            said, message = sampled.sample("bpf", mode, target.pid, hz=200, seconds=2)
            if not checks.that(said, "5,000 threads: " + message):
                continue
            by = sampled.totals(said)
            accuracy = said["accuracy"]
            spun = by.get("spinner", 0)
            checks.that(spun > 10, "5,000 threads, %s: %d samples of the one that runs: %s" % (mode, spun, accuracy))
            checks.that(accuracy["unknown"] <= 0.1 * spun + 2, "5,000 threads: %s" % accuracy)
            live.note("5,000 threads, %s: %d samples of the one that runs, %.2f s of CPU in 2 s; %s" % (
                mode, spun, said["cpu_s"], accuracy))


def many_processes(checks, command, _folder):
    with live.Target(command, PROCESSES.replace("MANY", "500")) as target:
        children = [int(n) for n in target.ready().split()]
        said, message = sampled.sample("bpf", "cpu", *children, hz=199, seconds=3)
        target.say()
        target.process.wait()
    if not checks.that(said, "500 processes: " + message):
        return
    running = {}
    for stack in said["stacks"]:
        if any(function == "spin_brief" for function, _, _ in stack["frames"]):
            running[stack["pid"]] = running.get(stack["pid"], 0) + stack["count"]
    spinning = set(children[::100])
    checks.that(set(running) == spinning, "500 processes: those that run are %s, not %s" % (sorted(running), sorted(spinning)))
    live.note("500 processes: %.2f s of CPU in 3 s; %s" % (said["cpu_s"], said["accuracy"]))


def changes(checks, command, folder):
    """A child is followed, and what a process was before it executed another program is forgotten."""
    path = os.path.join(folder, "changes.collapsed")
    with live.Target(command, CHANGES) as target:
        target.ready()
        with subprocess.Popen([live.PYSPYD, "record", "--source", "bpf", "--children", "-d", "100s", "-r", "200", "--pid",
                               str(target.pid), "-o", path], stderr=subprocess.PIPE) as recording:
            live.wait_attached(recording, target.pid)
            target.say()
            child = int(target.line())
            target.say()
            checks.that(target.line() == "again", "no exec")
            for pid in (child, target.pid):  # meanwhile they are found and sampled
                until = live.cpu_seconds(pid) + 3
                live.wait_until(lambda: recording.poll() is not None or live.cpu_seconds(pid) >= until)
            recording.send_signal(signal.SIGINT)
            err = recording.stderr.read().decode()
        os.kill(child, 9)
    if not checks.that(os.path.exists(path), "fork and exec: no profile: " + err):
        return
    with open(path, "rb") as f:
        found = functions_in(profiles.collapsed(f.read()))
    checks.that({"child", "after"} <= found, "fork and exec: %s, %s" % (sorted(found), err))


def pid_namespaces(checks, command, folder):
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run(inside + ["true"], stderr=subprocess.DEVNULL).returncode:
        live.note("no PID namespaces here")
        return
    with live.Target(inside + command, SPIN) as target:
        target.ready()
        with open("/proc/%d/task/%d/children" % (target.pid, target.pid)) as f:
            pid = int(f.read().split()[0])
        status, stacks, err = record(folder, "--source", "bpf", "-m", "cpu", "-d", "1s", "--pid", pid)
        checks.that(status == 0 and whole(stacks), "target in a PID namespace: %d, %s, %s" % (status, list(stacks)[:3], err))
    out = os.path.join(folder, "inside.collapsed")
    script = '"$@" >"$0.ready" & pid=$!; read -r _ <"$0.ready"; "%s" record --source bpf -m cpu -d 1s --pid $pid -o "$0"' % live.PYSPYD
    os.mkfifo(out + ".ready")
    done = subprocess.run(inside + ["sh", "-c", script, out] + command + ["-u", "-c", SPIN], stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, timeout=60)
    stacks = {}
    if os.path.exists(out):
        with open(out, "rb") as f:
            stacks = profiles.collapsed(f.read())
    checks.that(done.returncode == 0 and whole(stacks), "pyspyd in a PID namespace: %s, %s" % (
        list(stacks)[:3], done.stderr.decode()))


def few_privileges(checks, command, folder):
    if not shutil.which("setpriv"):
        live.note("no setpriv here")
        return
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    wanted = ",".join("+" + name[4:] for name in PRIVILEGES)
    granted = nobody + ["--inh-caps", "-all," + wanted, "--ambient-caps", "-all," + wanted]
    out = os.path.join(folder, "shared")
    os.mkdir(out)
    os.chmod(out, 0o777)
    os.chmod(folder, 0o755)
    with live.Target(command, SPIN) as target:
        target.ready()
        status, stacks, err = record(out, "--source", "bpf", "-m", "cpu", "-d", "1s", "--pid", target.pid, prefix=granted)
        checks.that(status == 0 and whole(stacks), "with three capabilities: %d, %s, %s" % (status, list(stacks)[:3], err))
        checks.that("source bpf" in err, "with three capabilities: %s" % err)
    with live.Target(nobody + command, SPIN) as target:
        target.ready()
        status, stacks, err = record(out, "--source", "bpf", "-d", "1s", "--pid", target.pid, prefix=nobody)
        checks.that(status == 4 and "CAP_BPF" in err and "CAP_PERFMON" in err and not stacks,
                    "without capabilities: %d, %s" % (status, err))
        status, stacks, err = record(out, "--source", "auto", "-d", "1s", "--pid", target.pid, prefix=nobody)
        checks.that(status == 0 and whole(stacks) and "source vm" in err, "auto without capabilities: %d, %s" % (status, err))


def late_interpreters(checks, _command, _folder):
    """Made when sampling has begun: what runs in them is theirs, not the call in the main one that waits for it."""
    for name, version, command in live.interpreters("3.12.1-pyenv 3.13.0-pyenv 3.14.10-sid 3.15.2-sid"):
        with live.Target(command, LATE) as target:
            target.ready()
            with subprocess.Popen([sampled.DRIVER, "stacks", "bpf", "cpu", "500", "5", str(target.pid)], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE) as driver:
                driver.stderr.readline()
                target.say()
                created = 500 * float(target.line())  # samples that were due there
                said = json.loads(driver.stdout.read().decode())
        right, outside = set(), 0
        for stack in said["stacks"]:
            leaf = stack["frames"][0][0] if stack["frames"] else ""
            if leaf.startswith("sub_"):
                checks.that(stack["interpreter"] and stack["name"] == "late" + leaf[4:], "%s: %s" % (name, stack))
                right.add(leaf)
            elif leaf == "run":
                outside += stack["count"]
        total = sum(stack["count"] for stack in said["stacks"])
        bound = created + 5 * created ** 0.5 + 0.1 * total
        checks.that(len(right) == 6 and outside < bound, "%s: %s, and %d of %d where they were called, %d of them due" % (
            name, sorted(right), outside, total, created))
        live.note("%s, interpreters that come later: %d of %d samples where they were called, %d of them due; %s" % (
            name, outside, total, created, said["accuracy"]))


def busy_kernel(checks, command, _folder):
    """Another program at every system call of a process that makes many: the interrupts that fall into it find no room
    for the sampler's, which must show."""
    nested = subprocess.Popen([sampled.DRIVER, "nested"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = nested.stdout.readline().decode().strip()
    if first != "ready":
        live.note("nothing to nest with: " + nested.stderr.read().decode().strip())
        nested.communicate()
        return
    with live.Target(command, CALLS) as target:
        target.ready()
        os.setpriority(os.PRIO_PROCESS, target.pid, -20)  # how much is lost depends on how much it runs
        said = counts(4999, 2, 0, "take", target.pid)
        nested.communicate(b"\n")
        alone = counts(4999, 2, 0, "take", target.pid)
    for what, one in (("nested", said), ("alone", alone)):
        live.note("%s: %d of %d interrupts seen, %d of them in the target" % (what, one["ticks"], one["expected"], one["target"]))
        checks.that(one["target"] == one["samples"] + one["no_state"] + one["ring_full"], "%s: %s" % (what, one))
    lost = 1 - said["ticks"] / said["expected"]
    checks.that(lost > 0.02, "interrupts that were swallowed do not show: %s" % said)


def main():
    sampled.usable_sources()
    checks = live.Checks()
    command = live.interpreters(PYTHON)[0][2]
    wanted = os.environ.get("EBPF_PARTS", "").split()
    for part in (small_ring, pid_namespaces, few_privileges, changes, many_threads, many_processes, late_interpreters,
                 busy_kernel):
        if not wanted or part.__name__ in wanted:
            with tempfile.TemporaryDirectory() as folder:
                part(checks, command, folder)
    checks.end()


main()
