#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Findings about threads that sleep, and `waits --native`, show native frames around Python's, and a gil-hog's C function
is named; nobody is stopped for it.

    native_findings.py [PATTERN...]    only interpreters whose names match"""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from live import HERE, PYSPYD, Checks, Target, interpreters, pyspyd, skip

WAITS = os.path.join(HERE, "../scenarios/waits")


def watch(pid, kind, *options):
    """The first finding of the kind, as JSON, and as text."""
    argv = [PYSPYD, "watch", "--pid", str(pid), "--json", "--duration", "60", "--exit-on", kind] + list(options)
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=90)
    for line in done.stdout.decode().splitlines():
        event = json.loads(line)
        if event.get("schema") == "pyspyd.finding/1" and event["kind"] == kind:
            return event
    return None


def kinds(thread):
    return [frame["lang"] for frame in thread["stack"]]


def check(checks, name, command, scenario, kind, *options):
    with open(os.path.join(WAITS, scenario + ".py")) as f:
        program = f.read()
    with Target(command, program) as target:
        target.ready()
        finding = watch(target.pid, kind, *options)
    what = "%s, %s" % (name, kind)
    if not checks.that(finding is not None, "%s: not found" % what):
        return None
    for thread in finding["threads"]:
        text = "%s: %s %s" % (what, thread["name"], [f["function"] for f in thread["stack"]])
        checks.that("native" in kinds(thread), text)
        checks.that("python" in kinds(thread) or thread["interpreter"] is None, text)
        checks.that(thread.get("native", {}).get("stopped_us") == 0, "stopped: " + text)
        checks.that(not [f for f in thread["stack"] if f.get("doubt") == "unmatched"], "unmatched: " + text)
    return finding


def check_waits(checks, name, command):
    """All three threads of the deadlock sleep: each has both kinds of frames, and its site is still the program's."""
    with open(os.path.join(WAITS, "deadlock_abba.py")) as f:
        program = f.read()
    with Target(command, program) as target:
        target.ready_and_resting()
        status, out, err = pyspyd("waits", "--native", "--json", target.pid)
        _, text, _ = pyspyd("waits", "--native", target.pid)
    if not checks.that(status == 0, "%s: waits --native: %s" % (name, err)):
        return
    checks.that(json.loads(out)["knots"], "%s: waits --native: no circle" % name)
    threads = [t for t in json.loads(out)["threads"] if t["kind"] == "thread"]
    checks.that(len(threads) == 3, "%s: %d threads" % (name, len(threads)))
    for thread in threads:
        what = "%s, waits: %s %s" % (name, thread["name"], [f["function"] for f in thread["stack"]])
        native = thread.get("native", {})
        checks.that(native.get("complete") and native.get("agrees") and native.get("stopped_us") == 0,
                    "%s %s" % (what, native))
        checks.that(set(kinds(thread)) >= {"native", "python"}, what)
        checks.that(thread["site"] is not None and thread["stack"][thread["site"]]["lang"] == "python",
                    "site %s: %s" % (thread["site"], what))
    lines = [line for line in text.splitlines() if line.startswith(("|", " ")) and line.endswith("]")]
    checks.that(len(lines) >= 9, "%s: native frames in the text: %s" % (name, lines))


if os.geteuid() != 0:
    skip("needs root: reads registers of others' threads")
CHECKS = Checks()
for found, version, start in interpreters("3.11.2-system 3.8* 3.14.10-sid"):
    if version < (3, 8):
        continue
    check(CHECKS, found, start, "deadlock_abba", "deadlock")
    check_waits(CHECKS, found, start)
    check(CHECKS, found, start, "hang_native_workers", "hang", "--hang-after", "3")
    hog = check(CHECKS, found, start, "gil_hog_native", "gil-hog")
    if hog:
        call = hog["evidence"]["native_call"]
        CHECKS.that(call and ("sleep" in call) and call in hog["summary"], "%s: %s" % (found, hog["summary"]))
CHECKS.end()
