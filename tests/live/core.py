# SPDX-License-Identifier: MIT
"""What pyspyd tells of a core is what it told of the process: stacks, variables, native frames, waits, heap, modules.
And a crash in C, as the kernel dumps it: Python's line and C's function in one command."""

import glob
import gzip
import os
import resource
import shutil
import signal
import subprocess
import tempfile

from live import COMMAND_S, PYSPYD, READ, Checks, Target, functions, interpreters, note, pyspyd, skip, wait_at_rest, wait_until
import json

LIVING = r"""
import sys, threading

def first(a, b, ready):
    with a:
        ready.wait()
        with b:
            pass

def second(a, b, ready):
    with b:
        ready.wait()
        with a:
            pass

def idle(lock, number, password):
    lock.acquire()

def main():
    a, b, held = threading.Lock(), threading.Lock(), threading.Lock()
    ready = threading.Barrier(2)
    held.acquire()
    kept = [str(i) for i in range(1000)]
    for target, args in ((first, (a, b, ready)), (second, (a, b, ready)), (idle, (held, 42, "secret"))):
        threading.Thread(target=target, args=args, name=target.__name__, daemon=True).start()
    print("ready")
    sys.stdin.readline()

main()
"""

CRASH_C = r"""
int crash_here(int *where);
int crash_here(int *where) { return *where = 1; }
int call_it(int *where);
int call_it(int *where) { return crash_here(where) + 1; }
"""

CRASHING = r"""
import ctypes, sys, threading
lock = threading.Lock()
lock.acquire()
threading.Thread(target=lock.acquire, name="other", daemon=True).start()

def into_c(address, token):
    library.call_it(ctypes.c_void_p(address))

library = ctypes.CDLL(sys.argv[1])
into_c(0x10, "secret")
"""

FUTEX = ("98",) if os.uname().machine == "aarch64" else ("202",)
INTERRUPTED_TRIES = 20  # to interrupt a command before it is done
checks = Checks()


def ask(command, *args):
    status, out, err = pyspyd(command, "--json", *args)
    if not checks.that(status == 0, "%s %s: exit %d, %s" % (command, " ".join(map(str, args)), status, err.strip())):
        return None
    return json.loads(out)


def frame_of(frame):
    if frame["lang"] == "native":
        return ("native", frame["qualname"])
    return (frame["lang"], frame["qualname"], frame["file"], frame["line"],
            tuple((v["name"], v["type"], v["value"]) for v in frame.get("locals", ())))


def stacks_of(dumped):
    """Kernel frames are the kernel's: a core has none. Lines of native frames, and what is inlined there, are shown as
    far as time allows."""
    return {thread["tid"]: (thread["name"], thread["gil"], [
        frame_of(f) for f in thread["stack"] if f["lang"] != "kernel" and not f.get("inlined")
    ]) for thread in dumped["threads"]}


def settled(pid):
    """Until all its threads sleep where they will stay: the main one in read, three in futexes."""
    return wait_until(lambda: wait_at_rest(pid) and calls_of(pid) == sorted(READ + FUTEX * 3))


def calls_of(pid):
    calls = []
    for tid in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/syscall" % (pid, tid)) as f:
            calls.append(f.read().split()[0])
    return sorted(calls)


def compare_dumps(name, live, dead):
    checks.that(live["process"]["cmdline"] == dead["process"]["cmdline"], "%s: command line %r" % (name, dead["process"]["cmdline"]))
    checks.that(dead["core"]["signal"] is None and dead["core"]["tid"] is None, "%s: a signal, of a living process" % name)
    checks.that(not dead["core"]["truncated"] and not dead["core"]["missing"] and not dead["core"]["different"],
                "%s: %r" % (name, dead["core"]))
    before, after = stacks_of(live), stacks_of(dead)
    checks.that(before.keys() == after.keys(), "%s: threads %r, in the core %r" % (name, sorted(before), sorted(after)))
    for tid in before.keys() & after.keys():
        checks.that(before[tid] == after[tid], "%s: thread %d: %r, in the core %r" % (name, tid, before[tid], after[tid]))
    checks.that(any("idle" in functions(t) for t in dead["threads"]), "%s: no thread in idle" % name)


def compare_rest(name, pid, core):
    waits = [ask("waits", *of) for of in (("--pid", pid), ("--core", core))]
    if all(waits):
        kinds = [[knot["kind"] for knot in w["knots"]] for w in waits]
        checks.that(kinds[0] == kinds[1] == ["cycle"], "%s: knots %r" % (name, kinds))
    heaps = [ask("heap", "--no-paths", *of) for of in (("--pid", pid), ("--core", core))]
    if all(heaps):
        counts = [{t["type"]: t["count"] for t in h["types"]} for h in heaps]
        checks.that(counts[0] == counts[1], "%s: types differ: %r" % (name, set(counts[0].items()) ^ set(counts[1].items())))
    modules = [ask("modules", *of) for of in (("--pid", pid), ("--core", core))]
    if all(modules):
        names = [[(m["name"], m["file"], m["version"]) for m in x["modules"]] for x in modules]
        ids = [[(x["path"], x["build_id"]) for x in y["libraries"]] for y in modules]
        checks.that(names[0] == names[1], "%s: modules differ" % name)
        checks.that(ids[0] == ids[1], "%s: libraries differ: %r" % (name, set(ids[0]) ^ set(ids[1])))


def check_interrupted(name, core, work):
    """A signal in the middle leaves nothing where temporary files are."""
    folder = tempfile.mkdtemp(dir=work)
    for number, args in ((signal.SIGINT, ("dump", "--native", "--locals")), (signal.SIGTERM, ("waits",)),
                         (signal.SIGINT, ("heap",)), (signal.SIGHUP, ("modules",))):
        for _ in range(INTERRUPTED_TRIES):
            asked = subprocess.Popen([PYSPYD, *args, "--core", core], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                     env=dict(os.environ, TMPDIR=folder))
            while not os.listdir(folder) and asked.poll() is None:
                pass
            asked.send_signal(number)
            status = asked.wait(COMMAND_S)
            checks.that(not os.listdir(folder), "%s: %s, signal %d, exit %d: a folder was left" % (name, args[0], number, status))
            if status or args[0] != "dump":
                break  # else it was done before the signal came
        if args[0] == "dump":
            checks.that(status == -number, "%s: dump, signal %d: exit %d" % (name, number, status))


def check_living(name, command, work):
    with Target(command, LIVING) as target:
        target.ready()
        if not checks.that(settled(target.pid), "%s: its threads do not come to rest" % name):
            return
        subprocess.run(["gcore", "-o", os.path.join(work, "living"), str(target.pid)], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=120, check=False)
        core = os.path.join(work, "living.%d" % target.pid)
        if not checks.that(os.path.exists(core), "%s: gcore wrote nothing" % name):
            return
        checks.that(settled(target.pid), "%s: its threads moved" % name)
        live = ask("dump", "--native", "--locals", "--pid", target.pid)
        dead = ask("dump", "--native", "--locals", "--core", core)
        if live and dead:
            compare_dumps(name, live, dead)
        compare_rest(name, target.pid, core)
        check_interrupted(name, core, work)
        os.unlink(core)


def crash_by_kernel(command, library, work):
    """Return: the core, or None where the kernel hands cores to somebody else."""
    with open("/proc/sys/kernel/core_pattern") as f:
        pattern = f.read().strip()
    if pattern.startswith("|") or "/" in pattern:
        return None
    script = os.path.join(work, "crashing.py")
    subprocess.run(list(command) + [script, library], cwd=work, stderr=subprocess.DEVNULL, timeout=60, check=False,
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, resource.RLIM_INFINITY)))
    found = glob.glob(os.path.join(work, "core*"))
    return found[0] if found else None


def crash_by_gdb(command, library, work):
    core = os.path.join(work, "core.gdb")
    subprocess.run(["gdb", "-batch", "-nx", "-ex", "set debuginfod enabled off", "-ex", "run", "-ex", "gcore " + core, "--args"] +
                   list(command) + [os.path.join(work, "crashing.py"), library], cwd=work, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120, check=False)
    return core if os.path.exists(core) else None


def check_crash(name, core):
    dead = ask("dump", "--native", "--locals", "--core", core)
    if not dead:
        return None
    told, first = dead["core"], dead["threads"][0]
    names = [f["function"] for f in first["stack"] if not f.get("inlined")]
    checks.that((told["signal"], told["reason"], told["address"]) == ("SIGSEGV", "address not mapped", "0x10"),
                "%s: %r" % (name, told))
    checks.that(first["tid"] == told["tid"] and first["gil"] in ("held", "none"), "%s: first thread %r" % (name, first["tid"]))
    checks.that(names[:2] == ["crash_here", "call_it"], "%s: innermost frames %r" % (name, names[:4]))
    python = [f for f in first["stack"] if f["lang"] == "python"]
    checks.that([f["function"] for f in python] == ["into_c", "<module>"] and python[0]["line"] == 8,
                "%s: %r" % (name, [(f["function"], f["line"]) for f in python]))
    if python and "locals" in python[0]:
        values = {v["name"]: v["value"] for v in python[0]["locals"]}
        checks.that(values == {"address": "16", "token": "***"}, "%s: variables %r" % (name, values))
    checks.that("rip" in told["registers"] or "pc" in told["registers"], "%s: no registers" % name)
    checks.that({t["name"] for t in dead["threads"]} == {"MainThread", "other"}, "%s: threads" % name)
    _, text, _ = pyspyd("dump", "--native", "--core", core)
    checks.that("Killed by SIGSEGV (address not mapped) at 0x10 in thread %d\n" % told["tid"] in text,
                "%s: %s" % (name, text[:200]))
    return dead


def check_snapshot(name, core, whole, work):
    """The same on another machine: without the core and its files."""
    file = os.path.join(work, "core.pyspyd")
    status, _, err = pyspyd("snapshot", "--core", core, "-o", file)
    checks.that(status == 0, "%s: snapshot: exit %d, %s" % (name, status, err))
    dead = ask("dump", "--native", "--locals", "--snapshot", file)
    checks.that(dead and dead["core"] == whole["core"] and stacks_of(dead) == stacks_of(whole),
                "%s: in a snapshot, it is another one" % name)
    _, text, _ = pyspyd("dump", "--native", "--snapshot", file)
    checks.that("Killed by SIGSEGV (address not mapped) at 0x10 in thread %d\n" % whole["core"]["tid"] in text,
                "%s: in a snapshot: %s" % (name, text[:200]))
    os.unlink(file)


def check_packed(name, core, whole, work):
    packed = os.path.join(work, "packed.gz")
    with open(core, "rb") as source, gzip.open(packed, "wb", compresslevel=1) as target:
        shutil.copyfileobj(source, target)
    dead = ask("dump", "--native", "--locals", "--core", packed)
    checks.that(dead and stacks_of(dead) == stacks_of(whole), "%s: packed, it is another one" % name)
    os.unlink(packed)


def check_truncated(name, core, work):
    """A part that says so, or an error that does, with what killed the process; never a crash."""
    cut, size = os.path.join(work, "cut"), os.path.getsize(core)
    shutil.copy(core, cut)
    for tenth in range(9, -1, -1):
        os.truncate(cut, size * tenth // 10)
        status, out, err = pyspyd("dump", "--native", "--core", cut)
        checks.that(status in (0, 1, 5), "%s: cut at %d/10: exit %d" % (name, tenth, status))
        words = out if status == 0 else err
        checks.that("truncated" in words or "too short" in words, "%s: cut at %d/10: %s" % (name, tenth, words[:200]))
        checks.that("SIGSEGV" in words or tenth == 0, "%s: cut at %d/10: %s" % (name, tenth, words[:200]))
    os.unlink(cut)


def check_foreign_exe(name, core):
    status, _, err = pyspyd("dump", "--core", core, "--exe", "/bin/ls")
    checks.that(status == 1 and "is not the executable of this core" in err, "%s: exit %d, %s" % (name, status, err))


def check_crashes(name, command, library, work):
    with open(os.path.join(work, "crashing.py"), "w") as f:
        f.write(CRASHING)
    core = crash_by_kernel(command, library, work)
    if core:
        whole = check_crash(name + ", kernel's core", core)
        if whole:
            check_snapshot(name, core, whole, work)
            check_packed(name, core, whole, work)
            check_truncated(name, core, work)
            check_foreign_exe(name, core)
        os.unlink(core)
        return
    note("%s: the kernel hands cores to a program here; gdb writes one" % name)
    core = crash_by_gdb(command, library, work)
    if checks.that(core, "%s: gdb wrote no core" % name):
        check_crash(name + ", gdb's core", core)
        os.unlink(core)


def main():
    if not shutil.which("gcore") or not shutil.which("gdb"):
        skip("no gdb here")
    with tempfile.TemporaryDirectory(prefix="pyspyd-core-") as work:
        library = os.path.join(work, "crash.so")
        with open(os.path.join(work, "crash.c"), "w") as f:
            f.write(CRASH_C)
        if subprocess.run(["cc", "-shared", "-fPIC", "-O0", "-fno-inline", "-o", library, f.name], check=False).returncode:
            skip("no C compiler here")
        for name, _, command in interpreters("3.11.2-system 3.13.0-pyenv"):
            if command[0] == "chroot":
                note("%s: not here, it sees its own tree only" % name)
                continue
            check_living(name, command, work)
            check_crashes(name, command, library, work)
    checks.end()


main()
