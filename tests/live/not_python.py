# SPDX-License-Identifier: MIT
"""dump and record on what is no supported Python: the exit status, and one sentence on stderr that says why."""

import os
import shutil
import subprocess
import tempfile

import live

UNSUPPORTED, GONE = 5, 3
PYTHON2 = os.path.join(os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv")), "versions/2.7.18/bin/python2.7")


def refused(checks, what, pid, statuses, words=()):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out.svg")
        for args in (("dump", "--pid", pid), ("dump", "--json", "--pid", pid),
                     ("record", "-d", "1", "-o", out, "--pid", pid)):
            try:
                status, text, err = live.pyspyd(*args, timeout=30)
            except subprocess.TimeoutExpired:
                checks.that(False, "%s: %s does not end" % (what, args[0]))
                continue
            where = "%s: %s (exit %d, %r)" % (what, args[0], status, err)
            checks.that(status in statuses, where + ": another exit status")
            checks.that(not text, where + ": something on stdout")
            checks.that(err.count("\n") == 1 and err.startswith("pyspyd: ") and len(err) > 20, where + ": not one sentence")
            for word in words:
                checks.that(word in err, "%s: does not say %r" % (where, word))
            checks.that(not os.path.exists(out), where + ": wrote a file")


def running(checks, what, argv, words=()):
    if not os.path.exists(argv[0]) and not shutil.which(argv[0]):
        live.note("no " + argv[0])
        return
    with live.Target(argv) as target:
        target.ready()
        refused(checks, what, target.pid, (UNSUPPORTED,), words)


def zombie(checks):
    """A child that ended and that nobody waits for, of a process that lives."""
    with live.Target(["perl", "-e", '$| = 1; $p = fork; exit 0 unless $p; print "$p\\n"; <STDIN>']) \
            as parent:
        pid = int(parent.ready())
        while live.state_of(pid) != "Z":
            os.sched_yield()
        refused(checks, "a zombie", pid, (GONE,))


def kernel_thread(checks):
    if not os.path.exists("/proc/2/comm"):
        return
    with open("/proc/2/comm") as f:
        if f.read() == "kthreadd\n":
            refused(checks, "a kernel thread", 2, (UNSUPPORTED,), ("kernel thread",))


def main():
    checks = live.Checks()
    running(checks, "perl", ["perl", "-e", '$| = 1; print "ready\\n"; <STDIN>'])
    running(checks, "bash", ["bash", "-c", "echo ready; read x"])
    running(checks, "cat", ["sh", "-c", "echo ready; exec cat"])
    running(checks, "node", ["node", "-e", 'console.log("ready"); process.stdin.resume()'], ("Node",))
    running(checks, "Python 2", [PYTHON2, "-c", 'import sys; print("ready"); sys.stdout.flush(); sys.stdin.readline()'],
            ("Python 2",))
    running(checks, "a program that is called python", ["bash", "-c", 'exec -a python3.11 bash -c "echo ready; read x"'])
    refused(checks, "no process", 999999999, (GONE,))
    refused(checks, "a pid that is free", 4194303, (GONE,))
    zombie(checks)
    kernel_thread(checks)
    status, text, err = live.pyspyd("dump", "--pid", "0")
    checks.that(status == 2 and not text and err, "pid 0: exit %d" % status)
    own = subprocess.run(["sh", "-c", 'exec "$0" dump --pid $$', live.PYSPYD], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, timeout=30)
    checks.that(own.returncode == UNSUPPORTED and own.stderr.count(b"\n") == 1, "itself: exit %d, %r" % (
        own.returncode, own.stderr))
    checks.end()


main()
