# SPDX-License-Identifier: MIT
"""Runs in a virtual machine of tests/kernels/run, as root: installs the package and asks one thing after the other.

A check returns a short text for the table; Failed has one too, and Without says what this kernel cannot do, in pyspyd's
own words. All that commands said is below results/."""

import contextlib
import glob
import json
import os
import re
import resource
import signal
import stat
import subprocess
import time

HOME = "/opt/test"
RESULTS = HOME + "/results"
SLOW = 5  # of an emulated CPU: what others wait for is waited for so many times as long
CORES = "/var/lib/systemd/coredump"
COREDUMP = "/lib/systemd/systemd-coredump"
HANDLER = "|/usr/bin/pyspyd crash-handler -- %P %u %g %s %t %c %h"
FORWARDING = "|/usr/bin/pyspyd crash-handler --forward " + COREDUMP + " -- %P %u %g %s %t %c %h"

WORK = """
import os, threading, time
def leaf(n):
    return n * 3 % 7
def spin():
    n = 1
    while True:
        n = leaf(n) + 1
def nap():
    while True:
        time.sleep(0.05)
def take():
    while True:
        kept = [bytearray(300000) for _ in range(20)]
        time.sleep(0.05)
def open_files():
    held = []
    while True:
        held.append(open("/dev/null"))
        if len(held) > 300:
            for f in held: f.close()
            held = []
        time.sleep(0.1)
for f in (nap, take, open_files):
    threading.Thread(target=f, daemon=True, name=f.__name__).start()
print("ready", flush=True)
spin()
"""

# Falls by what its first word says, when it has seen a line.
FALL = """
import ctypes, os, sys, threading, time
def wait():
    time.sleep(10000)
def fall(how):
    if how == "null":
        ctypes.string_at(8)
    elif how == "abort":
        os.abort()
    else:
        os.kill(os.getpid(), 11)
threading.Thread(target=wait, daemon=True).start()
print("ready", flush=True)
if len(sys.argv) < 3:
    sys.stdin.readline()
fall(sys.argv[1])
"""


class Failed(Exception):
    pass


class Without(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Failed(text)


def eventually(what, condition, seconds=20):
    end = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed("not within %d s: %s" % (seconds * SLOW, what))
        time.sleep(0.3)


class Host:
    """The machine: runs commands and keeps what they said, by the check that is running."""

    def __init__(self):
        self.log = None

    def run(self, *command, check=True, seconds=30, **options):
        begun = time.monotonic()
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                                  timeout=seconds * SLOW, **options)
        except subprocess.TimeoutExpired:
            self.log.write("$ %s\n(no end within %d s)\n" % (" ".join(command), seconds * SLOW))
            raise Failed("no end of %s" % " ".join(command[:3]))
        self.log.write("$ %s\n%s%s(%d, %.1f s)\n" % (" ".join(command), done.stdout, done.stderr, done.returncode,
                                                   time.monotonic() - begun))
        if check and done.returncode:
            raise Failed("%s: %d %s" % (" ".join(command[:4]), done.returncode, done.stderr.strip()[-400:]))
        return done

    def out(self, *command, **options):
        return self.run(*command, **options).stdout.strip()


HOST = Host()


class Target:
    def __init__(self, *words, **options):
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True, **options)
        self.pid = self.process.pid
        expect(self.process.stdout.readline() == "ready\n", "%s does not start" % (words,))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def worker():
    return Target("python3", HOME + "/work.py")


def kernel():
    return tuple(int(n) for n in os.uname().release.split(".")[:2])


def record(*options, needs=(), since=(0, 0)):
    """Kernels before `since` may say that they cannot. Return: the profile's lines and what was said about them."""
    path = HOME + "/out.collapsed"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with worker() as target:
        done = HOST.run("pyspyd", "record", "-p", str(target.pid), "-d", "3", "-o", path, *options, check=False)
    lines = []
    if os.path.exists(path):
        with open(path) as file:
            lines = file.read().splitlines()
        HOST.log.write("\n".join(lines) + "\n")
    if done.returncode == 5 and kernel() < since:
        raise Without(done.stderr.strip())
    expect(done.returncode == 0, "%d %s" % (done.returncode, done.stderr.strip()))
    for name in needs:
        expect(any(name in line for line in lines), "no %s among %d stacks" % (name, len(lines)))
    return lines, done.stderr


def numbers(said):
    """Of record's account: as short as a field of the table."""
    samples = re.search(r"(\d+) samples", said)
    torn = re.search(r"(\d+) torn", said)
    discarded = re.search(r"(\d+) discarded", said)
    source = re.search(r"source (\w+)", said)
    expect(samples and source and int(samples.group(1)) > 0, "no samples: " + said)
    return "%s, %s samples, %s torn, %s discarded" % tuple(m.group(1) for m in (source, samples, torn, discarded))


# Of the package.


def install():
    HOST.run("dpkg", "-i", HOME + "/pyspyd.deb", seconds=60)
    eventually("the service runs", lambda: HOST.out("systemctl", "is-active", "pyspyd", check=False) == "active")
    level = HOST.run("systemd-analyze", "security", "--no-pager", "pyspyd.service", check=False).stdout.splitlines()
    text = HOST.out("pyspyd", "doctor", check=False)
    expect(re.search("^ok +service ", text, re.M), "doctor does not see the service")
    return "exposure " + re.search(r"service: ([\d.]+)", level[-1]).group(1)


def stop():
    HOST.run("systemctl", "stop", "pyspyd")
    result = HOST.out("systemctl", "show", "--value", "-p", "Result", "pyspyd")
    expect(result == "success", "stopped: " + result)
    said = HOST.out("journalctl", "--no-pager", "-u", "pyspyd", "-p", "warning", "-o", "cat")
    return said.splitlines()[0] if said else "nothing to complain"


def doctor():
    lines = HOST.out("pyspyd", "doctor", check=False).splitlines()
    bad = [line for line in lines if re.match(r"(limited|FAILED) +[a-z_-]+ +", line)]
    expect(len(lines) > 10 and not bad, "; ".join(" ".join(line.split()[1:]) for line in bad))
    return "all is well"


# Of the sources.


def dump():
    with worker() as target:
        text = HOST.out("pyspyd", "dump", str(target.pid))
        native = HOST.out("pyspyd", "dump", "--native", str(target.pid))
    expect(all(name in text for name in ("spin", "nap", "take", "open_files")), "a thread is missing")
    expect("Py_BytesMain" in native, "no native frame")
    return "yes"


def record_bpf():
    return numbers(record("-r", "999", "--source", "bpf", needs=("leaf", "nap"))[1])


def record_vm():
    return numbers(record("-r", "999", "--source", "vm", needs=("leaf", "nap"))[1])


def record_auto():
    return numbers(record("-r", "99", needs=("leaf", "nap"))[1])


def record_native():
    return numbers(record("-r", "499", "--native", needs=("leaf", "Py_BytesMain"))[1])


def record_wall():
    return numbers(record("-r", "499", "--mode", "wall", needs=("leaf", "nap"))[1])


def record_offcpu():
    lines, said = record("--mode", "offcpu", "--kernel", needs=("nap", "nanosleep"))
    return said.splitlines()[0].removeprefix("pyspyd: ")


def record_alloc():
    lines, said = record("--mode", "alloc", "--max-slowdown", "0", needs=("take",), since=(5, 15))
    return said.splitlines()[0].removeprefix("pyspyd: ")


def origins():
    with worker() as target:
        done = HOST.run("pyspyd", "handles", "--origins", "10s", str(target.pid))
    expect("at open_files" in done.stdout, "no origin: " + done.stderr.strip())
    return "yes"


def watch():
    """A spinner and two that wait for each other, found among all; one that comes and dies is told of."""
    path = HOME + "/watched"
    with worker() as spinner, Target("python3", HOME + "/deadlock_abba.py") as stuck, open(path, "w") as out:
        watching = subprocess.Popen(["pyspyd", "watch", "--all", "--json", "--spike", "30:3s"], stdout=out,
                                    stderr=HOST.log)
        try:
            def found(kind, pid):
                with open(path) as file:
                    for line in file:
                        with contextlib.suppress(ValueError):
                            event = json.loads(line)
                            if event.get("kind") == kind and event["process"]["pid"] == pid:
                                return event
                return None

            event = eventually("a deadlock", lambda: found("deadlock", stuck.pid))
            expect("transfer" in event["summary"] + json.dumps(event["threads"]), event["summary"])
            event = eventually("a spinning thread", lambda: found("spiking-thread", spinner.pid))
            expect("spin" in json.dumps(event["evidence"]) + json.dumps(event["threads"]), event["summary"])
            # Those that come later: where the one is found the other is watched.
            with Target("python3", HOME + "/fall.py", "kill") as late, \
                    Target("python3", HOME + "/deadlock_abba.py") as another:
                eventually("a deadlock of one that came later", lambda: found("deadlock", another.pid))
                late.process.stdin.close()
                late.process.wait()
            ended = eventually("its end", lambda: found("crash", late.pid), seconds=5)["evidence"]["signal"]
            expect(ended == "SIGSEGV", "it ended by %s" % ended)
        finally:
            watching.send_signal(signal.SIGINT)
            watching.wait()
    return "deadlock, spiking-thread, %s" % ended


# Of crashes.


def set_pattern(pattern):
    write("/proc/sys/kernel/core_pipe_limit", "16\n")
    write("/proc/sys/kernel/core_pattern", pattern + "\n")


def fell(how, user="root", limit=resource.RLIM_INFINITY):
    """Return: the pid of one that has died, and how long its end took."""
    def before():
        resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
    words = ["python3", HOME + "/fall.py", how]
    with Target(*words, preexec_fn=before, user=user, group=user if user != "root" else None, cwd="/") as target:
        begun = time.monotonic()
        target.process.stdin.write("\n")
        target.process.stdin.flush()
        target.process.wait(60 * SLOW)
        return target.pid, time.monotonic() - begun


def crashes(pid):
    """All findings of a process's crash, each once."""
    out = HOST.run("pyspyd", "findings", "--json", "--kind", "crash", "--pid", str(pid), check=False).stdout
    return {finding["id"]: finding for finding in map(json.loads, out.splitlines())}


def one_crash(pid, functions, signame):
    """Its finding, which there is one of, with what the core tells."""
    def told():
        found = [f for f in crashes(pid).values() if f["threads"] and (f["evidence"].get("core") or {}).get("triage")]
        return found
    finding = eventually("a finding of the crash of %d with its core" % pid, told)[0]
    HOST.log.write(json.dumps(finding) + "\n")
    names = [frame["function"] for frame in finding["threads"][0]["stack"]]
    for name in functions:
        expect(name in names, "no %s in %s" % (name, names))
    expect(finding["evidence"]["signal"] == signame, "signal %s" % finding["evidence"]["signal"])
    return finding


def spooled():
    return sorted(glob.glob("/var/lib/pyspyd/crash/*.json"))


def single(pids):
    for pid in pids:
        expect(len(crashes(pid)) == 1, "%d has %d findings" % (pid, len(crashes(pid))))


CRASHES = (("null", "SIGSEGV", ("string_at", "fall")), ("abort", "SIGABRT", ("fall",)), ("kill", "SIGSEGV", ("fall",)))


def handler():
    """The service runs: root's and another user's, by all three ways."""
    HOST.run("systemctl", "start", "pyspyd")
    set_pattern(HANDLER)
    took, pids = [], []
    for user in ("root", "alice"):
        for how, signame, functions in CRASHES:
            pid, seconds = fell(how, user=user)
            took.append(seconds)
            finding = one_crash(pid, functions, signame)
            uid = 0 if user == "root" else int(HOST.out("id", "-u", user))
            expect(finding["process"]["uid"] == uid, "uid %s" % finding["process"]["uid"])
            pids.append(pid)
    time.sleep(5)
    single(pids)
    expect(not spooled(), "left: %s" % spooled())
    expect(not glob.glob("/var/lib/pyspyd/cores/*"), "a core is kept")
    return "%d crashes, the end took %.1f s to %.1f s" % (len(pids), min(took), max(took))


def handler_kept():
    """Cores that are kept: root's alone; none of a process whose limit is 0, none of a small limit's wish."""
    write("/etc/pyspyd/pyspyd.conf.d/kernels.conf", "[crash]\nkeep = yes\n")
    HOST.run("systemctl", "restart", "pyspyd")
    set_pattern(HANDLER)
    finding = one_crash(fell("null", user="alice")[0], ("string_at",), "SIGSEGV")
    kept = finding["evidence"]["core_kept"]
    expect(kept and os.path.exists(kept), "kept: %s" % kept)
    info = os.stat(kept)
    expect((info.st_uid, stat.S_IMODE(info.st_mode)) == (0, 0o600), "%d %o" % (info.st_uid, info.st_mode))
    expect("fall" in HOST.out("pyspyd", "dump", "--core", kept), "the core that was kept")
    finding = one_crash(fell("null", user="alice", limit=0)[0], ("string_at",), "SIGSEGV")
    expect(not finding["evidence"]["core_kept"], "kept in spite of the limit")
    finding = one_crash(fell("null", user="alice", limit=1 << 16)[0], ("string_at",), "SIGSEGV")
    os.unlink("/etc/pyspyd/pyspyd.conf.d/kernels.conf")
    HOST.run("systemctl", "restart", "pyspyd")
    return "%d KiB; limit 0: none; limit 64K: %s" % (info.st_size >> 10,
                                                     "kept" if finding["evidence"]["core_kept"] else "none")


def handler_alone():
    """Without the service the finding waits, one line is in the journal, and the service takes it when it comes."""
    HOST.run("systemctl", "stop", "pyspyd")
    set_pattern(HANDLER)
    pid, _ = fell("null", user="alice")
    files = eventually("a finding in the folder", spooled)
    info = os.stat(files[0])
    expect(stat.S_IMODE(info.st_mode) == 0o600, "mode %o" % info.st_mode)
    lines = eventually("a line in the journal", lambda: HOST.out(
        "journalctl", "--no-pager", "-o", "cat", "-t", "pyspyd", "PYSPYD_PID=%d" % pid))
    expect(len(lines.splitlines()) == 1, "lines: " + lines)
    HOST.run("systemctl", "start", "pyspyd")
    one_crash(pid, ("string_at",), "SIGSEGV")
    eventually("the folder is empty", lambda: not spooled())
    single([pid])
    return lines.splitlines()[0]


def handler_unit():
    """A small unit: its name is in the finding."""
    HOST.run("systemctl", "start", "pyspyd")
    set_pattern(HANDLER)
    HOST.run("systemd-run", "--quiet", "--unit=faller", "--uid=alice", "-p", "LimitCORE=4096", "-p",
             "RemainAfterExit=yes", "python3", HOME + "/fall.py", "null", "now")
    pid = int(eventually("its pid", lambda: (HOST.out("systemctl", "show", "--value", "-p", "ExecMainPID", "faller"))))
    finding = one_crash(pid, ("string_at",), "SIGSEGV")
    expect(finding["process"]["unit"] == "faller.service", "unit " + finding["process"]["unit"])
    HOST.run("systemctl", "reset-failed", "faller", check=False)
    return finding["summary"]


def handler_forward():
    """What is no Python goes on to systemd-coredump, whole."""
    set_pattern(FORWARDING)
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        sleeper.send_signal(signal.SIGSEGV)
    info = eventually("sleep in coredumpctl", lambda: HOST.run(
        "coredumpctl", "info", str(sleeper.pid), check=False).stdout)
    expect("Signal: 11" in info and "(present)" in info, info)
    pid, _ = fell("null")
    one_crash(pid, ("string_at",), "SIGSEGV")
    expect(HOST.run("coredumpctl", "info", str(pid), check=False).returncode, "a Python's core went on, too")
    single([pid])
    return "yes"


def coredump():
    """systemd-coredump is the kernel's handler: the service follows the journal."""
    HOST.run("systemctl", "start", "pyspyd")
    HOST.run("/lib/systemd/systemd-sysctl", "50-coredump.conf")
    expect(COREDUMP in open("/proc/sys/kernel/core_pattern").read(), "its pattern")
    pids = []
    for user in ("root", "alice"):
        for how, signame, functions in CRASHES:
            pids.append(fell(how, user=user)[0])
            finding = one_crash(pids[-1], functions, signame)
            core = finding["evidence"]["core"]
            expect(core["file"].startswith(CORES) and core["readable"], "core: %s" % core)
    time.sleep(5)
    single(pids)
    stored = sorted(glob.glob("%s/core.python3*.%d.*.zst" % (CORES, pids[0])))
    expect(stored, "stored: %s" % os.listdir(CORES))
    text = HOST.out("pyspyd", "dump", "--core", stored[0])
    expect("string_at" in text and "fall" in text, text[:300])
    return "%d crashes, %s" % (len(pids), core["file"].rsplit(".", 1)[-1])


def purge():
    HOST.run("systemctl", "start", "pyspyd")
    set_pattern("core")
    HOST.run("dpkg", "--purge", "pyspyd", seconds=60)
    expect(not os.path.exists("/var/lib/pyspyd"), "the store is still there")
    expect(HOST.run("pgrep", "-x", "pyspyd", check=False).returncode == 1, "it still runs")
    return "yes"


CHECKS = (install, doctor, stop, dump, record_bpf, record_vm, record_auto, record_native, record_wall, record_offcpu,
          record_alloc, origins, watch, handler, handler_kept, handler_alone, handler_unit, handler_forward, coredump,
          purge)


def main():
    os.makedirs(RESULTS, exist_ok=True)
    with open(HOME + "/checks") as file:
        chosen = [name for name in file.read().strip().split(",") if name]
    write(HOME + "/work.py", WORK)
    write(HOME + "/fall.py", FALL)
    for command in (["uname", "-a"], ["useradd", "-m", "alice"]):
        subprocess.run(command)
    with open(RESULTS + "/table", "w") as table:
        for check in CHECKS:
            if chosen and check is not install and check.__name__ not in chosen:
                continue
            begun = time.monotonic()
            with open("%s/%s" % (RESULTS, check.__name__), "w") as HOST.log:
                try:
                    state, text = "ok", check()
                except Without as reason:
                    state, text = "without", str(reason)
                except Exception as reason:  # pylint: disable=broad-except
                    state, text = "FAILED", str(reason) if isinstance(reason, Failed) else repr(reason)
            row = {"check": check.__name__, "state": state, "text": text, "seconds": round(time.monotonic() - begun, 1)}
            print("%(check)s: %(state)s, %(text)s (%(seconds).0f s)" % row, flush=True)
            if state == "FAILED":
                with open(HOST.log.name, errors="replace") as log:
                    print("".join(line[:400] for line in log.readlines()[-12:]), flush=True)
            table.write(json.dumps(row) + "\n")
            table.flush()
    with open(RESULTS + "/journal", "w") as journal:
        subprocess.run(["journalctl", "--no-pager", "-b"], stdout=journal)
    with open(RESULTS + "/dmesg", "w") as journal:
        subprocess.run(["dmesg"], stdout=journal)


if __name__ == "__main__":
    main()
