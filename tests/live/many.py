# SPDX-License-Identifier: MIT
"""Faults in a few among many processes that hardly run. Of many pyspyd asks each one less often; what is wrong with one
of them must be found all the same, and nothing about the others.

One process forks the others, so that starting them costs little."""

import json
import os
import select
import signal
import subprocess
import time

import live

MANY = 80
FIND_S = 300
PROGRAM = """
import ctypes, os, signal, sys, threading, time
MANY = %d

def wake_now_and_then():
    while True:
        threading.Event().wait(1)

def sleepers():
    for _ in range(4):
        threading.Thread(target=time.sleep, args=(100000,), daemon=True).start()

def quiet():
    sleepers()
    wake_now_and_then()

def stopped():
    sleepers()
    wake_now_and_then()

def locked():
    a, b = threading.Lock(), threading.Lock()
    both = threading.Barrier(2)
    def take(first, second):
        with first:
            both.wait()
            with second:
                pass
    for pair in ((a, b), (b, a)):
        threading.Thread(target=take, args=pair, daemon=True).start()
    wake_now_and_then()

def spinning():
    sleepers()
    n = 0
    while True:
        n += 1

def hogging():
    libc = ctypes.PyDLL(None)
    def hog():
        while True:
            libc.sleep(6)
            time.sleep(0.01)
    threading.Thread(target=hog, daemon=True).start()
    wake_now_and_then()

roles = [stopped, locked, spinning, hogging] + [quiet] * (MANY - 4)
pids = []
for role in roles:
    pid = os.fork()
    if not pid:
        os.close(0)
        role()
    pids.append(str(pid))
print(" ".join(pids))
sys.stdin.readline()
for pid in pids:
    os.kill(int(pid), signal.SIGKILL)
""" % MANY
MUST = {"stopped": 0, "deadlock": 1, "spiking-thread": 2, "gil-hog": 3}
OF_THE_MACHINE = ("cpu-throttled", "oom-risk")  # where it gives all of us little, it is so
SETTINGS = ("stopped.after=3s", "spiking-thread.for=4s", "spiking-thread.pct=5", "spiking-thread.resolve-pct=1")


def events(watch, until):
    """Findings as they come, until then."""
    buffer = b""
    while True:
        left = until - time.monotonic()
        if left <= 0 or not select.select([watch.stdout], [], [], left)[0]:
            return
        more = os.read(watch.stdout.fileno(), 65536)
        if not more:
            return
        *lines, buffer = (buffer + more).split(b"\n")
        for line in lines:
            yield json.loads(line)


def follow(checks, name, watch, pids):
    missing = dict(MUST)
    for event in events(watch, time.monotonic() + FIND_S):
        if event.get("schema") != "pyspyd.finding/1" or event["process"]["pid"] not in pids:
            continue
        if event["kind"] in OF_THE_MACHINE:
            continue
        kind, role = event["kind"], pids.index(event["process"]["pid"])
        if missing.get(kind) == role:
            del missing[kind]
        checks.that(MUST.get(kind) == role, "%s: %s of process %d: %s" % (name, kind, role, event["summary"]))
        if not missing:
            return
    checks.that(False, "%s: not found: %s" % (name, ", ".join(missing)))


def main():
    checks = live.Checks()
    for name, _, command in live.interpreters():
        with live.Target(command + ["-I"], PROGRAM) as target:
            pids = [int(pid) for pid in target.ready().split()]
            args = [live.PYSPYD, "watch", "--name", "wake_now_and_then", "--json"]
            for setting in SETTINGS:
                args += ["--set", setting]
            watch = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            try:
                os.kill(pids[MUST["stopped"]], signal.SIGSTOP)
                follow(checks, name, watch, pids)
            finally:
                watch.terminate()
                watch.wait()
                watch.stdout.close()
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
        live.note(name)
    checks.end()


main()
