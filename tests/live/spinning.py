# SPDX-License-Identifier: MIT
"""A thread that runs all the time in a known set of functions. Each dump must show a stack that can have been: a leaf
under its own caller, a line inside the loop, state R, and the GIL held; with the priority that pyspyd likes to have,
and without CAP_SYS_NICE (where a stack that could not be proven may say incomplete, but may still not be impossible).

SPINNING_TIMES   dumps of each kind (default 10)"""

import os
import shutil

import live

PROGRAM = """
import sys, threading
def leaf_a(x):
    y = x * 3
    return y % 7
def leaf_b(x):
    y = x + 1
    return y % 5
def caller_a(x):
    return leaf_a(x) + 1
def caller_b(x):
    return leaf_b(x) + 1
def spin():
    started.set()
    i = 0
    while True:
        i += caller_a(i)
        i -= caller_b(i)
started = threading.Event()
threading.Thread(target=spin, name="spinner", daemon=True).start()
started.wait()
print("ready")
sys.stdin.readline()
"""
TIMES = int(os.environ.get("SPINNING_TIMES", "10"))
LINES = {"leaf_a": range(3, 6), "leaf_b": range(6, 9), "caller_a": range(9, 11), "caller_b": range(11, 13),
         "spin": range(13, 19)}
CHAINS = (["spin"], ["caller_a", "spin"], ["caller_b", "spin"], ["leaf_a", "caller_a", "spin"],
          ["leaf_b", "caller_b", "spin"])
BOTTOM = ["run", "_bootstrap_inner", "_bootstrap"]
WITHOUT_NICE = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"]


def check(checks, where, dumped, privileged):
    thread = next((t for t in dumped["threads"] if t["name"] == "spinner"), None)
    if not checks.that(thread, where + ": no spinner"):
        return
    if thread["incomplete"]:
        checks.that(not privileged, where + ": incomplete")
        return
    names = live.functions(thread)
    checks.that(names[-3:] == BOTTOM and names[:-3] in CHAINS, "%s: impossible stack %s" % (where, names))
    for frame in thread["stack"]:
        lines = LINES.get(frame["function"])
        checks.that(not lines or frame["line"] in lines, "%s: line %s of %s" % (where, frame["line"],
                                                                                frame["function"]))
    checks.that(thread["state"] == "R", "%s: state %s" % (where, thread["state"]))
    free_threaded = dumped["process"]["python"].rstrip("d").endswith("t")
    checks.that(thread["gil"] in (("none", "held") if free_threaded else ("held",)), "%s: gil %s" % (where, thread["gil"]))


def main():
    checks = live.Checks()
    kinds = [("privileged", (), ())]
    if os.geteuid() == 0 and shutil.which("setpriv"):
        kinds.append(("without CAP_SYS_NICE", WITHOUT_NICE, ()))
    else:
        live.note("not root, or no setpriv: only with the privileges that there are")
    kinds.append(("blocking", (), ("--blocking",)))
    for name, _, command in live.interpreters():
        with live.Target(command, PROGRAM) as target:
            target.ready_and_reading()
            for kind, prefix, args in kinds:
                for _ in range(TIMES):
                    dumped, said = live.dump(target.pid, *args, prefix=prefix)
                    if checks.that(dumped, "%s %s: %s" % (name, kind, said)):
                        check(checks, "%s %s" % (name, kind), dumped, kind == "privileged")
        live.note(name)
    checks.end()


main()
