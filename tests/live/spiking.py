# SPDX-License-Identifier: MIT
"""spiking-thread, as a user of `pyspyd watch --json` sees it: programs that must be found, and one that must not.

The thresholds are low, since on a shared machine a thread that spins does not get a whole core.
"""
import json
import os
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PYSPYD = os.environ.get("PYSPYD", os.path.join(HERE, "../../build/pyspyd"))
failures = []


def check(what, ok, detail=""):
    print("%s %s%s" % ("ok  " if ok else "FAIL", what, "" if ok else ": %s" % (detail,)))
    if not ok:
        failures.append(what)


class Program:
    def __init__(self, name):
        self.process = subprocess.Popen(
            [sys.executable, "-u", os.path.join(HERE, "../scenarios", name)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True)
        assert self.process.stdout.readline().startswith("ready")

    def __enter__(self):
        return self.process

    def __exit__(self, *unused):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def watch(pid, *options):
    """Exit status and findings."""
    done = subprocess.run([PYSPYD, "watch", "--json", "--pid", str(pid)] + list(options),
                          stdout=subprocess.PIPE, universal_newlines=True, timeout=120)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def must_find(name, functions, verdict, also=()):
    """`also`: kinds that the program deserves besides."""
    with Program(name) as program:
        status, findings = watch(program.pid, "--set", "spiking-thread.pct=20", "--set", "spiking-thread.for=3s",
                                 "--exit-on", "spiking-thread", "--duration", "60s")
    check("%s: exit status" % name, status == 10, status)
    others = {finding["kind"] for finding in findings} - {"spiking-thread"}
    findings = [finding for finding in findings if finding["kind"] == "spiking-thread"]
    check("%s: one finding" % name, len(findings) == 1, findings)
    check("%s: no other kind" % name, others <= set(also), others)
    if not findings:
        return
    finding = findings[0]
    stack = finding["threads"][0]["stack"]
    names = [frame["function"] for frame in stack[:2]]
    check("%s: schema, kind, state" % name, (finding["schema"], finding["kind"], finding["state"]) ==
          ("pyspyd.finding/1", "spiking-thread", "open"))
    check("%s: function" % name, set(names) & set(functions), names)
    check("%s: line" % name, stack[0]["line"] > 0 and stack[0]["file"].endswith(".py"), stack[0])
    check("%s: verdict" % name, finding["evidence"]["verdict"] == verdict, finding["evidence"])
    check("%s: summary names the place" % name, any(f in finding["summary"] for f in functions), finding["summary"])


def must_not_find(name):
    with Program(name) as program:
        status, findings = watch(program.pid, "--spike", "60:2s", "--duration", "8s")
    check("%s: exit status" % name, status == 0, status)
    check("%s: nothing found" % name, not findings, findings)


def pool():
    """Watched until both are found, and what comes with that."""
    opened = []
    with Program("busy_pool.py") as program:
        watcher = subprocess.Popen([PYSPYD, "watch", "--json", "--pid", str(program.pid), "--children", "--set",
                                    "spiking-thread.pct=15", "--set", "spiking-thread.for=2s", "--duration", "60s"],
                                   stdout=subprocess.PIPE, universal_newlines=True)
        for line in watcher.stdout:
            opened += [finding for finding in [json.loads(line)] if finding["state"] == "open"]
            if len({f["process"]["pid"] for f in opened}) == 2:
                watcher.send_signal(signal.SIGINT)
        watcher.wait(60)
    check("busy_pool.py: a finding for each worker", len({f["process"]["pid"] for f in opened}) == 2,
          [f["summary"] for f in opened])
    check("busy_pool.py: not for their parent", program.pid not in {f["process"]["pid"] for f in opened})
    check("busy_pool.py: one fault, one fingerprint", len({f["fingerprint"] for f in opened}) == 1,
          [f["fingerprint"] for f in opened])


def resolved():
    """A process that ends takes its finding with it."""
    with Program("spinning.py") as program:
        watcher = subprocess.Popen([PYSPYD, "watch", "--json", "--pid", str(program.pid), "--set",
                                    "spiking-thread.pct=20", "--set", "spiking-thread.for=2s"],
                                   stdout=subprocess.PIPE, universal_newlines=True)
        first = json.loads(watcher.stdout.readline())
    rest = [json.loads(line) for line in watcher.stdout]
    status = watcher.wait(60)
    check("ended: status", status == 3, status)
    check("ended: resolved", rest and rest[-1]["state"] == "resolved" and rest[-1]["id"] == first["id"], rest)


def main():
    must_find("spinning.py", ["collatz_steps", "longest_chain"], "python-loop")
    must_find("spinning_native.py", ["add_up"], "native", also=["gil-hog"])
    must_find("spinning_kernel.py", ["read_zeros"], "kernel")
    must_find("spinning_gc.py", ["collect"], "gc")
    must_not_find("half_busy.py")
    pool()
    resolved()
    return 1 if failures else 0


sys.exit(main())
