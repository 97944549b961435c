# SPDX-License-Identifier: MIT
"""pyspyd handles against a program that opens known descriptors of every kind, starts threads and children, leaves a
zombie, maps memory, and prints its own account of all that. With --diff the program opens more between the looks."""

import json
import os
import shutil
import signal
import stat
import subprocess

import live

# 3.6 to 3.15. In a chroot there is no /proc: the account is of what the program made, not of what it reads there.
PROGRAM = r"""
import json, mmap, os, select, socket, sys, tempfile, threading
FOLDER = tempfile.mkdtemp()
account = {"kinds": {}, "targets": {}, "threads": {}}
keep = []

def made(kind, target, *fds):
    account["kinds"][kind] = account["kinds"].get(kind, 0) + len(fds)
    key = kind + "|" + target
    account["targets"][key] = account["targets"].get(key, 0) + len(fds)

def files(n, start=0):
    for i in range(start, start + n):
        fd = os.open(os.path.join(FOLDER, "req-%d.log" % i), os.O_CREAT | os.O_RDWR)
        made("file", os.path.join(FOLDER, "req-*.log"), fd)

def connections(n):
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(n)
    port = server.getsockname()[1]
    keep.append(server)
    made("socket", "tcp LISTEN at 127.0.0.1:%d" % port, server.fileno())
    for _ in range(n):
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        keep.append((client, accepted))
        made("socket", "tcp ESTABLISHED to 127.0.0.1:%d" % port, client.fileno())
        made("socket", "tcp ESTABLISHED accepted at 127.0.0.1:%d" % port, accepted.fileno())
    # Peers that have closed, and a side that does not.
    for _ in range(n):
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        keep.append(client)
        accepted.close()
        client.recv(1)  # b"": the end has come
        made("socket", "tcp CLOSE_WAIT to 127.0.0.1:%d" % port, client.fileno())

def others():
    made("directory", FOLDER, os.open(FOLDER, os.O_RDONLY))
    made("device", "/dev/null", os.open("/dev/null", os.O_RDWR))
    r, w = os.pipe()
    made("pipe", "read end", r)
    made("pipe", "write end", w)
    for _ in range(3):
        epoll = select.epoll()
        keep.append(epoll)
        made("epoll", "", epoll.fileno())
    pair = socket.socketpair()
    keep.append(pair)
    made("socket", "unix ESTABLISHED", pair[0].fileno(), pair[1].fileno())
    path = os.path.join(FOLDER, "s.sock")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(1)
    keep.append(listening)
    made("socket", "unix LISTEN " + path, listening.fileno())
    if hasattr(os, "eventfd"):
        made("eventfd", "", os.eventfd(0), os.eventfd(0))
    if hasattr(os, "memfd_create"):
        made("memfd", "/memfd:scratch (deleted)", os.memfd_create("scratch"))

never, _ = os.pipe()
ready = threading.Semaphore(0)
def wait_here():
    ready.release()
    os.read(never, 1)
def fetcher():
    wait_here()
class Pump(threading.Thread):
    def run(self):
        wait_here()
def start(n, make, words):
    for _ in range(n):
        thread = make()
        thread.daemon = True
        thread.start()
        ready.acquire()
    account["threads"][words] = account["threads"].get(words, 0) + n
def fetchers(n):
    start(n, lambda: threading.Thread(target=fetcher), "fetcher")
def pumps(n):
    start(n, Pump, "Pump.run" if sys.version_info >= (3, 11) else "run")
def timers(n):
    for _ in range(n):
        timer = threading.Timer(600, print)
        timer.daemon = True
        timer.start()
    account["threads"]["timer"] = n

def children(n, zombies):
    account["children"], account["zombies"] = [], []
    gate = os.pipe()
    for i in range(n + zombies):
        pid = os.fork()
        if not pid:
            os.close(gate[1])
            if i < n:
                os.read(gate[0], 1)
            os._exit(0)
        if i < n:
            account["children"].append(pid)
        else:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            account["zombies"].append(pid)
    os.close(gate[0])

def memory():
    keep.append(mmap.mmap(-1, 12345 * 4096))  # shared, anonymous
    fd = os.open(os.path.join(FOLDER, "mapped.bin"), os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, 321 * 4096)
    keep.append(mmap.mmap(fd, 321 * 4096))  # a descriptor of its own, too
    account["mapped"] = os.path.join(FOLDER, "mapped.bin")
    made("file", account["mapped"], fd, fd)

def shared():
    # A chroot has no file system for it.
    account["shm"] = account["semaphores"] = 0
    if not os.path.ismount("/dev/shm"):
        return
    import _multiprocessing
    for i in range(3):
        name = "/pyspyd-%d-%d" % (os.getpid(), i)
        keep.append(_multiprocessing.SemLock(1, 1, 1, name, True))
        account["semaphores"] += 1
    fd = os.open("/dev/shm/pyspyd-%d" % os.getpid(), os.O_CREAT | os.O_RDWR | os.O_EXCL)
    os.unlink("/dev/shm/pyspyd-%d" % os.getpid())
    os.ftruncate(fd, 77 * 4096)
    keep.append(mmap.mmap(fd, 77 * 4096))
    account["shm"] = 77 * 4096

def here():
    print(json.dumps(account), flush=True)
    sys.stdin.readline()

children(3, 2)
files(5)
connections(4)
others()
fetchers(3)
pumps(2)
timers(1)
memory()
shared()
import resource
account["limit"] = resource.getrlimit(resource.RLIMIT_NOFILE)
here()
for n in range(50):
    files(7, 5 + 7 * n)
    fetchers(2)
    here()
"""
# There are others besides those of the account: standard streams, what threads and children wait for.
BEFORE = {"pipe|read end", "pipe|write end"}


def look(pid):
    status, out, err = live.pyspyd("handles", "--json", "--pid", pid)
    return (json.loads(out) if status == 0 else None), "exit %d: %s" % (status, err.strip())


def seen_from_here(pid, account):
    """The account with the paths that the kernel shows us of a program in a chroot."""
    root = os.readlink("/proc/%d/root" % pid).rstrip("/")
    account["targets"] = {key.replace("|/", "|" + root + "/") if not key.startswith("memfd") else key: n
                          for key, n in account["targets"].items()}
    account["mapped"] = root + account["mapped"]
    return account


def counts(found, what, key="kind"):
    return {row["kind"] + ("" if key == "kind" else "|" + row["target"]): row["count"]
            for row in found["kinds" if key == "kind" else "groups"] if row["what"] == what}


def pipes(pid):
    """How many descriptors are read ends and write ends, as the links' permissions have it."""
    ends = {stat.S_IRUSR: 0, stat.S_IWUSR: 0}
    folder = "/proc/%d/fd/" % pid
    for fd in os.listdir(folder):
        if os.readlink(folder + fd).startswith("pipe:"):
            ends[os.lstat(folder + fd).st_mode & (stat.S_IRUSR | stat.S_IWUSR)] += 1
    return ends[stat.S_IRUSR], ends[stat.S_IWUSR]


def descriptors(checks, name, pid, found, account):
    kernel = len(os.listdir("/proc/%d/fd" % pid))
    checks.that(found["descriptors"] == kernel, "%s: %s descriptors, not %d" % (name, found["descriptors"], kernel))
    checks.that(sum(counts(found, "descriptor").values()) == kernel, name + ": the groups do not add up")
    checks.that(found["descriptors_limit"] == account["limit"][0], "%s: limit %s" % (name, found["descriptors_limit"]))
    targets = counts(found, "descriptor", "target")
    kinds = counts(found, "descriptor")
    for key, n in sorted(account["targets"].items()):
        if key not in BEFORE:
            checks.that(targets.get(key) == n, "%s: %s of %s, not %d: %s" % (name, targets.get(key), key, n, targets))
    for kind, n in account["kinds"].items():
        if kind not in ("pipe", "file"):
            checks.that(kinds.get(kind) == n, "%s: %s of kind %s, not %d" % (name, kinds.get(kind), kind, n))
    ends = pipes(pid)
    checks.that((targets.get("pipe|read end"), targets.get("pipe|write end")) == ends and min(ends) > 1,
                "%s: pipes %s, not %s" % (name, targets, ends))
    for row in found["groups"]:
        if row["what"] == "descriptor":
            good = [os.path.exists("/proc/%d/fd/%d" % (pid, fd)) for fd in row["ids"]]
            checks.that(all(good) and len(good) == min(row["count"], 16), "%s: ids %s" % (name, row))


def threads(checks, name, pid, found, account):
    kernel = {int(tid) for tid in os.listdir("/proc/%d/task" % pid)}
    checks.that({t["tid"] for t in found["threads"]} == kernel, "%s: threads %s" % (name, found["threads"]))
    started = {}
    for thread in found["threads"]:
        checks.that(thread["kind"] == "python" and thread["start"] and thread["created"] is None, "%s: %s" % (name, thread))
        start = thread["start"]["qualname"]
        started[start] = started.get(start, 0) + 1
        if thread["tid"] == pid:
            checks.that(start == "<module>" and thread["runs"]["function"] == "here", "%s: main: %s" % (name, thread))
        elif thread["start"]["module"] != "threading":
            checks.that(thread["runs"]["function"] == "wait_here", "%s: runs %s" % (name, thread["runs"]))
    for words, n in account["threads"].items():
        # Timer.run and Thread.run have no other name before 3.11.
        have = started.get("Timer.run" if sys_at_least(found, 11) else "run", 0) if words == "timer" else started.get(words, 0)
        if not sys_at_least(found, 11) and words in ("run", "timer"):
            have = have - (account["threads"]["timer"] if words == "run" else account["threads"]["run"])
        checks.that(have == n, "%s: %s threads of %s, not %d: %s" % (name, have, words, n, started))
    groups = counts(found, "thread", "target")
    checks.that(sum(groups.values()) == len(kernel), "%s: groups of threads: %s" % (name, groups))


def sys_at_least(found, minor):
    return int(found["process"]["python"].split(".")[1]) >= minor


def rest(checks, name, pid, found, account):
    children = {c["pid"]: c for c in found["children"]}
    checks.that(set(children) == set(account["children"] + account["zombies"]), "%s: children %s" % (name, children))
    checks.that({p for p, c in children.items() if c["state"] == "Z"} == set(account["zombies"]),
                "%s: zombies %s" % (name, children))
    checks.that(all(c["age_s"] >= 0 and c["name"] for c in children.values()), "%s: %s" % (name, children))
    checks.that(counts(found, "child") == {"child": 3, "zombie": 2}, "%s: %s" % (name, counts(found, "child")))
    with open("/proc/%d/maps" % pid) as f:
        lines = [line.split(None, 5) for line in f]
    bytes_of = {}
    for row in found["groups"]:
        if row["what"] == "mapping":
            bytes_of[row["kind"], row["target"]] = row["bytes"]
    checks.that(bytes_of.get(("file", account["mapped"])) == 321 * 4096, "%s: mapped file: %s" % (name, bytes_of))
    checks.that(bytes_of.get(("shared-memory", "/dev/zero (deleted)")) == 12345 * 4096, "%s: shared: %s" % (name, bytes_of))
    semaphores = counts(found, "mapping").get("semaphore", 0)
    checks.that(semaphores == account["semaphores"], "%s: %d semaphores, not %d" % (name, semaphores, account["semaphores"]))
    shm = sum(n for (kind, path), n in bytes_of.items() if kind == "shared-memory" and "/dev/shm/pyspyd-" in path)
    checks.that(shm == account["shm"], "%s: shared memory %d: %s" % (name, shm, bytes_of))
    heap = sum(int(l[0].split("-")[1], 16) - int(l[0].split("-")[0], 16) for l in lines if l[5:] and l[5].strip() == "[heap]")
    checks.that(bytes_of.get(("heap", ""), 0) == heap, "%s: heap %d: %s" % (name, heap, bytes_of))
    checks.that(found["mappings"] == len(lines), "%s: %s mappings, not %d" % (name, found["mappings"], len(lines)))
    checks.that(not found["incomplete"] and found["between_s"] is None, name + ": incomplete")


def grown(checks, name, target):
    """The target goes on between the looks; a signal ends the wait for the second one."""
    done = subprocess.Popen([live.PYSPYD, "handles", "--json", "--diff", "1h", "--pid", str(target.pid)],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # It sleeps between its looks in nanosleep: the first is over.
    live.wait_until(lambda: done.poll() is not None or sleeps(done.pid))
    target.say()
    target.ready_and_resting()
    done.send_signal(signal.SIGINT)
    out, err = done.communicate(timeout=live.COMMAND_S)
    if not checks.that(done.returncode == 0, "%s: --diff: %s" % (name, err)):
        return
    found = json.loads(out.decode())
    grew = {row["kind"] + "|" + row["target"]: row["grew"] for row in found["groups"]
            if row["grew"] and row["what"] != "mapping"}
    files = [key for key in grew if key.endswith("/req-*.log") and key.startswith("file|")]
    checks.that(len(files) == 1 and grew.pop(files[0]) == 7, "%s: grew: %s" % (name, grew))
    workers = [key for key in grew if key.startswith("python|fetcher (")]
    checks.that(len(workers) == 1 and grew.pop(workers[0]) == 2, "%s: grew: %s" % (name, grew))
    checks.that(not grew, "%s: grew too: %s" % (name, grew))
    checks.that(0 < found["between_s"] < 3600, "%s: between %s" % (name, found["between_s"]))


def sleeps(pid):
    """Whether its main thread is in clock_nanosleep or nanosleep."""
    try:
        with open("/proc/%d/syscall" % pid) as f:
            return f.read().split()[0] in NANOSLEEP
    except (OSError, IndexError):
        return False


NANOSLEEP = ("115", "101") if os.uname().machine == "aarch64" else ("230", "35")


def one(checks, name, command):
    with live.Target(command, PROGRAM) as target:
        account = seen_from_here(target.pid, json.loads(target.ready_and_resting()))
        checked(checks, name, target, account)
    shutil.rmtree(os.path.dirname(account["mapped"]))


def checked(checks, name, target, account):
    found, said = look(target.pid)
    if not checks.that(found, "%s: %s" % (name, said)):
        return
    descriptors(checks, name, target.pid, found, account)
    threads(checks, name, target.pid, found, account)
    rest(checks, name, target.pid, found, account)
    status, text, _ = live.pyspyd("handles", "--pid", target.pid)
    for word in ("Descriptors: ", "req-*.log", "tcp CLOSE_WAIT to 127.0.0.1:", "fetcher (", "2 of them zombies"):
        checks.that(status == 0 and word in text, "%s: the text lacks %r: %s" % (name, word, text))
    grown(checks, name, target)


def main():
    checks = live.Checks()
    for name, _, command in live.interpreters():
        one(checks, name, command)
        live.note(name)
    checks.end()


main()
