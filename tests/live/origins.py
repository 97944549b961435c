# SPDX-License-Identifier: MIT
"""Where everything was made, against the program's own account: it writes down its own stack beside each descriptor that
it opens, each thread and child that it starts and each mapping that it makes, and pyspyd must say the same of all of
them: the same functions on the same lines, outwards from where the program's own code made it."""

import json
import os
import subprocess
import sys

import live

DRIVER = os.path.join(live.BUILD, "tests/live/origins_driver")
NOBODY = 65534

PROGRAM = r'''
import warnings
warnings.simplefilter("ignore")
import array, fcntl, json, mmap, os, select, socket, subprocess, sys, threading, time

account = []
kept = []
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(64)
name = os.__file__
sleeper = [sys.executable, "-c", "import time; time.sleep(1000)"]


def here():
    frame, stack = sys._getframe(1), []
    while frame:
        stack.append((frame.f_code.co_name, frame.f_lineno))
        frame = frame.f_back
    return stack


def note(what, ids, stack):
    for n in ids if isinstance(ids, (list, tuple)) else (ids,):
        account.append((what, n, stack))


def keep(thing, stack):
    kept.append(thing)
    note("descriptor", thing.fileno(), stack)
    return thing


def tid():  # a tree of its own may have no /proc
    return threading.get_native_id() if hasattr(threading, "get_native_id") else int(os.readlink("/proc/thread-self").rsplit("/", 1)[1])


def files():
    note("descriptor", os.open(name, 0), here())
    keep(open(name), here())
    with open(name) as closed:
        again = closed.fileno()
    note("descriptor", os.open(name, 0), here())


def sockets():
    note("descriptor", [s.detach() for s in socket.socketpair()], here())
    one = keep(socket.socket(), here())
    one.connect(listener.getsockname())
    keep(listener.accept()[0], here())


def pipes():
    note("descriptor", os.pipe(), here())
    if hasattr(os, "pipe2"): note("descriptor", os.pipe2(0), here())


def copies():
    note("descriptor", os.dup(0), here())
    note("descriptor", os.dup2(0, 200), [("copies", sys._getframe().f_lineno)] + here()[1:]) if sys.version_info >= (3, 7) else os.dup2(0, 200)
    note("descriptor", fcntl.fcntl(0, fcntl.F_DUPFD, 300), here())
    note("descriptor", fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 310), here())


def others():
    keep(select.epoll(), here())
    if hasattr(os, "memfd_create"): note("descriptor", os.memfd_create("m"), here())
    if hasattr(os, "eventfd"): note("descriptor", os.eventfd(0), here())
    if hasattr(os, "timerfd_create"): note("descriptor", os.timerfd_create(1), here())
    if hasattr(os, "pidfd_open"): note("descriptor", os.pidfd_open(os.getpid()), here())


def passed():
    a, b = socket.socketpair()
    kept.extend((a, b))
    a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1]))])
    got = b.recvmsg(1, socket.CMSG_LEN(8)); stack = here()
    fds = array.array("i")
    fds.frombytes(got[1][0][2][:8])
    note("descriptor", list(fds), stack)


def threads():
    begun = []
    def run():
        begun.append(tid())
        ended.wait()
    thread = threading.Thread(target=run, daemon=True)
    thread.start(); stack = here()
    while not begun:
        time.sleep(0.001)
    note("thread", begun[0], stack)


def children():
    child = subprocess.Popen(sleeper); stack = here()
    kept.append(child)
    note("child", child.pid, stack)
    pid = os.fork(); stack = here()
    if not pid:
        time.sleep(1000)
    note("child", pid, stack)
    if hasattr(os, "posix_spawn"):
        note("child", os.posix_spawn(sys.executable, sleeper, {}), here())
    os.waitpid(os.fork() or os._exit(0), 0)


def mappings(n):
    kept.append(mmap.mmap(-1, n)); stack = here()
    note("mapping", n, stack)
    with open(name, "rb") as f:
        kept.append(mmap.mmap(f.fileno(), 3 * 4096, access=mmap.ACCESS_READ))


def deep(n, function, *args):
    if n: return deep(n - 1, function, *args)
    function(*args)


def generated(function):
    for step in (lambda: None, function):
        yield step()


class Opener:
    def __enter__(self):
        self.fd = os.open(name, 0); note("descriptor", self.fd, here())
        return self
    def __exit__(self, *_):
        pass


def fleeting(i):
    space = {"os": os, "note": note, "here": here, "name": name}
    exec("def made_%d():\n%s    note('descriptor', os.open(name, 0), here())\nmade_%d()\n" % (i, "\n" * (i % 7), i), space)


def all_of_it(n):
    for function in (files, sockets, pipes, copies, others, passed):
        function()
    deep(40, files)
    list(generated(pipes))
    with Opener():
        pass
    for i in range(20):
        fleeting(i)
    threads()
    children()
    mappings(n)


ended = threading.Event()
print("ready", flush=True)
sys.stdin.readline()
all_of_it((1 << 20) + 4096)
worker = threading.Thread(target=deep, args=(5, all_of_it, (1 << 20) + 8192), name="worker")
worker.start()
worker.join()
account.sort(key=lambda row: (row[0] != "descriptor", row[1]))
newest = {}
for what, number, stack in account:
    newest[what, number] = stack
print(json.dumps([[w, n, s] for (w, n), s in newest.items()]), flush=True)
sys.stdin.readline()
'''

TRIES = 5


class Driver:
    def __init__(self, pid, prefix=()):
        self.process = subprocess.Popen(list(prefix) + [DRIVER, str(pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = self.process.stdout.readline().decode().strip()
        if line != "watching":
            if self.process.wait() == 77:
                live.skip(line)
            raise RuntimeError("driver: " + line)

    def ask(self, what):
        self.process.stdin.write(what.encode() + b"\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().decode().strip()

    def look(self):
        return json.loads(self.ask("look"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def compare(checks, name, account, seen):
    by_key = {}
    for thing in seen["things"]:
        key = thing["bytes"] if thing["what"] == "mapping" else thing["id"]
        by_key[thing["what"], key] = thing
    counts = {}
    for what, number, expected in account:
        thing = by_key.get((what, number))
        if not checks.that(thing is not None, "%s: %s %d was not seen to be made at %s" % (name, what, number, expected[:2])):
            continue
        stack = [(f["function"], f["line"]) for f in seen["places"][thing["place"]]["stack"]]
        tail = stack[-len(expected):]
        expected = [tuple(row) for row in expected]
        # Code objects that were freed before anybody could look at them may be unknown, but never mistaken.
        unknown = [i for i, row in enumerate(tail) if row[0] == "?"]
        right = len(tail) == len(expected) and all(
            a == b or (a[0] == "?" and b[0].startswith(("made_", "<module>"))) for a, b in zip(tail, expected))
        counts["unknown"] = counts.get("unknown", 0) + bool(unknown)
        counts[what] = counts.get(what, 0) + 1
        differs = next((i for i, (a, b) in enumerate(zip(tail, expected)) if a != b), 0)
        checks.that(right, "%s: %s %d by %s: %s, and not %s (from the %dth)" % (
            name, what, number, thing["call"], tail[differs:differs + 4], expected[differs:differs + 4], differs))
    for wanted in ("descriptor", "thread", "child", "mapping"):
        checks.that(counts.get(wanted, 0) >= 2, "%s: too few of %s" % (name, wanted))
    checks.that(seen["left_out"] == 0, "%s: %d were left out" % (name, seen["left_out"]))
    return counts


def observe(command, prefix):
    """Return: the target's account, or what it said instead; what was seen of it."""
    with live.Target(command, PROGRAM) as target:
        target.ready()
        with Driver(target.pid, prefix) as driver:
            target.say("go\n")
            text = target.line()
            seen = driver.look()
        subprocess.run(["sh", "-c", "kill $(cat /proc/%d/task/*/children) 2>/dev/null" % target.pid])
    return text, seen


def trial(checks, name, command, prefix=()):
    for _ in range(TRIES):  # on a host that makes very many system calls the program is away for a part of the time
        text, seen = observe(command, prefix)
        if not seen["paused_s"]:
            break
    if not checks.that(text.startswith("["), "%s: the target has no account: %s" % (name, text[:200])):
        return
    if not checks.that(not seen["paused_s"], "%s: it was away in each of %d tries" % (name, TRIES)):
        return
    counts = compare(checks, name, json.loads(text), seen)
    live.note("%s: %s" % (name, ", ".join("%d %s" % (n, what) for what, n in sorted(counts.items()))))


PAUSED = r'''
import os, socket, sys, threading
keep = []

def leak(): keep.extend((os.open(os.__file__, 0), socket.socket()))
def first(): return socket.socket()
def second(): return socket.socket()
def late(): keep.append(os.open(os.__file__, 0))

print("ready", flush=True)
sys.stdin.readline()
leak()
fleeting = first()
print(keep[0], keep[1].fileno(), fleeting.fileno(), flush=True)
sys.stdin.readline()
fleeting.close()
fleeting = second()
late()
print(fleeting.fileno(), keep[-1], flush=True)
sys.stdin.readline()
late()
print(keep[-1], flush=True)
sys.stdin.readline()
'''


def paused(checks, command):
    """Where it would cost too much nothing is seen for a while: what stood before, and is the same behind it, is known
    still; what took the place of another in the meantime is not taken for that."""
    def next_step():
        target.say()
        return [int(word) for word in target.line().split()]

    with live.Target(command, PAUSED) as target, Driver(target.pid) as driver:
        target.ready()
        *leaked, fleeting = next_step()
        for _ in range(3):  # each takes longer than a thing has to stand
            driver.look()
        checks.that(driver.ask("hold") == "held", "paused: no pause")
        again, unseen = next_step()
        checks.that(again == fleeting, "paused: %d and not %d" % (again, fleeting))
        checks.that(driver.ask("go") == "goes", "paused: no end")
        late, = next_step()
        seen = driver.look()
        made = {thing["id"]: [frame["function"] for frame in seen["places"][thing["place"]]["stack"]]
                for thing in seen["things"] if thing["what"] == "descriptor"}
        for fd in leaked:
            checks.that("leak" in made.get(fd, []), "paused: %d is by %s" % (fd, made.get(fd)))
        checks.that(fleeting not in made, "paused: another socket is taken for the first one: %s" % made.get(fleeting))
        checks.that(unseen not in made, "paused: made in the pause: %s" % made.get(unseen))
        checks.that("late" in made.get(late, []), "paused: behind it: %s" % made.get(late))
        checks.that(seen["paused_s"] > 0, "paused: for no time")


def waits_for_events(pid):
    try:
        with open("/proc/%d/syscall" % pid) as f:
            return f.read().split()[0] in ("232", "281", "22")  # epoll_wait, epoll_pwait
    except (OSError, IndexError):
        return False


def command_line(checks, command):
    """pyspyd handles: what is there from before is said to be so, and a signal ends the wait."""
    program = ("import os, sys\nold = open(os.__file__)\nprint('ready', flush=True)\n"
               "def leak(): keep.append(os.open(os.__file__, 0))\nkeep = []\n"
               "while sys.stdin.readline(): leak()\n")
    with live.Target(command, program) as target:
        target.ready()
        run = subprocess.Popen([live.PYSPYD, "handles", "--json", "--origins", "1h", "--pid", str(target.pid)],
                               stdout=subprocess.PIPE)
        # Attached, as the thing itself is seen from outside: its ring is being waited for.
        live.wait_until(lambda: run.poll() is not None or waits_for_events(run.pid))
        for _ in range(3):
            target.say("go\n")
        # Opened, and out of the last call.
        live.wait_until(lambda: len(os.listdir("/proc/%d/fd" % target.pid)) >= 7 and target.reads())
        run.send_signal(2)
        out = json.loads(run.communicate(timeout=live.COMMAND_S)[0].decode())
        origins = out["origins"]
        checks.that(run.returncode == 0, "handles exits with %d" % run.returncode)
        checks.that(origins["why_not"] is None, "handles: %s" % origins["why_not"])
        place = origins["places"][0] if origins["places"] else {"count": 0, "stack": [{"function": ""}], "own": 0}
        checks.that(place["count"] == 3 and place["stack"][place["own"]]["function"] == "leak", "handles: %s" % place)
        checks.that(origins["unseen"]["descriptor"] == 4, "handles: unseen %s" % origins["unseen"])
        checks.that(origins["unseen"]["thread"] == 1, "handles: unseen %s" % origins["unseen"])
        groups = [g for g in out["groups"] if g["created"]]
        checks.that(len(groups) == 1 and groups[0]["created"][0]["function"] == "leak", "handles: groups %s" % groups)


def without_privileges(checks, command):
    """Without what eBPF needs: the reason is said, and the rest is there."""
    prefix = ["setpriv", "--reuid", str(NOBODY), "--clear-groups", "--inh-caps", "-all,+sys_ptrace,+dac_read_search",
              "--ambient-caps", "-all,+sys_ptrace,+dac_read_search", "--bounding-set", "-all,+sys_ptrace,+dac_read_search"]
    with live.Target(command, "import sys\nprint('ready', flush=True)\nsys.stdin.read()\n") as target:
        target.ready()
        status, out, err = live.pyspyd("handles", "--json", "--origins", "100ms", "--pid", target.pid, prefix=prefix)
        if not checks.that(status == 0, "without privileges: exit %d: %s" % (status, err)):
            return
        found = json.loads(out)
        checks.that("CAP_BPF" in (found["origins"]["why_not"] or ""), "without privileges: %s" % found["origins"])
        checks.that(found["descriptors"] >= 3, "without privileges: %s" % found["descriptors"])


LEAKS = (("leaking_files", "handle-leak", "handle_request"), ("leaking_connections", "handle-leak", "connect"),
         ("leaking_threads", "thread-leak", "handle_job"), ("leaking_processes", "process-leak", "start_helper"))


def findings(checks):
    """While something seems to leak it is seen who makes it, without being asked for: the finding names the line."""
    runs = []
    for name, kind, wanted in LEAKS:
        path = os.path.join(live.HERE, "../scenarios/leaks", name + ".py")
        target = live.Target([sys.executable, "-u", path])
        target.ready()
        watch = subprocess.Popen(
            [live.PYSPYD, "watch", "--json", "--interval", "200ms", "--leak-window", "12s", "--exit-on", kind, "--duration",
             "90s", "--set", "thread-leak.pct=20", "--set", "process-leak.pct=20", "--pid", str(target.pid)],
            stdout=subprocess.PIPE)
        runs.append((name, kind, wanted, target, watch))
    for name, kind, wanted, target, watch in runs:
        with target:
            lines = watch.communicate(timeout=120)[0].decode().splitlines()
            found = [finding for finding in map(json.loads, lines) if finding.get("kind") == kind]
            subprocess.run(["sh", "-c", "kill $(cat /proc/%d/task/*/children) 2>/dev/null" % target.pid])
        if not checks.that(found, "%s: no %s" % (name, kind)):
            continue
        stacks = found[0]["evidence"].get("creation_stacks") or [{"own": 0, "stack": [{"function": "", "qualname": "", "line": 0}], "share": 0}]
        own = stacks[0]["stack"][stacks[0]["own"]]
        checks.that(own["function"] == wanted,
                    "%s: made by %s, %s" % (name, own, found[0]["evidence"].get("creation_stacks_why_not")))
        checks.that(stacks[0]["share"] > 0.9, "%s: share %s" % (name, stacks[0]["share"]))
        checks.that("came from %s (%s.py:%d)" % (own["qualname"], name, own["line"]) in found[0]["summary"],
                    "%s: %s" % (name, found[0]["summary"]))
        checks.that("%s.py:%d" % (name, own["line"]) in found[0]["advice"], "%s: %s" % (name, found[0]["advice"]))


def main():
    if os.geteuid():
        live.skip("needs root")
    checks = live.Checks()
    found = live.interpreters("*")
    for name, _, command in found:
        trial(checks, name, command)
    name, _, command = found[0]
    caps = "-all,+bpf,+perfmon,+sys_ptrace"
    trial(checks, name + " as another user with three capabilities", command,
          ["setpriv", "--reuid", str(NOBODY), "--clear-groups", "--inh-caps", caps, "--ambient-caps", caps])
    paused(checks, command)
    command_line(checks, command)
    without_privileges(checks, command)
    findings(checks)
    checks.end()


main()
