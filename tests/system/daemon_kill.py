# SPDX-License-Identifier: MIT
"""SIGKILL of the service in the middle of its work.

Python processes are stopped and continued all the time, which are findings that open and are resolved. The service is
killed at any moment and started again. What it has acknowledged, to a client of its socket or by a line in its file, is in
the store afterwards; everything in the store reaches the file in the end, in order; numbers are never used again; no
process stays stopped that was not stopped by us.

Some are stopped all the time: their findings keep their ids and beginnings over all kills. Of two of those one ends, and
one goes on, while no service is there: that is noticed at the next start. `pyspyd findings --follow` runs all the time,
and writes each event once."""

import datetime
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

import running
from running import Follower, Service, await_state, key, lines, live, stored

TARGETS = 8
STAYING = 4
CONF = """
[watch]
interval = 200ms
cpu-budget = 20%%
stopped.after = 1s
[store]
path = %(dir)s/pyspyd.db
[journal]
enabled = no
[file]
enabled = yes
path = %(dir)s/findings.jsonl
[sinks]
rate = 1000
burst = 10000
[socket]
path = %(dir)s/sock
[rule ours]
match-cmdline = time.sleep.0.5
[rule others]
match-cmdline = .
exclude = yes
"""


def check_reader_gone(checks, folder):
    """Nothing happens, and still the command sees that nobody reads it any more."""
    follower = subprocess.Popen([live.PYSPYD, "findings", "--follow", "--json"], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, env={**os.environ, "PYSPYD_SOCKET": folder + "/sock"})
    follower.stdout.readline()
    follower.stdout.close()
    checks.that(follower.wait(running.SETTLE_S) == -signal.SIGPIPE, "a follower without a reader ends with %d" % follower.returncode)


def state(pid):
    with open("/proc/%d/stat" % pid) as f:
        return f.read().rsplit(")", 1)[1].split()[0]


def disturb(targets, stop):
    """Stops and continues them, each for longer than it takes to be found."""
    chance = random.Random(1)
    while not stop.is_set():
        chosen = chance.sample(targets, 3)
        for target in chosen:
            target.send_signal(signal.SIGSTOP)
        stop.wait(chance.uniform(1.2, 2.5))
        for target in chosen:
            target.send_signal(signal.SIGCONT)
        stop.wait(0.3)


def check_staying(checks, folder, staying):
    """Each has one finding, with one beginning, that is open until its end."""
    told = {}
    for line in lines(folder):
        finding = json.loads(line)
        if finding["process"]["pid"] in staying and finding["kind"] == "stopped":
            told.setdefault(finding["process"]["pid"], {})[key(finding)] = finding
    for pid, ended in staying.items():
        findings = list(told[pid].values())
        states = [finding["state"] for finding in findings]
        checks.that(len({finding["id"] for finding in findings}) == 1, "process %d has several findings" % pid)
        checks.that(len({finding["since"] for finding in findings}) == 1, "the finding of %d began twice" % pid)
        checks.that(states[0] == "open" and states[-1] == "resolved" and set(states[1:-1]) <= {"update"},
                    "the finding of %d is %s" % (pid, states))
        checks.that(findings[-1]["evidence"]["ended"] == ended, "the finding of %d ended by %s, not %s" % (
            pid, findings[-1]["evidence"]["ended"], ended))
        if ended == "continued":
            checks.that("update" in states, "no start goes on with the finding of %d" % pid)


def main():
    kills = int(sys.argv[1])
    checks = live.Checks()
    sleeper = [sys.executable, "-c", "import time\nprint(flush=True)\nwhile True: time.sleep(0.5)"]
    targets = [subprocess.Popen(sleeper, stdout=subprocess.PIPE) for _ in range(TARGETS)]
    staying = [subprocess.Popen(sleeper, stdout=subprocess.PIPE) for _ in range(STAYING)]
    for target in targets + staying:
        target.stdout.readline()
    stop = threading.Event()
    disturber = threading.Thread(target=disturb, args=(targets, stop))
    acknowledged, chance = [], random.Random(2)
    try:
        with tempfile.TemporaryDirectory(prefix="daemon-kill-") as folder:
            with open(folder + "/conf", "w") as f:
                f.write(CONF % {"dir": folder})
            service = Service(folder)
            follower = Follower(folder)
            for target in staying:
                target.send_signal(signal.SIGSTOP)
            await_state(folder, [target.pid for target in staying], {"open"})
            disturber.start()
            for i in range(kills):
                follower.await_service()  # it says at each kill that the service is away
                time.sleep(chance.uniform(0.5, 4.0))
                acknowledged += service.kill()
                if i == kills // 2:
                    staying[0].kill()
                    staying[0].wait()
                    staying[1].send_signal(signal.SIGCONT)
                started = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
                service.start()
            await_state(folder, [target.pid for target in staying[2:]], {"update"}, started)
            stop.set()
            disturber.join()
            # Last, so that a look that finds them so is one that finds all of them so.
            for target in staying[2:]:
                target.send_signal(signal.SIGCONT)
            await_state(folder, [target.pid for target in targets + staying], {"resolved", None})
            kept = stored(folder)
            end = time.monotonic() + running.SETTLE_S
            written = []
            while time.monotonic() < end and not set(kept) <= set(written):
                written = []
                for line in lines(folder):
                    checks.that(line.endswith(b"}"), "a line is cut: %r" % line[-80:])
                    written.append(key(json.loads(line)))
                time.sleep(0.2)
            check_reader_gone(checks, folder)
            checks.that(service.end() == 0, "the service ends with 0")
            status, said = follower.interrupt()
            checks.that(status == 0, "the follower ends with %d" % status)
            checks.that(said.count("waiting") == kills + 1, "the follower says: %s" % said)
            checks.that(follower.seen == kept, "the follower saw %d events, twice %d, not %s" % (
                len(follower.seen), len(follower.seen) - len(set(follower.seen)),
                sorted(set(kept) - set(follower.seen))[:3]))
            check_staying(checks, folder, dict(zip([target.pid for target in staying], [
                "process-ended", "not-found-again", "continued", "continued"])))
            checks.that(len(kept) >= kills, "only %d events were stored" % len(kept))
            checks.that(len(set(kept)) == len(kept), "an event is stored twice")
            lost = set(acknowledged) - set(kept)
            checks.that(not lost, "%d events were acknowledged and are not stored: %s" % (len(lost), sorted(lost)[:3]))
            lost = set(written) - set(kept)
            checks.that(not lost, "%d events are in the file and not in the store" % len(lost))
            lost = set(kept) - set(written)
            checks.that(not lost, "%d events never reached the file" % len(lost))
            first = list(dict.fromkeys(written))
            checks.that(first == kept, "the file is not in the order of the store")
            live.note("%d kills, %d events stored, %d acknowledged to clients, %d lines in the file" % (
                kills, len(kept), len(acknowledged), len(written)))
        for target in targets:
            checks.that(state(target.pid) != "T", "process %d is stopped" % target.pid)
    finally:
        stop.set()
        for target in targets + staying:
            target.kill()
            target.wait()
    checks.end()


main()
