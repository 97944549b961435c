# SPDX-License-Identifier: MIT
"""What the runners of scenarios share: programs with tags in their heads, the interpreters that they run on, a watch over
them, and what came of it.

A program prints "ready" when it is where it should be; it is killed with its process group. Tags in its head,
`# NAME: VALUE`, of which each runner adds some:

  expect     the finding's kind, several with `|` where any of them is right; `none`: healthy
  also       kinds that may be found besides
  says       words that stand in the summary or the evidence (`a|b`: one of them); may be repeated
  certainty  proven or inferred
  versions   3.9-, -3.11, 3.8-3.12; several: one of them
  needs      gil (not on free-threaded builds), pty, semaphores (of processes: before 2.34 the C library has them only
             where /dev/shm is mounted), program:NAME (in PATH), or a module's name"""

import collections
import contextlib
import fnmatch
import glob
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.abspath(os.path.join(HERE, "../.."))
BUILD = os.path.abspath(os.environ.get("BUILD") or os.path.join(TOP, "build"))
PYSPYD = os.environ.get("PYSPYD") or os.path.join(BUILD, "pyspyd")
TAGS = {"expect", "also", "threads", "holder", "says", "certainty", "versions", "option", "needs"}
READY_S = 60
OUTCOMES = ("found", "missed", "wrong", "false", "quiet", "broken", "skipped", "ok")
BAD = ("missed", "wrong", "false", "broken")


def words(text):
    return [word.strip() for word in text.split(",") if word.strip()]


class Scenario:
    def __init__(self, path, kinds):
        self.name = os.path.splitext(os.path.basename(path))[0]
        with open(path) as f:
            self.text = f.read()
        tags = collections.defaultdict(list)
        for line in self.text.splitlines()[1:]:
            match = re.match(r"# ([a-z]+): (.*)", line)
            if not match:
                break
            if match.group(1) not in TAGS:
                raise SystemExit("%s: no such tag: %s" % (path, match.group(1)))
            tags[match.group(1)].append(match.group(2).strip())
        only = {tag: values[0] for tag, values in tags.items()}
        self.expect = set(only.get("expect", "").split("|"))
        self.healthy = self.expect == {"none"}
        if not self.expect <= kinds and not self.healthy:
            raise SystemExit("%s: expects %s, which is no kind of finding" % (path, only.get("expect")))
        self.also = set(words(only.get("also", "")))
        self.threads = words(only.get("threads", ""))
        self.holder = only.get("holder")
        self.says = [text.split("|") for text in tags["says"]]
        self.certainty = only.get("certainty")
        self.versions = only.get("versions")
        self.options = [word for text in tags["option"] for word in shlex.split(text)]
        self.needs = words(only.get("needs", ""))

    def unsaid(self, finding):
        """What the finding should say and does not."""
        evidence = finding.get("evidence") or {}
        said = finding.get("summary", "") + "\n" + json.dumps(evidence, ensure_ascii=False)
        unsaid = ["does not say " + " or ".join(texts) for texts in self.says
                  if not any(text in said for text in texts)]
        if self.certainty and evidence.get("certainty") != self.certainty:
            unsaid.append("certainty: %s, not %s" % (evidence.get("certainty"), self.certainty))
        return unsaid

    def runs_on(self, version):
        return not self.versions or any(lies_in(span, version) for span in words(self.versions))


def lies_in(span, version):
    first, _, last = span.partition("-")
    return (not first or number(first) <= version) and (not last or version <= number(last))


def number(text):
    return tuple(int(part) for part in text.split(".")[:2])


class Interpreter:
    """One line of tools/interpreters. `needs` that it cannot meet are asked for once."""

    def __init__(self, name, command):
        self.name = name
        self.command = command
        first = name.split("-")[0]
        self.free_threaded = first.endswith("t")
        self.version = number(first.rstrip("t"))
        self.root = command[1] if command[0] == "chroot" else "/"

    def lacks(self, needs):
        """Those of `needs` that there are not."""
        missing = {"gil"} & needs if self.free_threaded else set()
        probe = "import os, shutil\n"
        for need in sorted(needs - {"gil"}):
            action = "import " + need
            if need == "pty":
                action = "os.openpty()"
            elif need == "semaphores":
                action = "import _multiprocessing; _multiprocessing.SemLock(1, 1, 1, '/needs-%d' % os.getpid(), True)"
            elif need.startswith("program:"):
                action = "os.stat(shutil.which(%r))" % need.split(":")[1]
            probe += "try:\n %s\nexcept Exception:\n print(%r)\n" % (action, need)
        done = subprocess.run(self.command + ["-c", probe], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=READY_S)
        return missing | set(done.stdout.decode().split())


class Broken(Exception):
    """A program did not get ready, or did not stay."""


class Program:
    """A scenario's process, killed with its group at the end of a `with`. `mark` stands in its command line and in
    those of children that it forks. Its temporary files are removed."""

    def __init__(self, interpreter, scenario, mark):
        self.scenario = scenario
        self.folder = tempfile.mkdtemp(prefix="scenario-", dir=os.path.join(interpreter.root, "tmp"))
        inside = "/" + os.path.relpath(self.folder, interpreter.root)
        self.errors = tempfile.TemporaryFile()
        argv = interpreter.command + ["-X", "scenario=" + mark, "-u", "-c", scenario.text]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        env=dict(os.environ, TMPDIR=inside), start_new_session=True)
        self.pid = self.process.pid

    def wait_until_ready(self):
        if select.select([self.process.stdout], [], [], READY_S)[0]:
            if self.process.stdout.readline() == b"ready\n":
                return
        raise Broken("%s did not get ready: %s" % (self.scenario.name, self.said()))

    def check_alive(self):
        if self.process.poll() is not None:
            raise Broken("%s ended: %s" % (self.scenario.name, self.said()))

    def said(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace").strip()[-500:] or "it said nothing"

    def family(self):
        """Its pid and those of its process group."""
        pids = [self.pid]
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError):
                if int(entry) != self.pid and os.getpgid(int(entry)) == self.pid:
                    pids.append(int(entry))
        return pids

    def __enter__(self):
        return self

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def __exit__(self, *_):
        self.end()
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Watch:
    """`pyspyd watch --json`, whose findings of some kinds are read as they come."""

    def __init__(self, options, duration_s, kinds):
        self.kinds = kinds
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([PYSPYD, "watch", "--json", "--duration", "%gs" % duration_s] + options,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors)
        self.timer = None

    def end_in(self, seconds):
        if not self.timer:
            self.timer = threading.Timer(seconds, self.process.terminate)
            self.timer.start()

    def findings(self):
        for line in self.process.stdout:
            finding = json.loads(line)
            if finding["kind"] in self.kinds and finding["state"] != "resolved":
                yield finding

    def failure(self):
        """After its end: what it said where it failed, else None."""
        status = self.process.wait()
        if self.timer and status == -signal.SIGTERM:
            return None
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace").strip()
        return "watch: exit %d: %s" % (status, text[-500:]) if status else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.timer:
            self.timer.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def mark_of(scenario, interpreter, batch="alone"):
    """Unique among all runs on this host; watch --name looks for the part behind the scenario's name."""
    return "%s.%s.%s.%d." % (scenario.name, interpreter.name, batch, os.getpid())


def whose(pid, programs):
    with contextlib.suppress(OSError):
        group = os.getpgid(pid)
        mark = open("/proc/%d/cmdline" % pid).read()
        for program in programs:
            if group == program.pid or "scenario=%s." % program.scenario.name in mark:
                return program
    return programs[0]


class Result:
    def __init__(self, scenario, outcome, details=(), seconds=None):
        self.scenario = scenario
        self.outcome = outcome
        self.details = list(details)
        self.seconds = seconds


class Report:
    """Results as they come, and the table at the end."""

    def __init__(self, verbose):
        self.verbose = verbose
        self.lock = threading.Lock()
        self.results = {}
        self.columns = []

    def add(self, interpreter, result):
        with self.lock:
            self.results[result.scenario.name, interpreter.name] = result
            if interpreter.name not in self.columns:
                self.columns.append(interpreter.name)
            if self.verbose or result.outcome in BAD:
                took = " (%.1f s)" % result.seconds if result.seconds is not None else ""
                text = "".join("\n    " + detail for detail in result.details)
                print("%-7s %s on %s%s%s" % (result.outcome, result.scenario.name, interpreter.name, took, text),
                      flush=True)

    def table(self, scenarios):
        width = max(len(scenario.name) for scenario in scenarios)
        for i, column in enumerate(self.columns):
            print("%s%s" % (" " * (width + 2) + "|       " * i, column))
        for scenario in scenarios:
            cells = [self.results.get((scenario.name, column)) for column in self.columns]
            row = "".join("%-8s" % (cell.outcome if cell else "") for cell in cells)
            print("%-*s  %s" % (width, scenario.name, row.rstrip()))

    def end(self):
        """Prints the sums. Return: the exit status."""
        counts = collections.Counter(result.outcome for result in self.results.values())
        print(", ".join("%d %s" % (counts[outcome], outcome) for outcome in OUTCOMES
                        if counts[outcome] or outcome in ("found", "missed", "false")))
        return 1 if any(counts[outcome] for outcome in BAD) else 0


def guarded(scenario, action):
    try:
        return action()
    except (Broken, OSError, ValueError, subprocess.SubprocessError) as error:
        return Result(scenario, "broken", [str(error)])


def interpreters(patterns):
    """Those of tools/interpreters whose name matches one of the patterns (none: all), from 3.8 on."""
    listing = subprocess.run([os.path.join(TOP, "tools/interpreters")], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, timeout=300).stdout.decode()
    for line in listing.splitlines():
        name, command = line.split("\t")[:2]
        interpreter = Interpreter(name, command.split())
        if interpreter.version >= (3, 8) and any(fnmatch.fnmatch(name, pattern) for pattern in patterns or ["*"]):
            yield interpreter


def load(folder, kinds, patterns):
    """The scenarios of a folder whose names match one of the patterns; None: all."""
    scenarios = [Scenario(path, kinds) for path in sorted(glob.glob(os.path.join(HERE, folder, "*.py")))]
    return [scenario for scenario in scenarios
            if any(fnmatch.fnmatch(scenario.name, pattern) for pattern in patterns or ["*"])]


def able(interpreter, scenarios, report):
    """Those that can run on it; the others are reported as skipped."""
    lacks = interpreter.lacks({need for scenario in scenarios for need in scenario.needs})
    runnable = []
    for scenario in scenarios:
        missing = lacks & set(scenario.needs)
        if missing or not scenario.runs_on(interpreter.version):
            reason = ", ".join(sorted(missing)) or scenario.versions
            report.add(interpreter, Result(scenario, "skipped", ["needs " + reason]))
        else:
            runnable.append(scenario)
    return runnable
