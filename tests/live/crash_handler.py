# SPDX-License-Identifier: MIT
"""The crash handler gets cores on its standard input, as the kernel would hand them over: its finding names the process
that is still in /proc, the fault and the cause; cores are kept within bounds; what is no Python goes on; rubbish does
no harm. The kernel's setting is not touched: the cores are files that it wrote before."""

import glob
import json
import os
import resource
import shutil
import stat
import subprocess
import tempfile
import time

from live import COMMAND_S, PYSPYD, READY_S, Checks, Target, interpreters, note, pyspyd, skip, wait_until

PROGRAM = """
import ctypes, sys
password_of_ledger = "hunter2-" + "ledger"
def fall():
    ctypes.string_at(8)
print("ready")
sys.stdin.readline()
try:
    raise ValueError("the ledger of pyspyd")
except ValueError:
    fall()
"""
NOBODY = 65534
CONFIG = """
[crash]
folder = %(folder)s/spool
cores = %(folder)s/cores
keep = %(keep)s
max-cores = 2
%(more)s
[socket]
path = %(folder)s/sock
[store]
path = %(folder)s/store.db
[journal]
enabled = no
"""


def make_core(command, folder):
    with Target(command, PROGRAM, cwd=folder, stderr=subprocess.DEVNULL,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))) as target:
        target.ready()
        target.say()
        target.process.wait()
    cores = glob.glob(os.path.join(folder, "core*"))
    if not cores:
        skip("no core is written here")
    return cores[0]


class World:
    def __init__(self, folder):
        self.folder = folder
        self.config = os.path.join(folder, "pyspyd.conf")
        self.configure()

    def configure(self, keep="no", more=""):
        with open(self.config, "w") as f:
            f.write(CONFIG % {"folder": self.folder, "keep": keep, "more": more})

    def handle(self, core, pid, *options, limit=2 ** 64 - 1, signal=11, owner=0):
        words = [pid, owner, owner, signal, int(time.time()), limit, "host"]
        with open(core, "rb") as f:
            done = subprocess.run([PYSPYD, "crash-handler", "--config", self.config] + list(options) + ["--"] +
                                  [str(w) for w in words], stdin=f, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  timeout=COMMAND_S)
        return done

    def spooled(self):
        return sorted(glob.glob(os.path.join(self.folder, "spool", "*.json")))

    def take(self):
        """The only finding in the folder, which is empty then."""
        files = self.spooled()
        if len(files) != 1:
            return None
        with open(files[0]) as f:
            lines = f.read().splitlines()
        mode = stat.S_IMODE(os.stat(files[0]).st_mode)
        os.unlink(files[0])
        return {"head": json.loads(lines[0]), "finding": json.loads(lines[1]), "text": lines[1], "mode": mode}

    def cores(self):
        return sorted(glob.glob(os.path.join(self.folder, "cores", "*")))


def check_finding(checks, name, world, core, target):
    done = world.handle(core, target.pid)
    got = world.take()
    if not checks.that(done.returncode == 0 and got, "%s: exit %d, %s" % (name, done.returncode, done.stderr)):
        return
    finding = got["finding"]
    checks.that(got["mode"] == 0o600, "%s: mode %o" % (name, got["mode"]))
    checks.that(got["head"]["schema"] == "pyspyd.spool/1" and got["head"]["start_ns"] > 0, "%s: %s" % (name, got["head"]))
    checks.that(finding["kind"] == "crash" and finding["pattern"] == "Crash" and finding["severity"] == "critical",
                "%s: %s" % (name, finding["summary"]))
    checks.that(finding["process"]["pid"] == target.pid, "%s: %s" % (name, finding["process"]))
    checks.that("SIGSEGV" in finding["summary"] and "null-pointer" in finding["summary"] and
                "string_at" in finding["summary"], "%s: %s" % (name, finding["summary"]))
    names = [f["function"] for f in finding["threads"][0]["stack"]]
    checks.that("fall" in names and "string_at" in names and
                any(f["lang"] == "native" for f in finding["threads"][0]["stack"]), "%s: %s" % (name, names))
    evidence = finding["evidence"]
    checks.that(evidence["core"]["triage"]["cause"] == "null-pointer", "%s: %s" % (name, evidence["core"]))
    checks.that(evidence["core_kept"] is None and not world.cores(), "%s: %s" % (name, world.cores()))
    if "exceptions" in evidence:
        checks.that("the ledger of pyspyd" in json.dumps(evidence["exceptions"]), "%s: %s" % (name, evidence))
    checks.that("hunter2-" not in got["text"].replace("hunter2-\\", ""), "%s: a variable's value is told" % name)


def check_kept(checks, name, world, core, pid):
    world.configure(keep="yes")
    kept = []
    for _ in range(3):
        checks.that(world.handle(core, pid).returncode == 0, "%s: keeping" % name)
        got = world.take()
        kept.append(got["finding"]["evidence"]["core_kept"] if got else None)
    checks.that(len(world.cores()) == 2 and kept[2] in world.cores(), "%s: %s of %s" % (name, world.cores(), kept))
    for path in world.cores():
        checks.that(stat.S_IMODE(os.stat(path).st_mode) == 0o600, "%s: %s" % (name, path))
    status, out, err = pyspyd("dump", "--json", "--core", world.cores()[-1])
    checks.that(status == 0 and "fall" in out, "%s: the core that was kept: %d %s" % (name, status, err))
    shutil.rmtree(os.path.join(world.folder, "cores"))
    world.handle(core, pid, limit=0)
    checks.that(world.take() is not None and not world.cores(), "%s: ulimit 0: %s" % (name, world.cores()))
    world.configure()


def check_forward(checks, world, core):
    """The one who gets it writes down its words and how many bytes it got."""
    script = os.path.join(world.folder, "other")
    with open(script, "w") as f:
        f.write("#!/bin/sh\necho \"$@\" > %s/words\nwc -c >> %s/words\n" % (world.folder, world.folder))
    os.chmod(script, 0o755)
    with Target(["sleep", "1000"]) as sleeper:
        for owner in (0, NOBODY):
            done = world.handle(core, sleeper.pid, "--forward", script, owner=owner)
            with open(os.path.join(world.folder, "words")) as f:
                words, size = f.read().splitlines()
            checks.that(words.split()[:2] == [str(sleeper.pid), str(owner)] and words.split()[-1] == "host" and
                        int(size) == os.path.getsize(core), "forward: %s %s %s" % (done, words, size))
            checks.that(not world.spooled(), "a finding about no Python")
            os.unlink(os.path.join(world.folder, "words"))
        checks.that(world.handle(core, sleeper.pid).returncode == 0 and not world.spooled(), "dropped")


def check_owner(checks, world, core, pid):
    """Files that the crashed process's user may not open were opened for him, and are looked into as him."""
    done = world.handle(core, pid, owner=NOBODY)
    got = world.take()
    checks.that(got and got["finding"]["process"]["uid"] == NOBODY, "as nobody: %s %s" % (done, got))


def check_rubbish(checks, world, core, pid):
    with open(core, "rb") as f:
        whole = f.read()
    rubbish = os.path.join(world.folder, "rubbish")
    for what, content in (("empty", b""), ("zeros", b"\0" * 100000), ("noise", os.urandom(100000)),
                          ("half", whole[:len(whole) // 2]), ("headers", whole[:4096])):
        with open(rubbish, "wb") as f:
            f.write(content)
        done = world.handle(rubbish, pid)
        checks.that(done.returncode in (0, 1), "%s: %s" % (what, done))
        for path in world.spooled():
            os.unlink(path)
    checks.that(world.handle(core, 0).returncode == 2, "pid 0")
    checks.that(world.handle(core, "../1").returncode == 2, "a pid that is none")
    left = [n for n in os.listdir(os.path.join(world.folder, "spool"))]
    checks.that(not left, "left in the folder: %s" % left)
    # Others may be at work in folders of that kind just now; theirs go.
    left = set(glob.glob("/var/tmp/pyspyd-crash-??????/"))
    checks.that(wait_until(lambda: not any(map(os.path.exists, left))), "folders are left: %s" % left)
    world.configure(more="max-core = 1M")
    done = world.handle(core, pid)
    for path in world.spooled():
        os.unlink(path)
    checks.that(done.returncode in (0, 1), "a core beyond the limit: %s" % done)
    world.configure()


def check_link(checks, world, core, pid):
    spool = os.path.join(world.folder, "spool")
    os.rename(spool, spool + ".real")
    os.symlink(spool + ".real", spool)
    world.handle(core, pid)
    checks.that(not os.listdir(spool + ".real"), "a link was followed")
    os.unlink(spool)
    os.rename(spool + ".real", spool)
    os.chmod(spool, 0o777)
    world.handle(core, pid)
    checks.that(not world.spooled(), "a folder that all may write to was used")
    os.chmod(spool, 0o700)


def ask_until(env, done, *words):
    """What the service answers, as soon as it is what is waited for, or at last."""
    deadline = time.monotonic() + READY_S
    while True:
        status, out, _ = pyspyd(*words, env=env)
        if done(out) if status == 0 else time.monotonic() > deadline:
            return out
        if time.monotonic() > deadline:
            return out
        time.sleep(0.2)


def check_service(checks, world, core, target):
    """The finding of the core comes before the service sees the process die, and is the only one."""
    pid = target.pid
    world.handle(core, pid)
    checks.that(len(world.spooled()) == 1, "nothing to be taken")
    service = subprocess.Popen([PYSPYD, "daemon", "--foreground", "--config", world.config], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE)
    env = dict(os.environ, PYSPYD_SOCKET=os.path.join(world.folder, "sock"))
    findings = ("findings", "--json", "--kind", "crash", "--pid", pid)
    try:
        events = ask_until(env, bool, *findings).splitlines()
        first = json.loads(events[-1]) if events else {"state": "none", "evidence": {"core": None}}
        watched = ask_until(env, lambda out: '"pid":%d,' % pid in out.replace(" ", ""), "ps", "--json")
        target.process.send_signal(11)
        target.process.wait()
        events = [json.loads(line) for line in ask_until(
            env, lambda out: "uptime_s" in out, *findings).splitlines()]
    finally:
        service.terminate()
        err = service.communicate()[1].decode()
    checks.that(first["state"] == "resolved", "the service has %s: %s" % (first, err))
    checks.that(all(e["process"]["pid"] == pid for e in events) and
                len({e["id"] for e in events}) == 1, "the service has %s" % events)
    checks.that(events and events[-1]["evidence"].get("core") == first["evidence"]["core"] and
                len(events[-1]["evidence"]) > len(first["evidence"]),
                "what both have seen: %s, %s" % (events[-1:], watched))
    checks.that(not world.spooled(), "the folder is not empty: %s" % world.spooled())


def main():
    checks = Checks()
    with open("/proc/sys/kernel/core_pattern") as f:
        pattern = f.read().strip()
    if pattern.startswith("|") or "/" in pattern:
        skip("the kernel gives cores to %s" % pattern)
    if os.geteuid():
        skip("not root")
    first = True
    for name, _, command in interpreters("3.11.2-system 3.13.0-pyenv"):
        with tempfile.TemporaryDirectory(prefix="pyspyd-handler-") as folder:
            core = make_core(command, folder)
            world = World(folder)
            with Target(command, PROGRAM) as target:
                target.ready()
                check_finding(checks, name, world, core, target)
                check_kept(checks, name, world, core, target.pid)
                if first:
                    check_forward(checks, world, core)
                    check_owner(checks, world, core, target.pid)
                    check_rubbish(checks, world, core, target.pid)
                    check_link(checks, world, core, target.pid)
                    check_service(checks, world, core, target)
        first = False
        note(name)
    checks.end()


main()
