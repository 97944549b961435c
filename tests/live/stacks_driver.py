# SPDX-License-Identifier: MIT
"""Compares what `pyspyd dump --json` says of stacks_oracle.py with what that says of itself, exactly.

    stacks_driver.py PYSPYD [--locals] COMMAND…      COMMAND starts the interpreter

Prints one line of result; differences go before it. Exit status: 0 equal, 1 not."""

import json
import os
import select
import subprocess
import sys

import live

SECRETS = ("password", "api_token", "inner_secret")
NAME_MAX = 1024
PATH_MAX = 4096
LOCALS_MAX = 256
SHOWN_MAX = 8
WIDTH_MAX = 600


class Differences:
    def __init__(self):
        self.n = 0

    def add(self, text):
        self.n += 1
        if self.n <= SHOWN_MAX:
            print("  " + text.encode("ascii", "backslashreplace").decode().replace("\n", "\\n")[:WIDTH_MAX])


def as_shown(text, limit):
    """Names end at a NUL and at the limit."""
    return text.split("\0")[0][:limit]


def frames_text(frames):
    return " < ".join("%s@%s:%s" % (f["qualname"][:30], f["file"][-20:], f["line"]) for f in frames[:8])


def compare_locals(where, told, seen, differences):
    if told is None:
        return
    seen = {local["name"]: local for local in seen}
    if set(told) != set(seen) and not (len(seen) == LOCALS_MAX < len(told) and set(seen) < set(told)):
        differences.add("%s: variables: missing %s, too many %s" % (where, sorted(set(told) - set(seen)),
                                                                     sorted(set(seen) - set(told))))
    for name in set(told) & set(seen):
        kind, value, plain = told[name]
        local = seen[name]
        if local["type"] != kind:
            differences.add("%s: %s is a %s, not a %s" % (where, name, kind, local["type"]))
        if name in SECRETS:
            if local["value"] != "***" or not local["masked"]:
                differences.add("%s: %s is not masked" % (where, name))
        elif value is not None and not local["masked"] and local["value"] not in (value, "'%s'" % plain):
            differences.add("%s: %s = %s, not %s" % (where, name, value, local["value"]))


def compare_thread(told, seen, with_locals, differences):
    where = "%s (%d)" % (told["about"], told["tid"])
    if told["name"] is not None and seen["name"] != as_shown(told["name"], NAME_MAX):
        differences.add("%s: name %r, not %r" % (where, told["name"], seen["name"]))
    if seen["state"] != "S" or seen["incomplete"] or seen["truncated"] or seen["in_gc"]:
        differences.add("%s: state %s incomplete %s truncated %s gc %s" % (
            where, seen["state"], seen["incomplete"], seen["truncated"], seen["in_gc"]))
    if seen["gil"] not in ("none", "unknown"):
        differences.add("%s: gil %s" % (where, seen["gil"]))
    if len(told["frames"]) != len(seen["stack"]):
        differences.add("%s: %d frames, not %d:\n    told %s\n    seen %s" % (
            where, len(told["frames"]), len(seen["stack"]), frames_text(told["frames"]), frames_text(seen["stack"])))
        return
    for i, (a, b) in enumerate(zip(told["frames"], seen["stack"])):
        for key in ("function", "qualname", "file", "line", "module"):
            expected = a[key] if key == "line" else as_shown(a[key], PATH_MAX if key == "file" else NAME_MAX)
            if expected != b[key]:
                differences.add("%s: frame %d: %s %r, not %r" % (where, i, key, expected, b[key]))
        if with_locals:
            compare_locals("%s: frame %d %s" % (where, i, a["function"][:30]), a["locals"], b["locals"], differences)


def compare(pid, told, dump, with_locals):
    differences = Differences()
    seen = {thread["tid"]: thread for thread in dump["threads"]}
    if dump["process"]["python"].rstrip("td") != told["python"].rstrip("+"):
        differences.add("version %s, not %s" % (told["python"], dump["process"]["python"]))
    if len(seen) != len(dump["threads"]) or len(seen) != len(told["threads"]) + 1:
        differences.add("%d threads (%d tids), not %d" % (len(dump["threads"]), len(seen), len(told["threads"]) + 1))
    for thread in told["threads"]:
        if thread["tid"] not in seen:
            differences.add("no thread %d (%s)" % (thread["tid"], thread["about"]))
            continue
        if thread["name"] is None:
            with open("/proc/%d/task/%d/comm" % (pid, thread["tid"])) as comm:
                thread["name"] = comm.read().rstrip("\n")
        compare_thread(thread, seen[thread["tid"]], with_locals, differences)
    return differences.n, sum(len(t["frames"]) for t in told["threads"])


def main():
    pyspyd, command = sys.argv[1], sys.argv[2:]
    with_locals = command[0] == "--locals"
    command = command[with_locals:]
    with open(os.path.join(os.path.dirname(__file__), "stacks_oracle.py"), encoding="utf-8") as f:
        source = f.read()
    environment = dict(os.environ, STACKS_SOURCE=source, PYTHONIOENCODING="utf-8", PYTHONUTF8="1")
    target = subprocess.Popen(command + ["-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        line = target.stdout.readline() if select.select([target.stdout], [], [], live.READY_S)[0] else b""
        if not line:
            print("the target did not get ready")
            return 1
        if not live.wait_at_rest(target.pid):
            print("the target does not come to rest")
            return 1
        result = subprocess.run([pyspyd, "dump", "--json", "--pid", str(target.pid)] + ["--locals"] * with_locals,
                                stdout=subprocess.PIPE, timeout=live.COMMAND_S)
        if result.returncode:
            print("pyspyd: exit status %d" % result.returncode)
            return 1
        told = json.loads(line)
        n, frames = compare(target.pid, told, json.loads(result.stdout.decode()), with_locals)
        print("%d threads, %d frames, %d differences" % (len(told["threads"]), frames, n))
        return 1 if n else 0
    finally:
        target.kill()
        target.wait()


sys.exit(main())
