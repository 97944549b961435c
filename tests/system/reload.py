# SPDX-License-Identifier: MIT
"""SIGHUP changes all of the configuration: where the store is and how much it keeps, where the socket is, whether there
is a recorder. Findings that are open stay open, those who follow them go on over it, and no event is lost or told twice.
What cannot be changed is told by its key, and the old one stays in use."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time

from running import Client, Follower, Service, SETTLE_S, ask, await_state, key, lines, live

CONF = """
[watch]
interval = 200ms
cpu-budget = 20%%
stopped.after = 1s
[recorder]
enabled = %(recorder)s
bucket = 1s
[store]
path = %(store)s
max-size = %(size)s
[journal]
enabled = no
[file]
enabled = yes
path = %(file)s
[sinks]
rate = 1000
burst = 10000
[socket]
path = %(socket)s
[metrics]
enabled = %(metrics)s
listen = %(listen)s
[crash]
systemd-coredump = %(cores)s
[rule ours]
match-cmdline = time.sleep.0.05
[rule others]
match-cmdline = .
exclude = yes
"""
SLEEPER = [sys.executable, "-c", "import time\nwhile True: time.sleep(0.05)"]


def until(what, condition):
    end = time.monotonic() + SETTLE_S
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise SystemExit("never: " + what)


class Test:
    def __init__(self, folder, checks):
        self.folder, self.checks = folder, checks
        os.mkdir(folder + "/second")
        self.values = {"recorder": "yes", "store": folder + "/pyspyd.db", "size": "512M",
                       "file": folder + "/findings.jsonl", "socket": folder + "/sock", "metrics": "no", "cores": "no",
                       "listen": folder + "/metrics"}
        self.write()
        self.service = Service(folder)
        self.socket = self.values["socket"]
        self.targets = []

    def write(self):
        with open(self.folder + "/conf", "w") as conf:
            conf.write(CONF % self.values)

    def status(self):
        return next(ask(self.socket, {"request": "status"}))["status"]

    def reload(self, **values):
        """Return: what is not in force then, by key."""
        before = self.status()["config"]["read_ns"]
        self.values.update(values)
        self.write()
        self.service.process.send_signal(signal.SIGHUP)

        def read_again():
            with contextlib.suppress(OSError, EOFError):
                if not os.path.exists(self.socket):
                    self.socket = self.values["socket"]
                status = self.status()
                return status if status["config"]["read_ns"] != before else None
        status = until("a reload", read_again)
        failed = {one["key"]: one["reason"] for one in status["config"]["not_in_force"]}
        if "socket.path" not in failed:
            self.socket = self.values["socket"]
        return failed

    def stop_one(self):
        """A finding opens. Return: it."""
        target = subprocess.Popen(SLEEPER)
        self.targets.append(target)
        # A process is watched once it is Python; one that was stopped before that would never be.
        until("a process is watched", lambda: any(
            answer["process"]["pid"] == target.pid and answer["process"]["watched"]
            for answer in ask(self.socket, {"request": "processes"})))
        target.send_signal(signal.SIGSTOP)
        return until("a finding", lambda: self.about(target.pid))[0]

    def about(self, pid):
        return [answer["event"] for answer in ask(self.socket, {"request": "findings", "pid": pid})]

    def stored(self):
        return [key(answer["event"]) for answer in ask(self.socket, {"request": "findings"})]

    def refuses(self, what, **values):
        """These are not taken; all goes on as it was."""
        old = {name: self.values[name] for name in values}
        failed = self.reload(**values)
        self.checks.that(list(failed) == [what], "%s: %s" % (values, failed))
        self.checks.that("old one stays" in failed.get(what, ""), "%s: %s" % (what, failed))
        self.stop_one()
        failed = self.reload(**old)
        self.checks.that(not failed, "nothing is wrong any more, but %s" % failed)

    def moves_the_store(self, path, first):
        events = self.stored()
        profiles = self.status()["store"]["profiles"]
        failed = self.reload(store=path)
        self.checks.that(not failed, "the store does not move to %s: %s" % (path, failed))
        self.checks.that(os.path.exists(path), "there is no " + path)
        self.checks.that(self.stored()[:len(events)] == events, "events stay behind")
        self.checks.that(self.status()["store"]["profiles"] >= profiles, "profiles stay behind")
        self.stop_one()
        again = self.about(first["process"]["pid"])
        self.checks.that({one["id"] for one in again} == {first["id"]} and again[-1]["state"] != "resolved",
                         "what was open is not open any more")

    def moves_the_socket(self):
        old, self.values["socket"] = self.socket, self.folder + "/second/sock"
        failed = self.reload()
        self.checks.that(not failed, "the socket does not move: %s" % failed)
        self.checks.that(self.socket == self.values["socket"] and not os.path.exists(old), "the old socket is still there")
        self.checks.that(os.stat(self.socket).st_mode & 0o777 == 0o666, "not everybody may connect")

    def records(self):
        """Profiles come, do not come, and come again."""
        def profiles():
            return self.status()["store"]["profiles"]
        count = profiles()
        until("a profile", lambda: profiles() > count)
        self.reload(recorder="no")
        self.stop_one()  # takes more than a bucket, so that what was under way has come
        count = profiles()
        self.stop_one()
        self.checks.that(profiles() == count, "without a recorder %d profiles come" % (profiles() - count))
        self.reload(recorder="yes")
        until("a profile again", lambda: profiles() > count)

    def sink_that_is_away(self):
        """That is no fault of the configuration: what it should get waits for it."""
        file = self.values["file"]
        failed = self.reload(file=self.folder + "/nowhere/findings")
        self.checks.that(not failed, "a sink that is away: %s" % failed)
        self.stop_one()
        until("the sink is away", lambda: any(sink["away"] for sink in self.status()["sinks"]))
        self.reload(file=file)

    def run(self):
        first = self.stop_one()
        follower, client = Follower(self.folder), Client(self.folder, follow=True)
        until("they follow", lambda: client.seen and follower.seen)
        self.moves_the_store(self.folder + "/second/db", first)
        self.moves_the_socket()
        self.records()
        self.moves_the_store(self.folder + "/pyspyd.db", first)

        self.refuses("store.path", store=self.folder + "/nowhere/db")
        self.sink_that_is_away()
        with socket.socket(socket.AF_UNIX) as busy:
            busy.bind(self.folder + "/busy")
            busy.listen()
            self.refuses("socket.path", socket=self.folder + "/busy")
        self.refuses("metrics.enabled", metrics="yes", listen=self.folder + "/nowhere/metrics")
        self.reload(metrics="yes")
        self.refuses("metrics.listen", listen=self.folder + "/nowhere/metrics")
        self.checks.that(os.path.exists(self.folder + "/metrics"), "the metrics are gone")
        failed = self.reload(cores="yes")
        self.checks.that(list(failed) == ["crash.systemd-coredump"], "a reader of cores that was not made: %s" % failed)
        self.checks.that(not self.reload(cores="no"), "nothing is to be read")
        failed = self.reload(size="1")
        self.checks.that(list(failed) == ["configuration"], "a bad value: %s" % failed)
        self.checks.that(not self.reload(size="4M"), "a good value is taken")

        for target in self.targets:
            target.send_signal(signal.SIGCONT)
        await_state(self.folder, [target.pid for target in self.targets], {"resolved"})
        kept = self.stored()
        self.checks.that(len(set(kept)) == len(kept), "an event is stored twice")
        for target in self.targets:
            told = self.about(target.pid)
            self.checks.that(len({one["id"] for one in told}) == 1 and told[-1]["state"] == "resolved",
                             "process %d: %s" % (target.pid, [(one["id"], one["state"]) for one in told]))
        until("all events with the followers", lambda: len(follower.seen) >= len(kept) and len(client.seen) >= len(kept))
        self.checks.that(client.seen == kept, "the client saw other events than there are")
        self.checks.that(self.service.end() == 0, "the service ends with 0")
        follower.interrupt()
        self.checks.that(follower.seen == kept, "the command saw other events than there are")
        self.check_files(kept)

    def check_files(self, kept):
        written = list(dict.fromkeys(key(json.loads(line)) for line in lines(self.folder)))
        self.checks.that(written == kept, "the file has other events than there are")
        with contextlib.closing(sqlite3.connect(self.folder + "/pyspyd.db")) as db:
            self.checks.that(db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the store is damaged")
            numbers = [row[0] for row in db.execute("SELECT seq FROM events ORDER BY seq")]
        self.checks.that(numbers == list(range(1, len(kept) + 1)), "numbers of events are %s" % numbers)
        live.note("%d events over all changes" % len(kept))


def main():
    checks = live.Checks()
    with tempfile.TemporaryDirectory(prefix="reload-") as folder:
        test = Test(folder, checks)
        try:
            test.run()
        except BaseException:
            with open(folder + "/log") as log:
                print(log.read()[-3000:])
            raise
        finally:
            test.service.process.kill()
            test.service.process.wait()
            for target in test.targets:
                target.kill()
                target.wait()
    checks.end()


main()
