# SPDX-License-Identifier: MIT
"""The service's socket: what a user is told, what another one is not, and clients that mean harm."""

import grp
import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time

import live

DRIVER = os.path.join(live.BUILD, "tests/live/socket_driver")
EPROTO, EBUSY, USAGE = -71, -16, 4
NOBODY = 65534
START_NS = 1700000000 * 10**9
LIMIT_UID, RATE, ACCEPTS = 8, 20, 200
MEMORY_MAX_KIB = 96 << 10


class Closed(Exception):
    pass


class Client:
    """One connection, spoken by hand."""

    def __init__(self, path, hello=True):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.socket.settimeout(60)
        self.hello = self.frame()[1] if hello else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def exactly(self, n):
        data = b""
        while len(data) < n:
            more = self.socket.recv(min(n - len(data), 1 << 16))
            if not more:
                raise Closed
            data += more
        return data

    def frame(self):
        n, letter = struct.unpack(">Ic", self.exactly(5))
        data = self.exactly(n)
        return (letter, json.loads(data)) if letter == b"J" else (letter, data)

    def send(self, request, letter=b"J"):
        data = request if isinstance(request, bytes) else json.dumps(request).encode()
        self.socket.sendall(struct.pack(">Ic", len(data), letter) + data)

    def answer(self):
        """Everything up to the end, and the end."""
        got = []
        while True:
            letter, what = self.frame()
            if letter == b"J" and what.get("end"):
                return got, what
            got.append(what)

    def ask(self, request, **members):
        self.send(dict({"request": request}, **members))
        return self.answer()

    def is_closed(self):
        try:
            return not self.socket.recv(1)
        except ConnectionResetError:
            return True


class Service(live.Target):
    def __init__(self, folder, name="service.sock", store="store.db", extra=(), prefix=(), **options):
        self.path = os.path.join(folder, name)
        super().__init__([*prefix, DRIVER, self.path, os.path.join(folder, store), *extra], **options)
        self.ready()

    def stats(self):
        self.say("stats\n")
        return {k: int(v) for k, v in (word.split("=") for word in self.line().split())}

    def settled(self):
        """The number of its connections, when those that we closed are gone."""
        for _ in range(10000):
            if not self.stats()["open"]:
                return True
        return False

    def peak_kib(self):
        with open("/proc/%d/status" % self.pid) as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))


def seqs(events):
    return [event["seq"] for event in events]


def check_findings(checks, service):
    with Client(service.path) as c:
        checks.that(c.hello["schema"] == "pyspyd.socket/1", "hello: %r" % c.hello)
        checks.that(c.hello["sees"] == ("all" if not os.getuid() else "own"), "hello sees %r" % c.hello)
        for members, want in (
                ({}, range(1, 13)), ({"latest": True}, [2, 4, 6, 8, 10, 12]), ({"open": True}, [2, 6, 10]),
                ({"kind": "deadlock"}, [3, 4, 7, 8, 11, 12]), ({"pid": 200}, [5, 6, 7, 8]), ({"pid": 4}, []),
                ({"id": "01J%023d" % 2}, [5, 6]), ({"after_seq": 10}, [11, 12]), ({"most": 3}, [1, 2, 3]),
                ({"since_ns": START_NS + 3 * 10**9, "until_ns": START_NS + 5 * 10**9}, [3, 4])):
            got, end = c.ask("findings", **members)
            checks.that(seqs(got) == list(want), "findings %r: %r" % (members, seqs(got)))
            checks.that(end["seq"] == (3 if "most" in members else 12), "findings %r: end %r" % (members, end))
        checks.that(got[0]["event"]["schema"] == "pyspyd.finding/1", "event: %r" % got[0])
        checks.that(c.ask("status") == ([{"status": {"answer": 42}}], {"end": True}), "status")


def check_processes(checks, service):
    with Client(service.path) as c:
        got, end = c.ask("processes")
        rows = {row["process"]["pid"]: row["process"] for row in got}
        checks.that(end == {"end": True}, "processes: end %r" % end)
        checks.that(len(got) == 2003 and len(rows) == 2003, "%d processes" % len(got))
        checks.that(rows[100]["watched"] and not rows[200]["watched"], "which is watched")
        checks.that([rows[pid]["findings_open"] for pid in (100, 200, 1000)] == [1, 1, 0], "open findings")
        checks.that(rows[300]["uid"] == 1000 and rows[300]["start_ns"] == START_NS, "process %r" % rows[300])
        checks.that(rows[100]["cmdline"] == "python3 \\x1b[2J\ufffd app.py", "cmdline %r" % rows[100]["cmdline"])


def check_profiles(checks, service):
    minute = 60 * 10**9
    with Client(service.path) as c:
        got, end = c.ask("profiles", pid=300)
        heads, data = got[::2], got[1::2]
        checks.that(end == {"end": True} and len(heads) == len(data) == 40, "profiles: %d, %r" % (len(got), end))
        checks.that(all(d == bytes([i]) * 100000 for i, d in enumerate(data)), "profiles: other bytes")
        checks.that([h["profile"]["start_ns"] for h in heads] == [START_NS + i * minute for i in range(40)],
                    "profiles: times")
        checks.that(heads[0]["profile"]["process_start_ns"] == START_NS, "profiles: whose")
        got, _ = c.ask("profiles", pid=300, since_ns=START_NS + 90 * 10**9, until_ns=START_NS + 200 * 10**9)
        checks.that([d[0] for d in got[1::2]] == [1, 2, 3], "profiles in a stretch of time")
        checks.that(c.ask("profiles", pid=999) == ([], {"end": True}), "profiles of nobody")
        checks.that(c.ask("profiles")[1].get("code") == USAGE, "profiles without a pid")


def check_wrong(checks, service):
    for what, data in (("another letter", b"\0\0\0\2X{}"), ("a giant", b"\xff\xff\xff\xffJ"), ("bytes", b"\0\0\0\2B{}"),
                       ("a byte too long", struct.pack(">Ic", 65537, b"J")), ("HTTP", b"GET /metrics HTTP/1.0\r\n\r\n")):
        with Client(service.path) as c:
            c.socket.sendall(data)
            checks.that(c.answer()[1].get("code") == EPROTO, what + ": not refused")
            checks.that(c.is_closed(), what + ": not closed")
    for data in (b"", b"\0", b"\0\0\0\2", b"\0\0\0\2J{", struct.pack(">Ic", 65536, b"J") + b" " * 65535):
        with Client(service.path) as c:
            c.socket.sendall(data)
    with Client(service.path) as c:
        for bad in (b"", b"{", b"[]", b"\xff", b"[" * 60000, b'{"request":"stop"}', b'{"request":"findings","x":1}'):
            c.send(bad)
            checks.that(c.answer()[1].get("code") == USAGE, "bad request %r" % bad[:20])
        for byte in b"\0\0\0\x14J" + b'{"request":"status"}':
            c.socket.sendall(bytes([byte]))
        checks.that(len(c.answer()[0]) == 1, "a request byte by byte")
        one = struct.pack(">Ic", 20, b"J") + b'{"request":"status"}'
        c.socket.sendall(one * 10 + one[:7])
        checks.that(all(len(c.answer()[0]) == 1 for _ in range(10)), "requests in a row")
        c.socket.sendall(one[7:])
        c.socket.shutdown(socket.SHUT_WR)
        checks.that(len(c.answer()[0]) == 1 and c.is_closed(), "the last request before our end of the line closed")
    checks.that(service.settled(), "connections stay behind")


def check_many(checks, service):
    before = service.stats()["refused"]
    clients = [Client(service.path, hello=False) for _ in range(200)]
    first = [c.frame()[1] for c in clients]
    greeted = [c for c, said in zip(clients, first) if "schema" in said]
    checks.that(len(greeted) == LIMIT_UID, "%d of 200 were let in" % len(greeted))
    checks.that(sum(said.get("code") == EBUSY for said in first) == 200 - LIMIT_UID, "the others were not told")
    checks.that(service.stats()["refused"] - before == 200 - LIMIT_UID, "refused: %r" % service.stats())
    checks.that(len(greeted[-1].ask("status")[0]) == 1, "those inside are not served")
    for c in clients:
        c.socket.close()
    checks.that(service.settled(), "connections stay behind")
    with Client(service.path) as c:
        checks.that("schema" in c.hello, "nobody is let in after the crowd")


def check_slow(checks, service):
    """Seven want four megabytes each and do not read; the eighth is served, and then they are, whole."""
    clients = [Client(service.path) for _ in range(LIMIT_UID - 1)]
    before, sent = service.peak_kib(), service.stats()["bytes"]
    for c in clients:
        c.send({"request": "profiles", "pid": 100})
    with Client(service.path) as c:
        checks.that(len(c.ask("findings", latest=True)[0]) == 6, "others are held up by slow readers")
        checks.that(len(c.ask("processes")[0]) == 2003, "others are held up by slow readers")
    sent = service.stats()["bytes"] - sent
    checks.that(sent < LIMIT_UID << 20, "%d bytes were sent to who does not read" % sent)
    checks.that(service.peak_kib() - before < LIMIT_UID * 1536, "slow readers cost %d KiB" % (service.peak_kib() - before))
    for c in clients:
        got = c.answer()[0]
        checks.that(len(got) == 80 and all(d == bytes([i]) * 100000 for i, d in enumerate(got[1::2])), "a slow reader's part")
        c.socket.close()


def check_follow(checks, service):
    """One that reads along and one that reads afterwards: both get all of a burst, in order."""
    with Client(service.path) as along, Client(service.path) as late, Client(service.path) as other:
        for c, members in ((along, {"after_seq": 12}), (late, {"open": True}), (other, {"pid": 200, "after_seq": 6})):
            c.send(dict({"request": "findings", "follow": True}, **members))
        checks.that(seqs([late.frame()[1] for _ in range(3)]) == [2, 6, 10], "follow: what is open first")
        checks.that(seqs([other.frame()[1] for _ in range(2)]) == [7, 8], "follow: what is behind a number first")
        service.say("put 10000\n")
        got = [along.frame()[1]["seq"] for _ in range(10000)]
        checks.that(got == list(range(13, 10013)), "follow: something is missing, or out of order")
        checks.that(service.line() == "put 0", "follow: the store failed")
        got = [late.frame()[1]["seq"] for _ in range(10000)]
        checks.that(got == list(range(13, 10013)), "follow, afterwards: something is missing, or out of order")
        other.socket.setblocking(False)
        try:
            checks.that(not other.socket.recv(1), "follow: another process's events")
        except BlockingIOError:
            pass
    checks.that(service.settled(), "followers stay behind")


def check_rate(checks, service):
    """As many requests as fit: those that were taken are counted against the time that passed."""
    one = struct.pack(">Ic", 20, b"J") + b'{"request":"status"}'
    before, start = service.stats()["requests"], time.monotonic()
    clients = [Client(service.path) for _ in range(4)]
    for c in clients:
        c.socket.sendall(one * 25)
    for c in clients:
        checks.that(all(len(c.answer()[0]) == 1 for _ in range(25)), "requests beyond the rate are lost")
        c.socket.close()
    taken, most = service.stats()["requests"] - before, RATE * (time.monotonic() - start) + RATE
    checks.that(100 == taken <= most, "%d requests were taken, at most %.1f might" % (taken, most))


def check_cli(checks, folder, service):
    environment = dict(os.environ, PYSPYD_SOCKET=service.path, TZ="UTC")

    def run(*args):
        return live.pyspyd(*args, env=environment)

    status, out, err = run("findings")
    checks.that(status == 0 and not err and len(out.splitlines()) == 6, "findings: %d %r %r" % (status, out, err))
    checks.that("resolved warning" in out and "01J%023d deadlock: event 4" % 1 in out, "findings: %r" % out)
    for args, want in ((("--open",), 3), (("-n", 2), 2), (("--kind", "deadlock"), 3), (("--pid", 300), 2), (("--pid", 9), 0),
                       (("--since", "2023-11-14T22:13:32Z"), 1), (("--until", "2023-11-14T22:13:23Z"), 1)):
        status, out, _ = run("findings", "--json", *args)
        rows = [json.loads(line) for line in out.splitlines()]
        checks.that(status == 0 and len(rows) == want, "findings %r: %d %r" % (args, status, out))
    status, out, err = run("findings", "--pid", 9)
    checks.that(status == 0 and not out and "no findings" in err, "no findings: %d %r %r" % (status, out, err))
    checks.that([run("findings", *a)[0] for a in (("--since", "x"), ("-n", "0"), ("--follow", "--until", "1m"), ("x",))]
                == [2] * 4, "findings: usage")
    status, out, _ = run("show", "01J%023d" % 0)
    checks.that(status == 0 and "spin (app.py:3)" in out and "last seen: 2023-11-14 22:13:22" in out, "show: %r" % out)
    status, out, _ = run("show", "01J%023d" % 1)
    checks.that(status == 0 and "it lasted" in out and "before that:\nopen" in out and "spin" in out, "show: %r" % out)
    status, out, _ = run("show", "--json", "01J%023d" % 1)
    checks.that(status == 0 and json.loads(out)["state"] == "resolved", "show --json: %r" % out)
    checks.that(run("show", "nothing")[0] == 1 and run("show")[0] == 2, "show: status")
    environment["PYSPYD_SOCKET"] = os.path.join(folder, "none.sock")
    for command in (("findings",), ("show", "x")):
        status, out, err = run(*command)
        checks.that(status == 1 and not out and "no service runs here" in err and "systemctl start" in err,
                    "no service: %d %r" % (status, err))


def check_cli_follow(checks, service):
    follower = subprocess.Popen([live.PYSPYD, "findings", "--follow", "--json", "-n", "1"], stdout=subprocess.PIPE,
                                env=dict(os.environ, PYSPYD_SOCKET=service.path))
    first = json.loads(follower.stdout.readline())
    service.say("put 3\n")
    checks.that(service.line() == "put 0", "the store failed")
    ids = [json.loads(follower.stdout.readline())["id"] for _ in range(3)]
    checks.that(first["id"] not in ids and ids == sorted(ids), "findings --follow: %r then %r" % (first["id"], ids))
    follower.terminate()
    checks.that(follower.wait(30) == 0, "findings --follow: not ended by SIGTERM")
    follower.stdout.close()


def check_other_user(checks, service):
    """Another user's eyes: run by main() in a process of his."""
    with Client(service.path) as c:
        checks.that(c.hello["sees"] == "own", "nobody sees %r" % c.hello)
        checks.that(seqs(c.ask("findings")[0]) == [5, 6, 7, 8], "nobody's findings")
        checks.that([p["process"]["pid"] for p in c.ask("processes")[0]] == [200], "nobody's processes")
        for request in ("findings", "profiles"):
            checks.that(c.ask(request, pid=100) == c.ask(request, pid=999), request + ": a foreign pid is not as an unknown one")
        checks.that(c.ask("findings", id="01J%023d" % 0) == c.ask("findings", id="x"), "a foreign finding")
        checks.that(len(c.ask("profiles", pid=200)[0]) == 80, "nobody's profiles")
    if not os.access(live.PYSPYD, os.X_OK):
        return live.note("nobody may not run %s: his findings are not asked for by it" % live.PYSPYD)
    status, out, err = live.pyspyd("findings", env=dict(os.environ, PYSPYD_SOCKET=service.path))
    checks.that(status == 0 and len(out.splitlines()) == 2, "nobody's pyspyd findings: %d %r" % (status, err))


def as_nobody(checks, what, groups, check, *args):
    child = os.fork()
    if not child:
        os.setgroups(groups)
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        mine = live.Checks()
        try:
            check(mine, *args)
        except Exception as e:
            mine.that(False, repr(e))
        sys.stdout.flush()
        os._exit(1 if mine.failed else 0)
    checks.that(os.waitpid(child, 0)[1] == 0, what)


def check_sees(checks, service, sees):
    with Client(service.path) as c:
        checks.that(c.hello["sees"] == sees and len(c.ask("findings")[0]) == (12 if sees == "all" else 4), "sees %r" % c.hello)


def check_group(checks, folder):
    groups = [g for g in grp.getgrall() if g.gr_gid not in (0, NOBODY)]
    if not groups:
        live.note("no group: its members' view is not tried")
        return
    name, gid = groups[0].gr_name, groups[0].gr_gid
    many = [g for g in range(70000, 70200) if g != gid]
    with Service(folder, "g.sock", "g.db", (name,)) as service:
        as_nobody(checks, "a member's view", [gid], check_sees, service, "all")
        as_nobody(checks, "the view of a member of many groups", many + [gid], check_sees, service, "all")
        as_nobody(checks, "the view of a member of many other groups", many, check_sees, service, "own")


def check_times(checks, folder):
    """Who is idle, sends half a request, or does not read, is closed after a while; who follows is not."""
    with Service(folder, "t.sock", "t.db", ("", "1")) as service, Client(service.path) as follower:
        follower.send({"request": "findings", "follow": True, "after_seq": 12})
        with Client(service.path) as idle, Client(service.path) as half, Client(service.path) as stalled:
            half.socket.sendall(b"\0\0\0\2J{")
            stalled.send({"request": "profiles", "pid": 100})
            checks.that(idle.is_closed(), "idle, and not closed")
            checks.that(half.is_closed(), "half a request, and not closed")
            while service.stats()["open"] > 1:
                pass
            try:
                got = len(stalled.answer()[0])
            except (Closed, ConnectionResetError):
                got = 0
            checks.that(got < 80, "does not read, and got all")
        service.say("put 1\n")
        checks.that(follower.frame()[1]["seq"] == 13 and service.line() == "put 0", "who follows was closed")


def check_activation(checks, folder):
    """The service manager's socket, and clients that came before the service."""
    path = os.path.join(folder, "m.sock")
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    manager.bind(path)
    manager.listen(16)
    early = Client(path, hello=False)
    with Service(folder, "other.sock", "m.db", prefix=("sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@" 3<&%d'
                                                       % manager.fileno()), pass_fds=[manager.fileno()]) as service:
        checks.that(early.frame()[1].get("schema") == "pyspyd.socket/1", "who came early is not served")
        checks.that(not os.path.exists(service.path), "a socket of its own beside the manager's")
        early.socket.close()
        service.process.stdin.close()
        service.process.wait(60)
        checks.that(os.path.exists(path), "the manager's socket was removed")
        service.process.stdin = open(os.devnull, "w")
    manager.close()


def check_flood(checks, service):
    """Connections that come and go: those that were taken are counted against the time that passed."""
    before, start = service.stats()["connections"], time.monotonic()
    for _ in range(600):
        with Client(service.path, hello=False):
            pass
    taken, most = service.stats()["connections"] - before, ACCEPTS * (time.monotonic() - start) + ACCEPTS
    checks.that(taken <= most, "%d connections were taken, at most %.1f might" % (taken, most))
    checks.that(service.settled(), "connections stay behind")
    with Client(service.path) as c:
        checks.that("schema" in c.hello, "nobody is let in after the flood")


def check_places(checks, folder):
    """A socket in use is left alone, a stale one replaced, and anything else not touched."""
    with Service(folder, "a.sock", "a.db") as first:
        checks.that(stat.S_IMODE(os.stat(first.path).st_mode) == 0o666, "the socket's mode")
        second = subprocess.run([DRIVER, first.path, os.path.join(folder, "b.db")], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        checks.that(second.returncode == 1 and b"in use" in second.stderr, "a second one: %r" % second.stderr)
        with Client(first.path) as c:
            checks.that("schema" in c.hello, "a second one has taken the first one's place")
        first.process.kill()
        first.process.wait()
        checks.that(os.path.exists(first.path), "killed, and yet its socket is gone")
    with Service(folder, "a.sock", "a.db") as again:
        with Client(again.path) as c:
            checks.that("schema" in c.hello, "a stale socket is not replaced")
        again.process.stdin.close()
        again.process.wait(60)
        checks.that(not os.path.exists(again.path), "its socket stays behind")
        again.process.stdin = open(os.devnull, "w")
    path = os.path.join(folder, "file")
    with open(path, "w") as f:
        f.write("mine")
    done = subprocess.run([DRIVER, path, os.path.join(folder, "c.db")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)
    with open(path) as f:
        checks.that(done.returncode == 1 and f.read() == "mine", "a file was replaced")


def main():
    checks = live.Checks()
    # The store puts events on the disk one by one: a disk in memory is as good here.
    folder = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    os.chmod(folder, 0o755)
    try:
        with Service(folder) as service:
            check_findings(checks, service)
            check_processes(checks, service)
            check_profiles(checks, service)
            check_cli(checks, folder, service)
            if os.getuid():
                live.note("not root: another user's view is not tried")
            else:
                as_nobody(checks, "another user's view", [], check_other_user, service)
                check_group(checks, folder)
            check_wrong(checks, service)
            check_many(checks, service)
            check_flood(checks, service)
            check_slow(checks, service)
            check_follow(checks, service)
            check_rate(checks, service)
            check_cli_follow(checks, service)
            peak = service.peak_kib()
            checks.that(peak < MEMORY_MAX_KIB, "the service took %d KiB" % peak)
            live.note("peak %d KiB, %r" % (peak, service.stats()))
        check_places(checks, folder)
        check_times(checks, folder)
        check_activation(checks, folder)
    finally:
        shutil.rmtree(folder)
    checks.end()


if __name__ == "__main__":
    main()
