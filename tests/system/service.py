# SPDX-License-Identifier: MIT
"""Boots WORK/tree in a container and tests the service in it; started by service.sh, which has made the tree.

The container is systemd-nspawn's, with all capabilities, as a host's service manager has them. It says over a socket
when it has booted; commands run in its namespaces. What must come about is asked for again and again until it has, or
until its time is over. Nothing is asked of findings that were not in the journal: an operator sees no more."""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

BOOT_S = 90
FOUND_S = 60  # from the start of a program until its finding is in the journal
KILLS = int(os.environ.get("SERVICE_KILLS", "3"))

MESSAGE_IDS = {
    "spiking-thread": "5cff0a80904b40b08f4392d8b118f4b2",
    "deadlock": "b21ee44185784835ba5b55e799c1df2e",
}

CONFIG = """
[watch]
spiking-thread.for = 3s
cpu-budget = 10%
[recorder]
bucket = 2s
[syslog]
enabled = yes
transport = udp
address = 127.0.0.1
[file]
enabled = yes
[metrics]
enabled = yes
"""

# As pyspyd.conf(5) has it under NETWORK.
NETWORK = """
[Service]
RestrictAddressFamilies=AF_INET AF_INET6
IPAddressAllow=localhost
"""

# What rsyslog has made of a line of RFC 5424, with its parts.
RSYSLOG = """
module(load="imudp")
template(name="parts" type="string" string="%app-name%|%msgid%|%syslogseverity%|%structured-data%|%msg%\\n")
ruleset(name="pyspyd") { action(type="omfile" file="/var/log/received" template="parts") }
input(type="imudp" address="127.0.0.1" port="514" ruleset="pyspyd")
"""

SPINNER = """
import threading
def burn():
    n = 1
    while True:
        n = n * 3 % 1000003
threading.Thread(target=burn, name="burner").start()
"""

FALL = """
import ctypes, os
print(os.getpid(), flush=True)
ctypes.string_at(8)
"""

# What systemd-coredump writes into the journal, and where it stores cores.
COREDUMP = """MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1
MESSAGE=Process %(pid)d dumped core
COREDUMP_PID=%(pid)d
COREDUMP_UID=0
COREDUMP_GID=0
COREDUMP_SIGNAL=11
COREDUMP_TIMESTAMP=%(time_us)d
COREDUMP_EXE=/usr/bin/python3
COREDUMP_COMM=python3
COREDUMP_CMDLINE=python3 /opt/test/fall.py
COREDUMP_FILENAME=%(file)s
"""
CORES = "/var/lib/systemd/coredump"

SCRAPE = """
import sys, urllib.request
request = urllib.request.Request("http://127.0.0.1:9733/metrics", headers={"Accept": sys.argv[1]} if sys.argv[1:] else {})
print(urllib.request.urlopen(request, timeout=10).read().decode(), end="")
"""

PROMETHEUS = """
scrape_configs:
  - job_name: pyspyd
    scrape_interval: 1s
    static_configs: [{targets: ["127.0.0.1:9733"]}]
"""

SCRAPED = """
import json, urllib.request
url = "http://127.0.0.1:9090/api/v1/query?query=pyspyd_findings_total"
print(len(json.load(urllib.request.urlopen(url, timeout=10))["data"]["result"]))
"""

STORED = """
import json, sqlite3
db = sqlite3.connect("file:/var/lib/pyspyd/pyspyd.db?mode=ro", uri=True)
print(json.dumps({"seqs": [r[0] for r in db.execute("SELECT seq FROM events ORDER BY seq")],
                  "dropped": dict(db.execute("SELECT name, dropped FROM sinks"))}))
"""


class Failed(Exception):
    pass


class Container:
    """A booted tree."""

    def __init__(self, work):
        self.tree = os.path.join(work, "tree")
        self.console = os.path.join(work, "console")
        self.leader = None
        path = os.path.join(work, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, open(self.console, "wb") as console:
            notify.bind(path)
            self.nspawn = subprocess.Popen(
                ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--capability=all",
                 "--notify-ready=yes", "--console=pipe", "--machine=pyspyd-test", "--directory", self.tree],
                stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT,
                env={**os.environ, "NOTIFY_SOCKET": path})
            self.await_boot(notify)

    def await_boot(self, notify):
        end, ready = time.monotonic() + BOOT_S, False
        while not (ready and self.leader):
            left = end - time.monotonic()
            if left <= 0 or self.nspawn.poll() is not None:
                with open(self.console, errors="replace") as console:
                    raise Failed("the tree does not boot:\n" + console.read()[-3000:])
            if not select.select([notify], [], [], min(left, 1))[0]:
                continue
            for line in notify.recv(4096).decode().splitlines():
                ready = ready or line == "READY=1"
                if line.startswith("X_NSPAWN_LEADER_PID="):
                    self.leader = int(line.partition("=")[2])

    def run(self, *command, check=True, seconds=60):
        """Runs a command as the container's root. Return: its result, with stdout and stderr as text."""
        result = subprocess.run(
            ["nsenter", "--target", str(self.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd",
             "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
             *command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
        if check and result.returncode:
            raise Failed("%s: exit status %d\n%s%s" % (" ".join(command), result.returncode, result.stdout[-3000:],
                                                       result.stderr[-3000:]))
        return result

    def out(self, *command):
        return self.run(*command).stdout.strip()

    def run_as(self, user, *command, check=True):
        return self.run("runuser", "-u", user, "--", *command, check=check)

    def write(self, path, text):
        with open(self.tree + path, "w") as file:
            file.write(text)

    def show(self, unit, what):
        return self.out("systemctl", "show", "--value", "--property", what, unit)

    def journal(self, *match):
        lines = self.out("journalctl", "--quiet", "--no-pager", "--output=json", "--all", *match).splitlines()
        return [json.loads(line) for line in lines]

    def close(self):
        if self.leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.leader, signal.SIGKILL)
        else:
            self.nspawn.kill()
        self.nspawn.wait()


def eventually(what, condition, seconds=FOUND_S):
    """Waits for a condition; returns what it says when it says anything."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed("not within %d s: %s" % (seconds, what))
        time.sleep(0.2)


def expect(condition, text):
    if not condition:
        raise Failed(text)


class Service:
    """The steps, in their order: each goes on where the one before has ended."""

    def __init__(self, host):
        self.host = host

    def pid(self):
        return int(self.host.show("pyspyd.service", "MainPID"))

    def active(self):
        return self.host.show("pyspyd.service", "ActiveState") == "active"

    def start(self, unit, *command, user="root"):
        self.host.run("systemd-run", "--quiet", "--unit=" + unit, "--uid=" + user, *command)

    def start_stuck(self, unit, user="root"):
        self.start(unit, "python3", "/opt/test/deadlock_abba.py", user=user)

    def found(self, kind, unit):
        """The journal's entry about a unit's process, once it is there."""
        pid = self.host.show(unit + ".service", "MainPID")
        match = ["MESSAGE_ID=" + MESSAGE_IDS[kind], "PYSPYD_PID=" + pid, "PYSPYD_STATE=open"]
        return eventually("%s of %s in the journal" % (kind, unit), lambda: self.host.journal(*match))[-1]

    def install(self):
        self.host.run("dpkg", "-i", "/opt/test/pyspyd.deb")
        expect(self.active(), "the service does not run after the installation")
        expect(self.host.show("pyspyd.service", "Result") == "success", "the service did not start at once")
        for user, groups in (("alice", ""), ("bob", ""), ("carol", "pyspyd")):
            self.host.run("useradd", "--groups", groups, user)

    def privileges(self):
        with open("/proc/%d/root/proc/%d/status" % (self.host.leader, self.pid())) as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        uid = self.host.out("id", "-u", "pyspyd")
        expect(status["Uid"].split() == [uid] * 4, "it runs as uid " + status["Uid"])
        expect(status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", "no seccomp, or new privileges")
        expect(status["CapEff"] == status["CapPrm"] == status["CapBnd"], "more capabilities than it uses")
        level = self.host.run("systemd-analyze", "security", "--no-pager", "--threshold=25", "pyspyd.service",
                              check=False)
        expect(level.returncode == 0, "systemd-analyze security: " + level.stdout.strip().splitlines()[-1])
        print("capabilities %s; %s" % (status["CapEff"], level.stdout.strip().splitlines()[-1].strip()))

    def configure(self):
        folder = "/etc/pyspyd/pyspyd.conf.d/"
        self.host.write(folder + "test.conf", "[watch]\nno-such-key = 1\n")
        bad = self.host.run("pyspyd", "daemon", "--check-config", check=False)
        expect(bad.returncode == 2 and "test.conf:2:" in bad.stderr, "a bad configuration passes: %s" % bad.stderr)
        pid = self.pid()
        self.host.run("systemctl", "reload", "pyspyd", check=False)
        expect(self.pid() == pid and self.active(), "a bad configuration ends the service at a reload")
        self.host.write(folder + "test.conf", CONFIG)
        self.host.run("mkdir", "/etc/systemd/system/pyspyd.service.d")
        self.host.write("/etc/systemd/system/pyspyd.service.d/network.conf", NETWORK)
        self.host.write("/etc/rsyslog.d/received.conf", RSYSLOG)
        self.host.run("systemctl", "daemon-reload")
        self.host.run("systemctl", "restart", "rsyslog")
        self.host.run("pyspyd", "daemon", "--check-config")
        self.host.run("systemctl", "restart", "pyspyd")
        expect(self.active(), "it does not start with the test's configuration")

    def findings(self):
        self.start("spin", "python3", "/opt/test/spin.py", user="alice")
        self.start_stuck("stuck", user="bob")
        for kind, unit, user, function in (("deadlock", "stuck", "bob", "transfer"),
                                           ("spiking-thread", "spin", "alice", "burn")):
            entry = self.found(kind, unit)
            finding = json.loads(entry["PYSPYD_FINDING"])
            service_uid, uid = self.host.out("id", "-u", "pyspyd"), self.host.out("id", "-u", user)
            want = {"PYSPYD_KIND": kind, "PYSPYD_UNIT": unit + ".service", "PYSPYD_UID": uid, "_UID": service_uid,
                    "_SYSTEMD_UNIT": "pyspyd.service", "SYSLOG_IDENTIFIER": "pyspyd"}
            for name, value in want.items():
                expect(entry.get(name) == value, "%s: %s is %s, not %s" % (kind, name, entry.get(name), value))
            expect(entry["PRIORITY"] in "123456", "PRIORITY is " + entry["PRIORITY"])
            expect(function in entry["PYSPYD_STACK"], "%s: the stack lacks %s" % (kind, function))
            expect(finding["schema"] == "pyspyd.finding/1" and finding["kind"] == kind, "PYSPYD_FINDING is another")
            expect(finding["fingerprint"] == entry["PYSPYD_FINGERPRINT"], "two fingerprints")
        told = self.host.out("journalctl", "--no-pager", "-x", "MESSAGE_ID=" + MESSAGE_IDS["deadlock"])
        expect("wait for each other" in told, "journalctl -x does not explain a deadlock")
        expect(self.host.journal("PYSPYD_UNIT=stuck.service"), "PYSPYD_UNIT does not find the finding")

    def other_sinks(self):
        lines = eventually("the deadlock in the file", lambda: self.host.run(
            "grep", "-h", '"kind": *"deadlock"', "/var/log/pyspyd/findings.jsonl", check=False).stdout.splitlines())
        expect(all(json.loads(line)["schema"] == "pyspyd.finding/1" for line in lines), "the file's lines are others")
        line = eventually("the deadlock in rsyslog's file", lambda: self.host.run(
            "grep", "DEADLOCK", "/var/log/received", check=False).stdout).splitlines()[0]
        expect(re.match(r'pyspyd\|DEADLOCK\|[0-4]\|\[pyspyd@.* pid="\d+".*\]\|.*deadlock: ', line), "rsyslog got " + line)

    def metrics(self):
        text = self.host.out("python3", "-c", SCRAPE, "application/openmetrics-text; version=1.0.0")
        expect(text.endswith("\n# EOF"), "no OpenMetrics: " + text[-300:])
        expect(re.search(r'^pyspyd_findings_total\{.*kind="deadlock".*\} [1-9]', text, re.M), "no deadlock is counted")
        plain = self.host.run("python3", "-c", SCRAPE).stdout
        if shutil.which("promtool"):
            check = subprocess.run(["promtool", "check", "metrics"], input=plain, capture_output=True, text=True)
            expect(check.returncode == 0 and not check.stderr, "promtool: " + check.stderr)
        else:
            print("no promtool here: its opinion was not asked")
        if os.path.exists(self.host.tree + "/opt/test/prometheus"):
            self.scraped()

    def scraped(self):
        self.host.write("/opt/test/prometheus.yml", PROMETHEUS)
        self.start("prometheus", "/opt/test/prometheus", "--config.file=/opt/test/prometheus.yml",
                   "--storage.tsdb.path=/tmp/prometheus", "--web.listen-address=127.0.0.1:9090")
        eventually("Prometheus has the findings", lambda: self.host.run(
            "python3", "-c", SCRAPED, check=False).stdout.strip() not in ("", "0"))
        self.host.run("systemctl", "stop", "prometheus")
        print("Prometheus scrapes it")

    def seen_by(self, user):
        lines = self.host.run_as(user, "pyspyd", "findings", "--json").stdout.splitlines()
        return {json.loads(line)["process"]["uid"] for line in lines}

    def who_sees_what(self):
        uid = {user: int(self.host.out("id", "-u", user)) for user in ("alice", "bob")}
        for user, sees in (("alice", {uid["alice"]}), ("bob", {uid["bob"]}), ("nobody", set())):
            got = self.seen_by(user)
            expect(got == sees, "%s sees findings of uids %s" % (user, got))
        for user in ("root", "carol"):
            expect(self.seen_by(user) >= set(uid.values()), "%s does not see all" % user)

    def recorder(self):
        pid = self.host.show("spin.service", "MainPID")
        graph = eventually("a flame graph of the last minute", lambda: self.host.run_as(
            "alice", "pyspyd", "flamegraph", "--pid", pid, "--last", "1m", "--format", "collapsed", "-o", "-",
            check=False).stdout)
        expect(re.search(r"burn.* \d+$", graph, re.M), "the flame graph lacks burn")
        other = self.host.run_as("bob", "pyspyd", "flamegraph", "--pid", pid, "--last", "1m", "--format", "collapsed",
                                 "-o", "-", check=False)
        expect(other.returncode and "burn" not in other.stdout, "bob gets alice's flame graph")
        # What has ended is there still.
        self.host.run("systemctl", "stop", "spin")
        graph = self.host.out("pyspyd", "flamegraph", "--pid", pid, "--last", "5m", "--format", "collapsed", "-o", "-")
        expect("burn" in graph, "no flame graph of a process that has ended")

    def reload(self):
        pid = self.pid()
        self.start_stuck("reloaded")
        self.host.run("systemctl", "reload", "pyspyd")
        self.found("deadlock", "reloaded")
        self.reload_elsewhere()
        expect(self.pid() == pid, "a reload is a restart")

    def reload_with(self, text):
        self.host.write("/etc/pyspyd/pyspyd.conf.d/zz-moved.conf", text)
        self.host.run("systemctl", "reload", "pyspyd")

    def reload_elsewhere(self):
        """The store and the socket move, as far as the sandbox goes, and come back."""
        stuck = self.found("deadlock", "stuck")["PYSPYD_ID"]
        self.reload_with("[store]\npath = /var/lib/pyspyd/moved.db\n[socket]\npath = /run/pyspyd/moved.sock\n")
        told = eventually("findings at the other socket", lambda: self.host.run(
            "env", "PYSPYD_SOCKET=/run/pyspyd/moved.sock", "pyspyd", "findings", "--open", "--json",
            check=False).stdout)
        expect(stuck in told, "what was open is not, in the other store")
        self.start_stuck("moved")
        self.found("deadlock", "moved")
        self.reload_with("[store]\npath = /srv/pyspyd.db\n")
        eventually("what is not in force is said", lambda: self.host.show(
            "pyspyd.service", "StatusText").startswith("store.path is not in force: "))
        self.reload_with("")
        told = eventually("findings at the usual socket", lambda: self.host.run(
            "pyspyd", "findings", "--open", "--json", check=False).stdout)
        expect(stuck in told and "moved.service" in told, "findings stayed in the other store")
        eventually("all is in force", lambda: not self.host.show("pyspyd.service", "StatusText"))

    def restart(self):
        self.start_stuck("restarted")
        before = self.found("deadlock", "stuck")
        self.host.run("systemctl", "stop", "pyspyd")
        updates = len(self.host.journal("PYSPYD_ID=" + before["PYSPYD_ID"], "PYSPYD_STATE=update"))
        self.host.run("systemctl", "start", "pyspyd")
        self.found("deadlock", "restarted")
        # What was open goes on, and is neither over nor found a second time.
        eventually("what was open is found again", lambda: len(self.host.journal(
            "PYSPYD_ID=" + before["PYSPYD_ID"], "PYSPYD_STATE=update")) > updates)
        told = [json.loads(entry["PYSPYD_FINDING"]) for entry in self.host.journal("PYSPYD_UNIT=stuck.service")]
        deadlocks = [finding for finding in told if finding["kind"] == "deadlock"]
        expect({finding["id"] for finding in deadlocks} == {before["PYSPYD_ID"]}, "it has two ids")
        expect(len({finding["since"] for finding in deadlocks}) == 1, "it began twice")
        expect("resolved" not in {finding["state"] for finding in deadlocks}, "it is over, they say")

    def kill(self):
        for i in range(KILLS):
            unit, pid = "killed%d" % i, self.pid()
            self.start_stuck(unit)
            self.host.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "pyspyd")
            eventually("the service is back", lambda: self.active() and self.pid() not in (0, pid))
            self.found("deadlock", unit)
            target = self.host.show(unit + ".service", "MainPID")
            state = self.host.out("sh", "-c", "cut -d ' ' -f 3 /proc/%s/task/*/stat" % target)
            expect("T" not in state and "t" not in state, "a target is stopped: " + state)
            self.host.run("systemctl", "stop", unit)
            self.host.run("systemctl", "reset-failed", "pyspyd", check=False)

    def stored_core(self):
        """The service's sandbox lets it follow the journal, and read a core that only root may read."""
        self.host.write("/opt/test/fall.py", FALL)
        self.host.run("mkdir", "-p", CORES, "/opt/test/fallen")
        crashed = self.host.run("sh", "-c", "cd /opt/test/fallen && ulimit -c unlimited && python3 /opt/test/fall.py",
                                check=False)
        pid, time_us = int(crashed.stdout), time.time_ns() // 1000
        file = "%s/core.python3.0.%s.%d.%d" % (CORES, "0" * 32, pid, time_us)
        made = self.host.run("sh", "-c", "mv /opt/test/fallen/core* %s && chmod 600 %s" % (file, file), check=False)
        if made.returncode:
            print("no core is written here: an entry alone is told of")
            self.host.write(file, "")
        self.host.write("/opt/test/entry", COREDUMP % {"pid": pid, "time_us": time_us, "file": file})
        self.host.run("logger", "--journald=/opt/test/entry")

        def told():
            out = self.host.run("pyspyd", "findings", "--json", "--kind", "crash", "--pid", str(pid), check=False).stdout
            cores = [json.loads(line)["evidence"].get("core") or {} for line in out.splitlines()]
            return [core for core in cores if core.get("file") == file]

        core = eventually("a finding with the core", told)[0]
        if not made.returncode:
            expect(core["readable"] and (core.get("triage") or {}).get("cause") == "null-pointer", "the core: %s" % core)

    def rotate(self):
        self.host.run("logrotate", "--force", "/etc/logrotate.d/pyspyd")
        old = self.host.out("stat", "-c", "%U %a", "/var/log/pyspyd/findings.jsonl.1")
        expect(old == "pyspyd 640", "the turned file is " + old)
        self.start_stuck("rotated")
        eventually("a finding in the new file", lambda: self.host.run(
            "grep", "rotated.service", "/var/log/pyspyd/findings.jsonl", check=False).stdout)

    def nothing_lost(self):
        self.host.run("systemctl", "stop", "pyspyd")
        expect(self.host.show("pyspyd.service", "Result") == "success", "it does not stop as it should")
        stored = json.loads(self.host.out("python3", "-c", STORED))
        told = {int(entry["PYSPYD_SEQ"]) for entry in self.host.journal("SYSLOG_IDENTIFIER=pyspyd")
                if "PYSPYD_SEQ" in entry}
        expect(stored["seqs"], "nothing in the store")
        expect(not set(stored["seqs"]) - told, "in the store, not in the journal: %s" % sorted(
            set(stored["seqs"]) - told))
        expect(not any(stored["dropped"].values()), "sinks have dropped: %s" % stored["dropped"])
        print("events in the store %d, in the journal %d, dropped 0" % (len(stored["seqs"]), len(told)))

    def purge(self):
        self.host.run("systemctl", "start", "pyspyd")
        self.host.run("dpkg", "--purge", "pyspyd")
        expect(self.host.show("pyspyd.service", "LoadState") == "not-found", "the unit is still there")
        expect(not os.path.exists(self.host.tree + "/var/lib/pyspyd"), "the store is still there")
        ended = self.host.run("pgrep", "-x", "pyspyd", check=False)
        expect(ended.returncode == 1, "it still runs")

    steps = (install, privileges, configure, findings, other_sinks, metrics, who_sees_what, recorder, reload, restart,
             kill, stored_core, rotate, nothing_lost, purge)


def main(work):
    failures, start = 0, time.monotonic()
    try:
        host = Container(work)
    except Failed as reason:  # a host may forbid what a container of systemd needs
        print("%s\nno Debian tree boots here" % reason)
        return 77
    try:
        print("booted after %.1f s" % (time.monotonic() - start))
        host.write("/opt/test/spin.py", SPINNER)
        service = Service(host)
        for step in Service.steps:
            begun = time.monotonic()
            try:
                step(service)
                print("ok   %s (%.1f s)" % (step.__name__, time.monotonic() - begun), flush=True)
            except (Failed, KeyError, ValueError, OSError, subprocess.TimeoutExpired) as reason:
                failures += 1
                print("FAIL %s: %s" % (step.__name__, reason), flush=True)
                if step is Service.install:
                    break
        if failures:
            print(host.run("journalctl", "--no-pager", "--lines=60", "--unit=pyspyd", check=False).stdout)
            print(host.run("systemctl", "status", "--no-pager", "pyspyd", check=False).stdout)
    finally:
        host.close()
    print("%d steps, %d failed, %.0f s" % (len(Service.steps), failures, time.monotonic() - start))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
