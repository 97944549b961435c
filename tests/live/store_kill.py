# SPDX-License-Identifier: MIT
"""SIGKILL of a process that writes into a store: what was acknowledged is there, no number is given twice, the file opens
without a word, and SQLite finds it sound.

Killed from outside at random moments, and by itself in the middle of each of the first changes of a file: of a new store,
of one that is at its limit, where old events go, and of a damaged one that is being set aside."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time

import live

DRIVER = os.path.join(live.BUILD, "tests/live/store_driver")
KILLS = int(os.environ.get("STORE_KILLS") or 120)
CHANGES = 120
LIMIT = 1 << 20
LIMIT_KILLS = 100
RESCUE_CHANGES = 200

checks = live.Checks()


def events_of(text):
    """{number: id} of whole lines; a writer that is killed may leave half a one."""
    lines = text.split("\n")[:-1]
    return {int(line.split()[1]): line.split()[2] for line in lines if line.startswith("event ")}


class Store:
    """One file, and what was acknowledged of it."""

    def __init__(self, folder, limit=0):
        self.path = os.path.join(folder, "a.db")
        self.limit = limit
        self.acknowledged = {}
        self.run = 0

    def start(self, die_at):
        self.run += 1
        return subprocess.Popen([DRIVER, "work", self.path, "run%d" % self.run, str(die_at), str(self.limit)],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def take(self, out, err, what):
        checks.that(not err and "note" not in out, "%s: %s" % (what, err or out))
        new = events_of(out)
        last = max(self.acknowledged, default=0)
        checks.that(all(seq > last for seq in new), "%s: a number was given again" % what)
        self.acknowledged.update(new)

    def list(self, what):
        done = subprocess.run([DRIVER, "list", self.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=live.COMMAND_S)
        checks.that(done.returncode == 0 and "note" not in done.stdout,
                    "%s: does not open well: %s%s" % (what, done.stdout[:200], done.stderr))
        return done.stdout

    def check(self, what):
        text = self.list(what)
        there = events_of(text)
        first = min(there, default=0) if self.limit else 0
        for seq, name in self.acknowledged.items():
            if seq >= first:
                checks.that(there.get(seq) == name, "%s: event %d %s is lost: %s" % (what, seq, name, there.get(seq)))
        unknown = [seq for seq in there if seq not in self.acknowledged]
        # The one that was under way may have come in; it is known from now on.
        checks.that(len(unknown) <= 1, "%s: %s were not acknowledged" % (what, unknown))
        self.acknowledged.update(there)
        self.check_sound(text, what)

    def check_sound(self, text, what):
        numbers = dict(line.split(" ", 1) for line in text.splitlines() if not line.startswith("event "))
        db = sqlite3.connect(self.path)
        checks.that(db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], what + ": not sound")
        for table in "events", "counters", "profiles":
            n = db.execute("SELECT count(*) FROM " + table).fetchone()[0]
            checks.that(int(numbers[table]) == n, "%s: %s %s, counted %d" % (what, numbers[table], table, n))
        db.close()


def kill_from_outside(store, rng):
    """Returns whether it was killed while it worked."""
    writer = store.start(0)
    out = "".join(writer.stdout.readline() for _ in range(rng.choice((0, 0, 1, 2, 5, 20, 60))))
    time.sleep(rng.random() * 0.02)  # the moment, not time to get ready
    writer.send_signal(signal.SIGKILL)
    out += writer.stdout.read()  # not communicate(), which knows nothing of lines that were read ahead
    err = writer.stderr.read()
    writer.wait()
    store.take(out, err, "run %d" % store.run)
    return checks.that(writer.returncode == -signal.SIGKILL, "run %d ended by itself: %d" % (store.run, writer.returncode))


def random_moments(folder, seed):
    rng = random.Random(seed)
    store = Store(folder)
    for _ in range(KILLS):
        kill_from_outside(store, rng)
        store.check("run %d" % store.run)
    live.note("%d kills at random moments (seed %d): %d events" % (KILLS, seed, len(store.acknowledged)))
    checks.that(len(store.acknowledged) > KILLS, "hardly anything was written")


def kill_inside(store, die_at):
    writer = store.start(die_at)
    out, err = writer.communicate(timeout=live.COMMAND_S)
    what = "change %d of run %d" % (die_at, store.run)
    store.take(out, err, what)
    checks.that(writer.returncode == -signal.SIGKILL, "%s: ended by itself: %d" % (what, writer.returncode))
    store.check(what)


def each_change():
    """Twice on each file: the second one finds what the first one left."""
    for die_at in range(1, CHANGES + 1):
        with tempfile.TemporaryDirectory() as folder:
            store = Store(folder)
            kill_inside(store, die_at)
            kill_inside(store, die_at)
    live.note("%d kills in the middle of a change of a file" % (2 * CHANGES))


def at_the_limit(seed):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder, LIMIT)
        for _ in range(LIMIT_KILLS):
            kill_inside(store, rng.randrange(1, 300))
        there = events_of(store.list("the end"))
        checks.that(0 < len(there) < len(store.acknowledged), "the limit was not met")
        size = os.path.getsize(store.path)
        checks.that(size <= LIMIT, "the file has %d bytes" % size)
        live.note("%d kills at the limit: %d events, %d left" % (LIMIT_KILLS, len(store.acknowledged), len(there)))


def while_set_aside():
    """A file that opens as damaged, and whose events can all be read."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        out, err = store.start(1 << 30).communicate(timeout=live.COMMAND_S)
        store.take(out, err, "a whole run")
        db = sqlite3.connect(store.path)
        db.execute("DELETE FROM state")
        db.commit()
        db.close()
        damaged = store.path
        kills = sum(kill_while_set_aside(damaged, store.acknowledged, die_at) for die_at in range(1, RESCUE_CHANGES + 1))
    checks.that(kills == RESCUE_CHANGES, "only %d kills while a file is set aside" % kills)
    live.note("%d kills while a damaged file is set aside" % kills)


def kill_while_set_aside(damaged, acknowledged, die_at):
    what = "change %d of a rescue" % die_at
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        shutil.copy(damaged, store.path)
        writer = store.start(die_at)
        new = events_of(writer.communicate(timeout=live.COMMAND_S)[0])
        checks.that(all(seq > max(acknowledged) for seq in new), what + ": a number was given again")
        done = subprocess.run([DRIVER, "list", store.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        there = events_of(done.stdout)
        for seq, name in {**acknowledged, **new}.items():
            checks.that(there.get(seq) == name, "%s: event %d is lost %s" % (what, seq, done.stderr))
        store.check_sound(done.stdout, what)
        checks.that(any(".damaged-" in name for name in os.listdir(folder)), what + ": it was not kept")
        checks.that("a.db.rescue" not in os.listdir(folder), what + ": was not finished")
        return writer.returncode == -signal.SIGKILL


def main():
    if not os.access(DRIVER, os.X_OK):
        live.skip("no " + DRIVER)
    seed = int(os.environ.get("STORE_SEED") or random.randrange(1 << 32))
    with tempfile.TemporaryDirectory() as folder:
        random_moments(folder, seed)
    each_change()
    at_the_limit(seed)
    while_set_aside()
    checks.end()


main()
