# SPDX-License-Identifier: MIT
"""What the service may do is enough for all that it does, and no more: privileges_driver runs with the capabilities of
the unit, as another user than its target, drops the rest, seals itself and goes to work. In strict mode any call that is
missing from the list kills it; at the end it must be killed, by a call that is not to be on the list."""

import os
import signal
import subprocess
import tempfile

import live

DRIVER = os.path.join(live.BUILD, "tests/live/privileges_driver")
NOBODY = 65534
OTHER = 65533
DRIVER_S = 200
KEPT = {"cap_dac_read_search": 2, "cap_sys_ptrace": 19, "cap_sys_nice": 23, "cap_checkpoint_restore": 40,
        "cap_bpf": 39, "cap_perfmon": 38}
MASK = "%016x" % sum(1 << bit for bit in KEPT.values())

PROGRAM = r'''
import os, socket, sys, threading, time

first, second, both = threading.Lock(), threading.Lock(), threading.Barrier(2)
kept = [bytearray(1000) for i in range(1000)]
pair = socket.socketpair()
tcp = socket.socket()
tcp.bind(("127.0.0.1", 0))
tcp.listen()
pipe = os.pipe()


def one(mine, other):
    with mine:
        both.wait()
        with other:
            pass


def spin():
    n = 0
    while True:
        n += 1


for target, args in ((one, (first, second)), (one, (second, first)), (spin, ()), (pair[0].recv, (1,)),
                     (tcp.accept, ()), (os.read, (pipe[0], 1)), (time.sleep, (1000,))):
    threading.Thread(target=target, args=args, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
'''

PHASES = ["drop", "seal", "watch", "watch all", "dump", "heap", "store", "event loop", "journal", "names", "serve"]


def demote():
    os.setgroups([])
    os.setresgid(OTHER, OTHER, OTHER)
    os.setresuid(OTHER, OTHER, OTHER)


def setpriv(capabilities):
    """As the unit starts the service: no root, ambient capabilities."""
    wanted = "-all" + "".join(",+" + c[len("cap_"):] for c in capabilities)
    return ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--inh-caps", wanted,
            "--ambient-caps", wanted]


def run(target, capabilities, *options):
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, NOBODY, NOBODY)
        result = subprocess.run(setpriv(capabilities) + [DRIVER, str(target.pid), folder] + list(options),
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                timeout=DRIVER_S)
    return result.returncode, result.stdout.decode().splitlines()


def check_work(checks, name, lines, inet):
    for phase in PHASES + ["fetch from a host" if inet else "fetch from a socket"]:
        checks.that("did " + phase in lines, "%s: %s: %s" % (name, phase, [
            line for line in lines if line.startswith("failed")] or lines[-3:]))


def check_status(checks, name, lines):
    status = dict(line[len("status "):].split(":\t") for line in lines if line.startswith("status "))
    expected = {"CapInh": "0" * 16, "CapPrm": MASK, "CapEff": MASK, "CapAmb": "0" * 16, "NoNewPrivs": "1",
                "Seccomp": "2"}
    for key, value in expected.items():
        checks.that(status.get(key) == value, "%s: %s is %s, not %s" % (name, key, status.get(key), value))
    checks.that("dumpable 0" in lines, name + ": is dumpable")
    checks.that("left open 0" in lines, name + ": a descriptor was left open")
    for capability in KEPT:
        checks.that("privilege %s 1" % capability in lines, "%s: %s is not held" % (name, capability))


def check_refused(checks, name, lines):
    refused = [line for line in lines if line.startswith("refused ")]
    checks.that(len(refused) >= 15, "%s: refused only %s" % (name, refused))
    for line in lines:
        checks.that(not line.startswith("permitted "), "%s: %s" % (name, line))


def as_root(checks, target):
    """Started by root: the bounding set goes too."""
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run([DRIVER, str(target.pid), folder, "idle"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, timeout=DRIVER_S)
    lines = result.stdout.decode().splitlines()
    check_status(checks, "root", lines)
    check_refused(checks, "root", lines)
    checks.that("status CapBnd:\t" + MASK in lines, "root: the bounding set is %s" % [
        line for line in lines if "CapBnd" in line])


def main():
    if os.geteuid():
        live.skip("needs root, to become others with capabilities")
    if subprocess.run(["setpriv", "--version"], stdout=subprocess.DEVNULL).returncode:
        live.skip("no setpriv")
    checks = live.Checks()
    _, _, command = live.interpreters("3.*-system")[0]
    with live.Target(command, PROGRAM, preexec_fn=demote) as target:
        target.ready()
        for options in (["strict"], ["strict", "inet"], []):
            name = " ".join(options) or "lenient"
            status, lines = run(target, KEPT, *options)
            check_work(checks, name, lines, "inet" in options)
            check_status(checks, name, lines)
            checks.that("done" in lines, name + ": did not come to its end")
            if "strict" in options:
                checks.that(status == -signal.SIGSYS, "%s: ended with %d, not killed for execve" % (name, status))
            else:
                checks.that(status == 0, "%s: ended with %d" % (name, status))
                check_refused(checks, name, lines)
        _, lines = run(target, ["cap_sys_ptrace"], "idle")
        for capability in KEPT:
            expected = "privilege %s %d" % (capability, capability == "cap_sys_ptrace")
            checks.that(expected in lines, "with cap_sys_ptrace alone: no " + expected)
        as_root(checks, target)
    checks.end()


main()
