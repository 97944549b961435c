# SPDX-License-Identifier: MIT
"""Time off CPU in an interpreter with a GIL of its own that begins when the recording has long begun: where its threads
sleep, and that they wait for that GIL."""

import os
import re
import signal
import subprocess
import tempfile

import live

TARGET = r"""
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

INNER = '''
import os, threading, time

def spin():
    end = time.monotonic() + 3  # it takes a while until its interpreter is known
    while time.monotonic() < end: pass

def nap():
    for _ in range(5): time.sleep(0.1)

threads = [threading.Thread(target=spin) for _ in range(2)]
for t in threads: t.start()
for t in threads: t.join()
began = time.monotonic()
nap()
os.write(1, b"%f\\n" % (time.monotonic() - began))
'''

def enter():
    one = interpreters.create()
    interpreters.run_string(one, INNER)

print("ready", flush=True)
sys.stdin.readline()
enter()
print("done", flush=True)
sys.stdin.readline()
"""


def wait_until_attached(record):
    folder = "/proc/%d/fd" % record.pid
    while record.poll() is None:
        try:
            links = [os.readlink(os.path.join(folder, fd)) for fd in os.listdir(folder)]
        except OSError:
            continue
        if "anon_inode:bpf_link" in links and len(os.listdir("/proc/%d/task" % record.pid)) > 1:
            return
        os.sched_yield()


def seconds(stacks, *parts):
    return sum(s for stack, s in stacks.items()
               if all(re.search(r"(^|;)%s( \(|;|$)" % re.escape(part), stack) for part in parts))


def trial(checks, name, command, folder):
    path = os.path.join(folder, name)
    with live.Target(command, TARGET) as target:
        target.ready_and_reading()
        record = subprocess.Popen([live.PYSPYD, "record", "--mode", "offcpu", "-p", str(target.pid), "-f", "collapsed", "-o", path],
                                  stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_until_attached(record)
        target.say()
        napped = float(target.line() or 0)
        done = target.line()
        record.send_signal(signal.SIGINT)
        said = record.communicate(timeout=live.COMMAND_S)[1].decode()
    if not checks.that(done == "done" and record.returncode == 0, "%s: '%s', exit %s: %s" % (name, done, record.returncode, said)):
        return
    stacks = {}
    with open(path) as f:
        for line in f:
            stack, us = line.rsplit(" ", 1)
            stacks[stack] = stacks.get(stack, 0) + int(us) / 1e6
    waits, slept, nap = seconds(stacks, "spin", "[gil]"), seconds(stacks, "spin"), seconds(stacks, "nap")
    live.note("%s: spin %.2f s, %.2f s for the GIL; nap %.2f s" % (name, slept, waits, nap))
    checks.that(waits > 0.3 and waits > 0.7 * slept, "%s: spin slept %.2f s, %.2f s for the GIL: %s" % (name, slept, waits, stacks))
    checks.that(0.35 < nap < 1.02 * napped, "%s: nap slept %.2f s of %.2f: %s" % (name, nap, napped, stacks))


def main():
    if os.geteuid():
        live.skip("needs root: loads eBPF programs")
    checks = live.Checks()
    with tempfile.TemporaryDirectory(prefix="offcpu-later-") as folder:
        for name, version, command in live.interpreters("3.14*"):
            if version[:2] < (3, 12) or "t-" in name:
                continue  # one GIL for all interpreters, or none
            trial(checks, name, command, folder)
    checks.end()


main()
