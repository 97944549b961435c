# SPDX-License-Identifier: MIT
"""Programs die, each in its own way, and the kernel writes their cores: the triage names the cause and what shows it.
A signal that somebody sent is nobody's fault."""

import glob
import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile

from live import Checks, HERE, Target, interpreters, note, pyspyd, skip

HEAD = """
import ctypes, faulthandler, gc, mmap, os, signal, sys
lib = ctypes.PyDLL(%r)
def fall():
    %s
print("ready")
sys.stdin.readline()
fall()
"""

# Name → (what it does, environment, cause, what the text must have, what it must not have).
CASES = {
    "null": ("ctypes.string_at(8)", {}, "null-pointer", ["8 (0x8) bytes behind", "string_at"], []),
    "null, faulthandler": ("faulthandler.enable(open(os.devnull, 'w')); ctypes.string_at(8)", {}, "null-pointer",
                           ["was read", "sent it again"], []),
    "null, handled": ("try:\n        int('7 apples')\n    except ValueError:\n        ctypes.string_at(8)", {}, "null-pointer",
                      ["It was handling ValueError: invalid literal for int() with base 10: '7 apples'", "raised in fall"],
                      []),
    "null call": ("lib.ledger_null_call()", {}, "null-pointer", ["called through a null pointer"], []),
    "stack": ("lib.ledger_descend(0)", {}, "stack-overflow", ["ledger_descend stands", "stack is used up"], []),
    "freed": ("lib.ledger_freed()", {"PYTHONMALLOC": "debug"}, "freed-memory", ["ledger_freed", "freed memory"], []),
    "unset": ("lib.ledger_unset()", {"PYTHONMALLOC": "debug"}, "unset-memory", ["ledger_unset", "not written yet"],
              []),
    "text": ("lib.ledger_text()", {}, "overwritten", ["0x41 all over"], []),
    "twice": ("lib.ledger_twice()", {}, "heap-corruption", ["double free", "ledger_twice"], []),
    "jump": ("lib.ledger_jump()", {}, "bad-jump", ["must not be executed"], []),
    "assert": ("lib.ledger_assert(7)", {}, "assertion", ["the ledger balances", "ledger_assert"], []),
    "constant": ("lib.ledger_constant()", {}, "read-only", ["not be written to", "triage_faults"], []),
    "trap": ("lib.ledger_trap()", {}, "bad-instruction", ["ledger_trap"], []),
    "divide": ("lib.ledger_divide(0)", {}, "bad-calculation", ["by zero", "ledger_divide"], []),
    "fatal": ("ctypes.pythonapi.Py_FatalError(b'the ledger of pyspyd is lost')", {}, "fatal-error",
              ["fatal Python error", "the ledger of pyspyd is lost"], []),
    "collector": (
        "keep = [[n] for n in range(50)]; victim = keep[7]; "
        "ctypes.memmove(id(victim) + object.__basicsize__ - 8, b'A' * 8, 8); gc.collect()", {}, "corrupted-object",
        ["garbage collector", " list at", "It is held by fall.<locals>"], []),
    "collector, dict": (
        "import __main__; __main__.books = {'north': type('Ledger', (), {})()}; "
        "ctypes.memmove(id(__main__.books['north']) + object.__basicsize__ - 8, b'A' * 8, 8); gc.collect()", {},
        "corrupted-object", ["garbage collector", " dict at", " to it", "It is held by __main__.books['north']"], []),
    "file": ("f = open(os.environ['LEDGER'], 'w+b'); f.write(b'x' * 20000); f.flush(); m = mmap.mmap(f.fileno(), 0); "
             "f.truncate(100); print(m[12000])", {}, "truncated-file", ["12000", "has but 100 bytes"], []),
    "abort": ("os.abort()", {}, "abort", ["SIGABRT"], ["heap", "corrupt"]),
    "own": ("os.kill(os.getpid(), signal.SIGSEGV)", {}, "sent", ["itself"], ["null", "corrupt"]),
    "abort, faulthandler": ("faulthandler.enable(open(os.devnull, 'w')); os.abort()", {}, "abort", ["sent it again"],
                            ["heap", "corrupt"]),
    "own, faulthandler": ("faulthandler.enable(open(os.devnull, 'w')); os.kill(os.getpid(), signal.SIGABRT)", {},
                          "sent", ["Somebody sent"], ["heap", "corrupt"]),
    "outside": (None, {}, "sent", ["at fault"], ["corrupt", "heap"]),
}


def crash(command, case, library, folder):
    """Return: the path of its core; None: there is none."""
    does, environment = CASES[case][:2]
    env = dict(os.environ, LEDGER=os.path.join(folder, "ledger"), **environment)
    program = HEAD % (library, does or "pass")
    with Target(command, program, cwd=folder, env=env, stderr=subprocess.DEVNULL,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))) as target:
        target.ready()
        if does:
            target.say()
        else:
            os.kill(target.pid, signal.SIGABRT)
        status = target.process.wait()
    found = glob.glob(os.path.join(folder, "core*"))
    return (found[0] if found else None), status


def check(checks, name, case, core):
    _, _, cause, has, lacks = CASES[case]
    what = "%s, %s" % (name, case)
    status, out, err = pyspyd("dump", "--core", core, "--json")
    if not checks.that(status == 0, "%s: exit %d: %s" % (what, status, err)):
        return
    triage = json.loads(out)["core"]["triage"]
    text = " ".join(s["text"] for s in triage["statements"]) if triage else ""
    checks.that(triage and triage["cause"] == cause, "%s: %s" % (what, triage))
    for words in has:
        checks.that(words in text, "%s: %r is not in: %s" % (what, words, text))
    for words in lacks:
        checks.that(words not in text, "%s: %r is in: %s" % (what, words, text))
    checks.that(all((s["certainty"] == "inferred") == bool(s["why"]) for s in triage["statements"]),
                "%s: certainty %s" % (what, triage))
    if case == "null":
        status, out, err = pyspyd("dump", "--core", core)
        checks.that("Triage: null-pointer. " in out and "(read)." in out, "%s: %s" % (what, out))


def main():
    checks = Checks()
    with open("/proc/sys/kernel/core_pattern") as f:
        pattern = f.read().strip()
    if pattern.startswith("|") or "/" in pattern:
        skip("the kernel gives cores to %s" % pattern)
    with tempfile.TemporaryDirectory(prefix="pyspyd-triage-") as folder:
        library = os.path.join(folder, "triage_faults.so")
        subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-g", "-O1", "-o", library,
                        os.path.join(HERE, "../scenarios/crashes/faults.c")], check=True)
        for name, _, command in interpreters("3.11.2-system 3.13.0-pyenv"):
            for case in os.environ.get("CASES", ":".join(CASES)).split(":"):
                core, status = crash(command, case, library, folder)
                if not core and not os.environ.get("CASES"):
                    skip("no core is written here: %s of %s ended with %d" % (case, name, status))
                check(checks, name, case, core)
                if os.environ.get("KEEP"):
                    shutil.copy(core, os.environ["KEEP"])
                os.unlink(core)
            note(name)
    checks.end()


main()
