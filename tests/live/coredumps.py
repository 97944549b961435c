# SPDX-License-Identifier: MIT
"""Entries of systemd-coredump in the journal become evidence of crash findings: of one that there is already, or of a
new one where the process was called as a Python is. Nobody but root and systemd-coredump is believed. Started by
coredumps.sh, in a mount namespace with an empty /run and an empty journal."""

import contextlib
import glob
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time

from live import PYSPYD, Checks, Target, interpreters, note, pyspyd, skip

PROGRAM = """
import ctypes, sys
def fall():
    ctypes.string_at(8)
print("ready")
sys.stdin.readline()
try:
    raise ValueError("the ledger of pyspyd")
except ValueError:
    fall()
"""
FOUND_S = 120
BOOT = "0123456789abcdef0123456789abcdef"
FOLDER = "/var/lib/systemd/coredump"
SPOOL = "/run/pyspyd/crash"
CONFIG = """
[crash]
folder = /run/pyspyd/crash
%s
[socket]
path = /run/pyspyd/sock
[store]
path = /run/pyspyd/store.db
[journal]
enabled = no
"""


def await_that(what, condition):
    end = time.monotonic() + FOUND_S
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    print("not within %d s: %s" % (FOUND_S, what))
    return None


@contextlib.contextmanager
def journald():
    process = subprocess.Popen(["/lib/systemd/systemd-journald"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        if not await_that("journald", lambda: os.path.exists("/run/systemd/journal/socket")):
            skip("journald does not start here")
        yield
    finally:
        process.terminate()
        process.wait()


def configure(more=""):
    with open("/run/pyspyd/pyspyd.conf", "w") as f:
        f.write(CONFIG % more)


@contextlib.contextmanager
def service():
    configure()
    process = subprocess.Popen([PYSPYD, "daemon", "--foreground", "--config", "/run/pyspyd/pyspyd.conf"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        await_that("the service", lambda: pyspyd("findings", "--json", env=ENV)[0] == 0)
        yield process
    finally:
        process.terminate()
        said = process.communicate()[1].decode()
        if process.returncode:
            print("the service ended with %d: %s" % (process.returncode, said))


ENV = dict(os.environ, PYSPYD_SOCKET="/run/pyspyd/sock")


def core_name(pid, comm="python3", uid=0, time_us=1700000000000000, end=""):
    return "%s/core.%s.%d.%s.%d.%d%s" % (FOLDER, comm, uid, BOOT, pid, time_us, end)


def write(path, content=b"no core"):
    with open(path, "wb") as f:
        f.write(content)
    return path


def entry(of, prefix=(), **fields):
    all_fields = {"MESSAGE_ID": "fc2e22bc6ee647b6b90729ab34a250b1", "MESSAGE": "Process %d dumped core" % of,
                  "COREDUMP_PID": of, "COREDUMP_UID": 0, "COREDUMP_GID": 0, "COREDUMP_SIGNAL": 11,
                  "COREDUMP_TIMESTAMP": time.time_ns() // 1000, "COREDUMP_EXE": "/usr/bin/python3.11",
                  "COREDUMP_COMM": "python3", "COREDUMP_CMDLINE": "python3 -c pass", "COREDUMP_UNIT": "app.service"}
    all_fields.update({"COREDUMP_" + key.upper(): value for key, value in fields.items()})
    text = "".join("%s=%s\n" % item for item in all_fields.items())
    subprocess.run(list(prefix) + ["logger", "--journald"], input=text.encode(), check=True)


def spool(pid, summary, start_ns, evidence):
    """As the crash handler leaves it."""
    finding = {"schema": "pyspyd.finding/1", "id": "01HANDLER%017d" % pid, "fingerprint": "%032x" % pid, "kind": "crash",
               "pattern": "Crash", "severity": "critical", "state": "open", "since": "2026-01-01T00:00:00.000000000Z",
               "process": {"pid": pid, "name": "python3", "uid": 0}, "threads": [], "evidence": evidence,
               "summary": summary, "advice": "The core was not kept."}
    os.makedirs(SPOOL, mode=0o700, exist_ok=True)
    with open(SPOOL + "/.new", "w") as f:
        f.write('{"schema": "pyspyd.spool/1", "start_ns": %d}\n%s' % (start_ns, json.dumps(finding)))
    os.chmod(SPOOL + "/.new", 0o600)
    os.rename(SPOOL + "/.new", "%s/%d.%d.json" % (SPOOL, time.time_ns(), pid))


def findings(pid, condition=lambda finding: True):
    status, out, _ = pyspyd("findings", "--json", "--kind", "crash", "--pid", pid, env=ENV)
    told = [json.loads(line) for line in out.splitlines()] if status == 0 else []
    return [finding for finding in told if condition(finding)]


def core_of(finding):
    return finding["evidence"].get("core") or {}


def crash(command):
    """Return: the pid of a process that is gone, and its core as systemd-coredump would have stored it, or None."""
    with tempfile.TemporaryDirectory() as folder:
        with Target(command, PROGRAM, cwd=folder, stderr=subprocess.DEVNULL,
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))) as target:
            target.ready()
            target.say()
            target.process.wait()
        cores = glob.glob(os.path.join(folder, "core*"))
        if not cores:
            return None
        if shutil.which("zstd"):
            file = core_name(target.pid, end=".zst")
            subprocess.run(["zstd", "-q", "-1", "-o", file, cores[0]], check=True)
        else:
            file = core_name(target.pid)
            shutil.move(cores[0], file)
        return target.pid, file


def check_core(checks, what, pid, file):
    found = await_that(what, lambda: findings(pid, lambda f: core_of(f).get("file") == file))
    if not checks.that(found and len(findings(pid)) == 1, "%s: %s" % (what, findings(pid))):
        return
    finding, core = found[0], core_of(found[0])
    names = [f["function"] for f in finding["threads"][0]["stack"]] if finding["threads"] else []
    checks.that("fall" in names and "string_at" in names, "%s: %s" % (what, names))
    checks.that(core["readable"] is True and (core.get("triage") or {}).get("cause") == "null-pointer",
                "%s: %s" % (what, core))
    checks.that("the ledger of pyspyd" in json.dumps(finding["evidence"].get("exceptions")), "%s: no exception" % what)
    checks.that(file in finding["advice"] and finding["process"]["pid"] == pid and finding["process"]["python"],
                "%s: %s %s" % (what, finding["advice"], finding["process"]))


def check_alone(checks):
    """Those that must not be told of come first: when the last one is, they have been decided upon."""
    entry(900002, prefix=["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"])
    entry(900003, exe="/usr/bin/uwsgi", cmdline="uwsgi --python", comm="uwsgi")
    entry(900004, timestamp=(time.time_ns() // 1000) - 3600 * 10 ** 6)
    entry(900005, pid="900005x")
    write("/run/secret")
    entry(900006, filename="/run/secret")
    spaced = write(core_name(900007, comm="py\\x20$(id)"))
    entry(900007, filename=spaced, truncated=1)
    plain = write(core_name(900001))
    entry(900001, filename=plain)
    found = await_that("a finding of its own", lambda: findings(900001))
    if not checks.that(found and len(found) == 1, "no finding, or several: %s" % found):
        return
    finding = found[0]
    checks.that(finding["state"] == "resolved" and finding["severity"] == "critical" and
                "SIGSEGV" in finding["summary"], "%s" % finding)
    checks.that(finding["process"]["exe"] == "/usr/bin/python3.11" and finding["process"]["unit"] == "app.service",
                "%s" % finding["process"])
    core = core_of(finding)
    checks.that(core.get("file") == plain and core["readable"] is True and core["truncated"] is False, "%s" % core)
    checks.that("sudo pyspyd dump --core %s`" % plain in finding["advice"], finding["advice"])
    for pid, what in ((900002, "a user's entry"), (900003, "no Python"), (900004, "an old one"), (900005, "no pid")):
        checks.that(not findings(pid), "%s is told of" % what)
    outside, spaced_one = (await_that(what, lambda: findings(pid)) or []
                           for pid, what in ((900006, "a file of another folder"), (900007, "a truncated core")))
    checks.that(len(outside) == 1 and core_of(outside[0])["readable"] is False, "a file of another folder: %s" % outside)
    checks.that(len(spaced_one) == 1 and core_of(spaced_one[0])["truncated"] is True and
                "--core '%s'" % spaced in spaced_one[0]["advice"], "%s" % spaced_one)


def check_together(checks):
    """The crash handler's finding, or the engine's, goes on: also of a process that is not called as a Python is."""
    spool(900010, "crash: of the handler", time.time_ns() - 10 ** 10, {"core": {"triage": "kept"}, "signal": "SIGSEGV"})
    file = write(core_name(900010, comm="uwsgi"))
    entry(900010, exe="/usr/bin/uwsgi", cmdline="uwsgi", comm="uwsgi", filename=file)
    found = await_that("both in one", lambda: findings(900010, lambda f: core_of(f).get("file") == file))
    if not checks.that(found and len(found) == 1 and len(findings(900010)) == 1, "not one: %s" % findings(900010)):
        return
    checks.that(found[0]["summary"] == "crash: of the handler" and core_of(found[0])["triage"] == "kept" and
                found[0]["evidence"]["signal"] == "SIGSEGV" and file in found[0]["advice"], "%s" % found)


def await_mark(checks, pid):
    spool(pid, "crash: a mark", time.time_ns(), {})
    checks.that(await_that("a mark", lambda: findings(pid)), "the folder is not looked into")


def check_off(checks, process):
    """What would be told of at once is not, in a round of the service that takes a mark of ours."""
    configure("systemd-coredump = no")
    process.send_signal(signal.SIGHUP)
    await_mark(checks, 900022)  # else it comes into the round that is going on
    entry(900010, filename=write(core_name(900010, comm="later")))
    for pid in (900020, 900021):
        await_mark(checks, pid)
    checks.that("later" not in json.dumps(findings(900010)), "it is off, and tells: %s" % findings(900010))


def main():
    checks = Checks()
    command = interpreters("3.11.2-system")[0][2]
    os.mkdir("/run/pyspyd")
    with journald():
        before = crash(command)
        if before:
            entry(before[0], filename=before[1])
        with service():
            # Where the kernel tells of ends, the engine has a finding of this one.
            meanwhile = crash(command) if before else None
            if meanwhile:
                entry(meanwhile[0], filename=meanwhile[1])
            check_alone(checks)
            check_together(checks)
            if before and meanwhile:
                check_core(checks, "a core from before", *before)
                check_core(checks, "a core of a process that was watched", *meanwhile)
            else:
                note("no core is written here: none was read")
        before = len(findings_in_store())
        with service() as process:
            await_mark(checks, 900030)
            check_off(checks, process)
        told = [row for row in findings_in_store()[before:] if row[1] not in (900020, 900021, 900022, 900030)]
        checks.that(not told, "a new start tells again of entries of the last minute: %s" % told)
    checks.end()


def findings_in_store():
    with contextlib.closing(sqlite3.connect("file:/run/pyspyd/store.db?mode=ro", uri=True)) as db:
        return db.execute("SELECT seq, pid FROM events WHERE kind = 'crash' AND pid >= 900000 ORDER BY seq").fetchall()


main()
