# SPDX-License-Identifier: MIT
"""What the live tests share: interpreters, targets that say when they are ready, pyspyd, and checks that are counted.

A target prints one line when it is where it should be, and ends when its stdin is closed; nothing waits by the clock."""

import fnmatch
import json
import os
import select
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.abspath(os.environ.get("BUILD") or os.path.join(HERE, "../../build"))
PYSPYD = os.environ.get("PYSPYD") or os.path.join(BUILD, "pyspyd")
READY_S = 100  # as long as something may take on a machine that has much else to do: then it does not come
COMMAND_S = 120
POLL_S = 0.002
REST_S = 0.02  # longer than a thread that wants the GIL sleeps at a time
READ = ("63",) if os.uname().machine == "aarch64" else ("0",)


class Checks:
    """Failures are said at once; `end` turns them into the script's exit status."""

    def __init__(self):
        self.failed = 0
        self.passed = 0

    def that(self, ok, text):
        if ok:
            self.passed += 1
        else:
            self.failed += 1
            print("FAIL " + text.encode("ascii", "backslashreplace").decode().replace("\n", "\\n")[:800], flush=True)
        return ok

    def end(self):
        print("%d checks passed, %d failed" % (self.passed, self.failed))
        sys.exit(1 if self.failed else 0)


def skip(reason):
    print(reason)
    sys.exit(77)


def note(text):
    print(text, flush=True)


def interpreters(default="*"):
    """(name, version, command), those that match the script's arguments or LIVE_INTERPRETERS."""
    patterns = sys.argv[1:] or os.environ.get("LIVE_INTERPRETERS", default).split()
    listing = subprocess.run([os.path.join(HERE, "../../tools/interpreters")], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, timeout=120).stdout.decode()
    found = []
    for line in listing.splitlines():
        name, command = line.split("\t")[:2]
        if any(fnmatch.fnmatch(name, p) for p in patterns):
            version = tuple(int(n) for n in name.split("-")[0].rstrip("t").split(".")[:2])
            found.append((name, version, command.split()))
    if not found:
        skip("no interpreter found")
    return found


def wait_until(condition, seconds=READY_S):
    """Return: the condition's last value, which is false where it did not come true."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(POLL_S)


def threads_of(pid):
    """Tid → state, and what changes whenever it runs; {} where the process has ended."""
    found = {}
    try:
        for tid in os.listdir("/proc/%d/task" % pid):
            folder = "/proc/%d/task/%s/" % (pid, tid)  # a name may be no text
            with open(folder + "stat", errors="replace") as stat, open(folder + "schedstat") as ran:
                found[int(tid)] = (stat.read().rsplit(")", 1)[1].split()[0], ran.read())
    except OSError:
        pass  # one that has ended
    return found


def wait_at_rest(pid, busy=0):
    """Until all its threads but so many sleep where they will stay: none of the others has run between two looks.
    Return: whether they do."""
    before = {}

    def rests():
        nonlocal before
        now, then = threads_of(pid), before
        before = now
        if now and now.keys() == then.keys():
            if sum(now[tid] != then[tid] or now[tid][0] != "S" for tid in now) <= busy:
                return True
        time.sleep(REST_S)
        return False

    return wait_until(rests)


class Target:
    """A process that was started and is killed at the end of a `with`."""

    def __init__(self, command, program=None, **options):
        argv = list(command) + (["-u", "-c", program] if program is not None else [])
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
        self.pid = self.process.pid
        self.printed = b""  # what no line was made of so far

    def line(self):
        """The next line that it prints; "" where it does not."""
        end = time.monotonic() + READY_S
        while b"\n" not in self.printed:
            left = max(end - time.monotonic(), 0)
            if not select.select([self.process.stdout], [], [], left)[0]:
                return ""
            more = os.read(self.process.stdout.fileno(), 1 << 16)
            if not more:
                break
            self.printed += more
        text, _, self.printed = self.printed.partition(b"\n")
        return text.decode()

    def ready(self):
        text = self.line()
        if not text:
            raise RuntimeError("the target did not get ready")
        return text

    def ready_and_reading(self):
        """`ready`, and its main thread sleeps in read(0, …): it wants the GIL no more."""
        text = self.ready()
        if not wait_until(self.reads):
            raise RuntimeError("the target does not read its stdin")
        return text

    def reads(self):
        with open("/proc/%d/syscall" % self.pid) as f:
            words = f.read().split()
        return words[0] in READ and words[1] == "0x0"

    def ready_and_resting(self, busy=0):
        """`ready`, and all its threads but so many sleep where they will stay."""
        text = self.ready()
        if not wait_at_rest(self.pid, busy):
            raise RuntimeError("the target's threads do not come to rest")
        return text

    def say(self, text="\n"):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def pyspyd(*args, prefix=(), timeout=COMMAND_S, **options):
    """Runs it. Return: exit status, stdout, stderr."""
    done = subprocess.run(list(prefix) + [PYSPYD] + [str(a) for a in args], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, **options)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def dump(pid, *args, **options):
    """Return: the parsed dump, or None; and what was said on stderr with the exit status."""
    status, out, err = pyspyd("dump", "--json", "--pid", pid, *args, **options)
    return (json.loads(out) if status == 0 else None), "exit %d: %s" % (status, err.strip())


def functions(thread):
    return [frame["function"] for frame in thread["stack"]]


def thread_with(dumped, function):
    for thread in dumped["threads"]:
        if function in functions(thread):
            return thread
    return None


def wait_attached(recording, pid):
    """Until it keeps files of the target's threads open, as it does of those that it samples; or has ended."""
    folder = "/proc/%d/fd" % recording.pid

    def keeps():
        try:
            return any(os.readlink(os.path.join(folder, fd)).startswith("/proc/%d/task/" % pid) for fd in os.listdir(folder))
        except OSError:
            return False

    wait_until(lambda: recording.poll() is not None or keeps())


def cpu_seconds(pid):
    """What it has used so far; 0 where it has ended."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            words = f.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def state_of(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def stolen():
    """Seconds in which a CPU had something to run, but the host of this machine ran something else."""
    with open("/proc/stat") as f:
        return int(f.readline().split()[8]) / os.sysconf("SC_CLK_TCK")
