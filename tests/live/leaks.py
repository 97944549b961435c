# SPDX-License-Identifier: MIT
"""Programs that leak descriptors, threads and children, and programs that do the same work and do not, under one watch
with a window of ten seconds.

The healthy ones are watched for as long as the leaks take to be found, and for as long again: silence means something.
What a program's head says is what is expected (see tests/scenarios/run)."""

import json
import os
import re
import select
import subprocess
import sys
import time

import live

SCENARIOS = os.path.join(live.HERE, "../scenarios/leaks")
NAMES = ["leaking_files", "churning_files", "leaking_threads", "churning_threads", "zombies", "churning_children"]
KINDS = {"handle-leak", "thread-leak", "process-leak"}
FOUND_S = 150  # at most; it takes 20
OPTIONS = ["--interval", "200ms", "--leak-window", "10s"]


class Scenario:
    def __init__(self, name):
        self.name = name
        path = os.path.join(SCENARIOS, name + ".py")
        with open(path) as f:
            text = f.read()
        self.expect = re.search(r"^# expect: (.*)$", text, re.M).group(1)
        self.says = re.findall(r"^# says: (.*)$", text, re.M)
        # In the command line, so that one watch by name has them all.
        self.process = subprocess.Popen([sys.executable, "-u", path, tag()], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE)
        self.findings = []

    def ready(self):
        if not select.select([self.process.stdout], [], [], live.READY_S)[0] or not self.process.stdout.readline():
            raise RuntimeError("%s did not get ready" % self.name)

    def end(self):
        self.process.kill()
        self.process.wait()


def tag():
    return "leaks-%d" % os.getpid()


def lines(watcher, until):
    """Findings as they come, until the watch ends or the time is over."""
    buffered = b""
    while time.monotonic() < until():
        if not select.select([watcher.stdout], [], [], 0.5)[0]:
            continue
        data = os.read(watcher.stdout.fileno(), 65536)
        if not data:
            return
        buffered += data
        *whole, buffered = buffered.split(b"\n")
        for line in whole:
            yield json.loads(line.decode())


def watch(scenarios):
    """Fills the scenarios' findings. Return: seconds until every leak was found."""
    watcher = subprocess.Popen([live.PYSPYD, "watch", "--json", "--name", tag()] + OPTIONS, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE)
    start = time.monotonic()
    end = start + FOUND_S
    took = None
    by_pid = {scenario.process.pid: scenario for scenario in scenarios}
    leaking = [scenario for scenario in scenarios if scenario.expect != "none"]
    try:
        for finding in lines(watcher, lambda: end):
            scenario = by_pid.get(finding["process"]["pid"])
            if scenario and finding["kind"] in KINDS:
                scenario.findings.append(finding)
            if took is None and all(scenario.findings for scenario in leaking):
                took = time.monotonic() - start
                end = start + 2 * took
    finally:
        watcher.terminate()
        watcher.wait()
        watcher.stdout.close()
    return took


def main():
    checks = live.Checks()
    scenarios = [Scenario(name) for name in NAMES]
    try:
        for scenario in scenarios:
            scenario.ready()
        took = watch(scenarios)
    finally:
        for scenario in scenarios:
            scenario.end()
    live.note("every leak found after %s s" % ("%.0f" % took if took else "?"))
    for scenario in scenarios:
        kinds = {finding["kind"] for finding in scenario.findings}
        expected = set() if scenario.expect == "none" else {scenario.expect}
        checks.that(kinds == expected, "%s: %s found, not %s" % (scenario.name, kinds or "nothing",
                                                                 expected or "nothing"))
        for finding in scenario.findings[:1]:
            live.note("%s: %s" % (scenario.name, finding["summary"]))
            checks.that(finding["evidence"]["certainty"] == "inferred", "%s: certainty" % scenario.name)
            for word in scenario.says:
                checks.that(word in finding["summary"], "%s: does not say %s" % (scenario.name, word))
    checks.end()


main()
