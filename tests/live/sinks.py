# SPDX-License-Identifier: MIT
"""Sinks and their receivers, for real: every event arrives at least once, and in order.

Receivers are threads of this script that keep the numbers of the events that they got; "in order" is that of the first
time of each."""

import array
import contextlib
import http.server
import json
import mmap
import os
import random
import re
import selectors
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import live

DRIVER = os.path.join(live.BUILD, "tests/live/sinks_driver")
TREE = os.path.join(live.HERE, "../..")
WAIT_S = 60
KILLS = 20

checks = live.Checks()


class Driver:
    def __init__(self, folder, *options, **environment):
        self.stderr = open(os.path.join(folder, "driver.err"), "ab")
        self.process = subprocess.Popen([DRIVER, os.path.join(folder, "store.db")] + list(options),
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr,
                                        env=dict(os.environ, **environment))
        self.timer = threading.Timer(WAIT_S * 3, self.process.kill)
        self.timer.start()
        self.last = 0
        self.expect("ready")

    def say(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def line(self):
        text = self.process.stdout.readline().decode().rstrip("\n")
        if text.startswith("put "):
            self.last = int(text[4:])
        return text

    def expect(self, word):
        while True:
            text = self.line()
            if text == word:
                return
            if not text:
                raise RuntimeError("the driver ended before it said " + word)

    def put(self, n, *more):
        self.say(" ".join(["put", str(n)] + [str(m) for m in more]))
        for _ in range(n):
            self.line()

    def caught(self, *name):
        self.say("caught " + name[0] if name else "idle")
        self.expect("caught" if name else "idle")

    def stats(self):
        self.say("stats")
        while True:
            text = self.line()
            if text.startswith("{") or not text:
                return json.loads(text)

    def kill(self):
        self.process.kill()
        for text in self.process.stdout.read().decode().splitlines():
            if text.startswith("put "):
                self.last = int(text[4:])
        self.process.wait()
        self.timer.cancel()

    def end(self):
        self.process.stdin.close()
        code = self.process.wait()
        self.timer.cancel()
        checks.that(code == 0, "the driver ends with %s: %s" % (code, self.errors()))

    def errors(self):
        with open(self.stderr.name) as file:
            return file.read()[-600:]


class Receiver:
    """Numbers of events in the order in which they came, each once, from a thread that runs until `stop`."""

    def __init__(self):
        self.seen = []
        self.known = set()
        self.repeated = 0
        self.notes = []
        self.changed = threading.Condition()

    def got(self, seq):
        with self.changed:
            if seq in self.known:
                self.repeated += 1
                return
            self.known.add(seq)
            self.seen.append(seq)
            self.changed.notify_all()

    def note(self, text):
        with self.changed:
            self.notes.append(text)
            self.changed.notify_all()

    def wait(self, condition):
        with self.changed:
            return self.changed.wait_for(condition, WAIT_S)

    def has(self, first, last, what):
        self.wait(lambda: set(range(first, last + 1)) <= self.known)
        with self.changed:
            ours = [seq for seq in self.seen if first <= seq <= last]
        missing = sorted(set(range(first, last + 1)) - set(ours))
        checks.that(not missing, "%s: %d of %d are missing: %s" % (what, len(missing), last - first + 1, missing[:20]))
        checks.that(ours == sorted(ours), "%s: they come in order: %s" % (what, ours[:40]))


class Datagrams(Receiver):
    """A bound datagram socket; `pause` leaves what comes in its queue."""

    def __init__(self, parse, path=None, port=0):
        super().__init__()
        self.parse, self.path, self.port = parse, path, port
        self.socket = self.thread = None

    def start(self):
        if not self.socket:
            self.socket = socket.socket(socket.AF_UNIX if self.path else socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind(self.path or ("127.0.0.1", self.port))
            if not self.path:
                self.port = self.socket.getsockname()[1]
        self.stopping = os.pipe()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def run(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            selector.register(self.stopping[0], selectors.EVENT_READ)
            while all(key.fd != self.stopping[0] for key, _ in selector.select()):
                self.receive()

    def receive(self):
        data, control, _, _ = self.socket.recvmsg(4 << 20, socket.CMSG_SPACE(4))
        for level, kind, content in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fd = array.array("i", content)[0]
                with os.fdopen(fd, "rb") as file, mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as view:
                    self.files = getattr(self, "files", 0) + 1
                    data = view[:]
                    del file
        self.parse(self, data)

    def pause(self):
        os.write(self.stopping[1], b"x")
        self.thread.join()
        os.close(self.stopping[0])
        os.close(self.stopping[1])

    def stop(self):
        """As a receiver ends that does not lose what was sent to it: no more is taken, the rest is read."""
        self.pause()
        if self.path:
            os.unlink(self.path)
            self.socket.shutdown(socket.SHUT_RD)
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self.socket.recv(4 << 20)
                if not data:
                    break
                self.parse(self, data)
        self.socket.close()
        self.socket = None


def journal_fields(data):
    fields = {}
    at = 0
    while at < len(data):
        line = data.index(b"\n", at)
        name, equals, value = data[at:line].partition(b"=")
        if equals:
            at = line + 1
        else:
            size = struct.unpack_from("<Q", data, line + 1)[0]
            value = data[line + 9:line + 9 + size]
            at = line + 9 + size + 1
        fields.setdefault(name.decode(), []).append(value)
    return {name: values[0] for name, values in fields.items()}


def take_journal(receiver, data):
    fields = journal_fields(data)
    receiver.last = fields
    if "PYSPYD_SEQ" in fields:
        receiver.got(int(fields["PYSPYD_SEQ"]))
    else:
        receiver.note(fields["MESSAGE"].decode())


SYSLOG = re.compile(rb'^<(\d+)>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z box pyspyd \d+ DEADLOCK '
                    rb'\[pyspyd@32473 id="[^"]*" fingerprint="[^"]*" seq="(\d+)" state="(\w+)"[^\]]*\] (.*)$', re.S)


def take_syslog(receiver, data):
    match = SYSLOG.match(data)
    if not match or b"\n" in data:
        receiver.note(data.decode("utf-8", "backslashreplace"))
        return
    receiver.got(int(match.group(2)))


class Stream(Receiver):
    """A syslog server over TCP with octet counting. `read_bytes`: it leaves the rest unread and breaks off."""

    def __init__(self):
        super().__init__()
        self.port = 0

    def start(self, read_bytes=None):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(8)
        self.port = self.listener.getsockname()[1]
        self.connection = None
        self.stopping = os.pipe()
        self.left = read_bytes
        self.bytes = 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def run(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self.listener, selectors.EVENT_READ)
            selector.register(self.stopping[0], selectors.EVENT_READ)
            buffer = b""
            while True:
                for key, _ in selector.select():
                    if key.fd == self.stopping[0]:
                        return
                    if key.fileobj is self.listener:
                        self.connection = self.listener.accept()[0]
                        selector.register(self.connection, selectors.EVENT_READ)
                        buffer = b""
                        continue
                    data = self.connection.recv(4096)
                    self.bytes += len(data)
                    buffer = self.frames(buffer + data)
                    if not data or (self.left is not None and self.bytes > self.left):
                        selector.unregister(self.connection)
                        if data:
                            with self.changed:
                                self.left = -1
                                self.changed.notify_all()
                            continue
                        self.connection.close()
                        self.connection = None

    def frames(self, buffer):
        while True:
            match = re.match(rb"(\d+) ", buffer)
            if not match or len(buffer) < match.end() + int(match.group(1)):
                return buffer
            end = match.end() + int(match.group(1))
            take_syslog(self, buffer[match.end():end])
            buffer = buffer[end:]

    def stop(self):
        os.write(self.stopping[1], b"x")
        self.thread.join()
        self.listener.close()
        if self.connection:
            self.connection.close()
        os.close(self.stopping[0])
        os.close(self.stopping[1])


class Collector(Receiver):
    """An OTLP collector; `mode` says what it does with the next requests."""

    def __init__(self):
        super().__init__()
        self.mode, self.poison, self.port = "take", None, 0
        self.requests = {}
        self.largest = 0
        self.release = threading.Event()

    def start(self):
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = collector.take(self, body)
                if answer is None:
                    self.close_connection = True
                    return
                status, headers = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

        class Server(http.server.ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, *_):  # a client that was killed
                pass

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        return self

    def count(self, mode):
        with self.changed:
            self.requests[mode] = self.requests.get(mode, 0) + 1
            self.changed.notify_all()

    def take(self, request, body):
        mode = self.mode
        records = [(logs["resource"], record) for logs in json.loads(body)["resourceLogs"]
                   for scope in logs["scopeLogs"] for record in scope["logRecords"]]
        self.largest = max(self.largest, len(records))
        self.count(mode)
        if request.path != "/v1/logs" or request.headers["Content-Type"] != "application/json":
            return 404, {}
        if mode == "busy":
            return 503, {"Retry-After": "1"}
        if mode == "hang":
            self.release.wait(WAIT_S)
            return None
        if mode == "close":
            return None
        numbers = []
        for _, record in records:
            attributes = {a["key"]: a["value"] for a in record["attributes"]}
            if "pyspyd.seq" in attributes:
                numbers.append(int(attributes["pyspyd.seq"]["intValue"]))
                checks.that(record["eventName"] == "pyspyd.finding.deadlock" and record["severityNumber"] == 17,
                            "an OTLP record has its name and severity: %s" % str(record)[:200])
            else:
                self.note(record["body"]["stringValue"])
        if self.poison in numbers:
            return 400, {}
        for seq in numbers:
            self.got(seq)
        return 200, {}

    def wait_for(self, mode, n=1):
        checks.that(self.wait(lambda: self.requests.get(mode, 0) >= n), "the collector was asked in mode " + mode)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class File(Receiver):
    """What stands in files of JSON Lines, oldest first."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def read(self, *paths):
        for path in paths or (self.path,):
            with open(path, "rb") as file:
                for line in file.read().split(b"\n")[:-1]:
                    try:
                        finding = json.loads(line)
                    except ValueError:
                        checks.that(False, "%s: no JSON: %r" % (path, line[:80]))
                        continue
                    if finding["schema"] == "pyspyd.finding/1":
                        self.got(finding["n"])
                    else:
                        self.note(finding["text"])
        return self

    def has(self, first, last, what):
        missing = sorted(set(range(first, last + 1)) - self.known)
        checks.that(not missing, "%s: %d are missing: %s" % (what, len(missing), missing[:20]))
        checks.that(self.seen == sorted(self.seen), "%s: they stand in order: %s" % (what, self.seen[:40]))


# The tests

def test_journal(folder):
    path, lines = os.path.join(folder, "journal"), File(os.path.join(folder, "out.jsonl"))
    journal = Datagrams(take_journal, path).start()
    driver = Driver(folder, "journal=1", "file=" + lines.path, PYSPYD_JOURNAL_SOCKET=path)
    driver.put(20)
    driver.caught()
    journal.has(1, 20, "journal")
    fields = journal.last
    for name, value in (("PRIORITY", b"2"), ("PYSPYD_UNIT", b"web.service"), ("OBJECT_PID", b"4711"),
                        ("SYSLOG_IDENTIFIER", b"pyspyd"), ("MESSAGE", b"event 20")):
        checks.that(fields.get(name) == value, "journal: %s is %s" % (name, fields.get(name)))

    with open("/proc/sys/net/core/wmem_max") as file:
        driver.put(1, 2 * int(file.read()) + (1 << 20))
    journal.has(1, 21, "journal, an entry too large for a datagram")
    checks.that(getattr(journal, "files", 0) == 1, "journal: it came as a file")

    journal.pause()  # its queue fills up
    driver.put(300)
    driver.caught("file")
    stats = driver.stats()
    checks.that(stats["journal"]["queued"] > 0, "journal: what it does not take waits: %s" % stats)
    lines.read().has(1, 321, "file beside a journal that hangs")
    journal.start()
    driver.caught()
    journal.has(1, 321, "journal that hung")

    journal.stop()
    driver.put(50)
    driver.caught("file")
    checks.that(driver.stats()["journal"]["away"], "journal: it is known to be away")
    journal.start()
    driver.caught()
    journal.has(1, 371, "journal that was away")
    journal.stop()

    driver.put(30)
    driver.caught("file")
    driver.say("drain 60000")
    driver.expect("drained")  # at once, since it is away
    driver.end()
    journal.start()
    driver = Driver(folder, "journal=1", "file=" + lines.path, PYSPYD_JOURNAL_SOCKET=path)
    driver.caught()
    journal.has(1, 401, "journal that was away while the service was started anew")
    driver.end()
    journal.stop()


def test_syslog_local(folder):
    path = os.path.join(folder, "log")
    log = Datagrams(take_syslog, path)
    driver = Driver(folder, "syslog=local:" + path)
    driver.put(10)  # nobody listens yet
    log.start()
    driver.caught()
    log.has(1, 10, "syslog")
    log.pause()
    driver.put(500)
    log.start()
    driver.caught()
    log.has(1, 510, "syslog that hung")
    log.stop()
    driver.put(20)
    log.start()
    driver.put(20)
    driver.caught()
    log.has(1, 550, "syslog that was away")
    checks.that(not log.notes, "syslog: every line is as it should be: %s" % log.notes[:1])
    driver.end()
    log.stop()


def test_syslog_udp(folder):
    log = Datagrams(take_syslog).start()
    for host in ("127.0.0.1", "localhost"):
        first = len(log.known) + 1
        driver = Driver(folder, "syslog=udp:%s:%d" % (host, log.port))
        for _ in range(10):
            driver.put(10)
            driver.caught()
        log.has(first, first + 99, "UDP to " + host)
        log.stop()
        driver.put(20)
        checks.that(driver.stats()["syslog"]["queued"] > 0, "UDP: it is known that nobody listens")
        log.start()
        driver.caught()
        log.has(first, first + 119, "UDP to %s, when somebody listens again" % host)
        driver.end()
    checks.that(not log.notes, "UDP: every line is as it should be: %s" % log.notes[:1])
    log.stop()


def test_syslog_tcp(folder):
    log = Stream().start()
    driver = Driver(folder, "syslog=tcp:localhost:%d" % log.port)
    driver.put(100)
    driver.caught()
    log.has(1, 100, "TCP")
    log.stop()
    driver.put(20)  # the first ones go into a connection that has ended
    log.start()
    driver.caught()
    log.has(1, 120, "TCP that was away")
    log.stop()

    log.start(read_bytes=6000)  # reads some, leaves the rest
    driver.put(300)
    checks.that(log.wait(lambda: log.left == -1), "TCP: the server has read some")
    driver.caught()  # all is in the kernels' queues
    log.stop()  # and there it is lost
    log.start()
    driver.put(10)
    driver.caught()
    log.has(1, 430, "TCP that broke off with events unread")

    log.stop()
    log.start(read_bytes=0)  # does not read at all: everything fills up
    driver.put(3000, 0)
    driver.say("stats")
    driver.line()
    log.stop()
    log.start()
    driver.put(1)
    driver.caught()
    log.has(1, 3431, "TCP that did not read")
    checks.that(not log.notes, "TCP: every line is as it should be: %s" % log.notes[:1])
    driver.end()
    log.stop()


def test_file(folder):
    lines = File(os.path.join(folder, "logs/out.jsonl"))
    driver = Driver(folder, "file=" + lines.path)
    driver.put(10)
    checks.that(driver.stats()["file"]["away"], "file: its folder is missing")
    os.mkdir(os.path.dirname(lines.path))
    driver.caught()
    checks.that(os.stat(lines.path).st_mode & 0o777 == 0o640, "file: it has mode 0640")
    old = []
    for i in range(20):  # turned in the middle of the stream
        driver.say("put 100")
        for _ in range(random.randrange(100)):
            driver.line()
        old.append("%s.%d" % (lines.path, i))
        os.rename(lines.path, old[-1])
        while driver.last < 10 + 100 * (i + 1):
            driver.line()
        driver.caught()
    lines.read(*old).read().has(1, 2010, "file turned by rename")
    shutil.copy(lines.path, lines.path + ".copy")
    os.truncate(lines.path, 0)
    driver.put(10)
    driver.caught()
    lines.read().has(1, 2020, "file turned by copy and truncation")
    with open(lines.path, "rb") as file:
        checks.that(file.read(1) == b"{", "file: no hole at its start")
    os.unlink(lines.path)
    driver.put(1)
    driver.caught()
    lines.read().has(1, 2021, "file that was removed")
    with open(lines.path, "ab") as file:
        file.write(b'{"half a li')
    driver.say("reload")
    driver.put(1)
    driver.caught()
    with open(lines.path, "rb") as file:
        all_lines = file.read().split(b"\n")
    checks.that(all_lines[1] == b'{"half a li' and json.loads(all_lines[2])["n"] == 2022,
                "file: a half line of old stands alone: %s" % [line[:40] for line in all_lines])
    driver.end()


def test_full_disk(folder):
    disk = os.path.join(folder, "disk")
    os.mkdir(disk)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "pyspyd-test", disk],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if mounted.returncode:
        live.note("full disk: not tried, a file system cannot be mounted here")
        return
    try:
        lines = File(os.path.join(disk, "out.jsonl"))
        driver = Driver(folder, "file=" + lines.path)
        driver.put(100, 1000)
        stats = driver.stats()
        checks.that(stats["file"]["away"] and stats["file"]["queued"], "full disk: the rest waits: %s" % stats)
        lines.read()
        checks.that(0 < len(lines.known) < 100, "full disk: some are there, and no half line")
        os.truncate(lines.path, 0)  # room again, for the next ones
        before = len(lines.known)
        driver.put(1, 1000)
        end = time.monotonic() + WAIT_S
        while stats["file"]["queued"] and time.monotonic() < end:
            there, stats = os.path.getsize(lines.path), driver.stats()
            if there and stats["file"]["away"]:  # it is full again: nothing comes while we read
                lines.read()
                os.truncate(lines.path, 0)
        lines.read().has(1, 101, "full disk")
        checks.that(len(lines.known) > before, "full disk: more came when there was room")
        driver.end()
    finally:
        subprocess.run(["umount", "-l", disk])


def test_otlp(folder):
    collector = Collector().start()
    url = "otlp=http://127.0.0.1:%d/v1/logs" % collector.port
    driver = Driver(folder, url, "timeout=500")
    driver.put(200)
    driver.caught()
    collector.has(1, 200, "OTLP")
    checks.that(1 < collector.largest <= 64, "OTLP: batches of at most 64: %d" % collector.largest)

    done = 200
    for mode in ("busy", "hang", "close"):
        collector.mode = mode
        driver.put(30)
        done += 30
        collector.wait_for(mode)
        stats = driver.stats()
        checks.that(stats["otlp"]["queued"] == 30, "OTLP, %s: they wait: %s" % (mode, stats))
        collector.mode = "take"
        driver.caught()
        collector.has(1, done, "OTLP after " + mode)
    collector.release.set()

    collector.stop()
    driver.put(30)
    collector.start()
    driver.caught()
    collector.has(1, 320, "OTLP that was away")

    collector.poison = 340
    driver.put(50)
    driver.caught()
    checks.that(collector.wait(lambda: 370 in collector.known), "OTLP: what comes after a refused one arrives")
    checks.that(set(range(321, 371)) - collector.known == {340}, "OTLP: only what is refused is missing: %s" %
                sorted(set(range(321, 371)) - collector.known))
    checks.that(driver.stats()["otlp"]["dropped"] == 1, "OTLP: it is counted as dropped")
    driver.end()
    collector.stop()


def test_rate(folder):
    lines = File(os.path.join(folder, "out.jsonl"))
    rate, burst = 5, 4
    driver = Driver(folder, "file=" + lines.path, "rate=%d" % rate, "burst=%d" % burst)
    driver.put(4)
    start = time.monotonic()
    driver.put(60, 0, "update")
    driver.put(6, 0, "resolved")
    driver.caught()  # these come in the end
    most = burst + rate * (time.monotonic() - start)
    driver.say("drain 10000")
    driver.expect("drained")
    lines.read()
    checks.that(set(range(65, 71)) | set(range(1, 5)) <= lines.known, "rate: openings and resolutions arrive: %s" %
                lines.seen)
    if most < 60:
        checks.that(len(lines.known) <= 10 + most, "rate: updates are passed over, but for %.1f: %s" % (most, lines.seen))
    else:
        live.note("rate: all updates might pass in so long a time")
    checks.that(len(lines.notes) == 1 and re.match(r"\d+ findings were held back in the last \d+ s$", lines.notes[0]),
                "rate: one line says how many: %s" % lines.notes)
    driver.end()


def test_queue(folder):
    path = os.path.join(folder, "journal")
    driver = Driver(folder, "journal=1", "queue=50", PYSPYD_JOURNAL_SOCKET=path)
    driver.put(200)
    journal = Datagrams(take_journal, path).start()
    driver.caught()
    journal.has(151, 200, "queue of 50")
    checks.that(min(journal.known) == 151, "queue: older ones are dropped: %s" % min(journal.known))
    driver.say("drain 10000")
    driver.expect("drained")
    checks.that(journal.wait(lambda: journal.notes), "queue: it is said")
    checks.that(journal.notes[:1] and journal.notes[0].startswith("150 findings were dropped"),
                "queue: %s" % journal.notes)
    driver.end()
    journal.stop()


def test_kill(folder):
    """SIGKILL in the middle of it all, again and again, with all sinks."""
    journal = Datagrams(take_journal, os.path.join(folder, "journal")).start()
    log, collector = Stream().start(), Collector().start()
    lines = File(os.path.join(folder, "out.jsonl"))
    options = ["journal=1", "syslog=tcp:127.0.0.1:%d" % log.port, "file=" + lines.path,
               "otlp=http://127.0.0.1:%d/v1/logs" % collector.port]
    acknowledged = 0
    for _ in range(KILLS):
        driver = Driver(folder, *options, PYSPYD_JOURNAL_SOCKET=journal.path)
        driver.say("put 400 200")
        for _ in range(random.randrange(1, 300)):
            driver.line()
        driver.kill()
        acknowledged = max(acknowledged, driver.last)
    driver = Driver(folder, *options, PYSPYD_JOURNAL_SOCKET=journal.path)
    driver.put(1)
    driver.caught()
    checks.that(driver.last > acknowledged, "what the store has acknowledged is there after a kill")
    for receiver, what in ((journal, "journal"), (log, "TCP"), (collector, "OTLP"), (lines.read(), "file")):
        receiver.has(1, driver.last, what + " of a service that is killed")
        live.note("%s: %d events, %d came again" % (what, driver.last, receiver.repeated))
        checks.that(receiver.repeated <= KILLS * 200, "%s: a kill makes a few come again, not all: %d" %
                    (what, receiver.repeated))
    driver.end()
    journal.stop()
    log.stop()
    collector.stop()


def test_catalog(folder):
    with open(os.path.join(TREE, "daemon/message_ids.c")) as file:
        code = set(re.findall(r'"([0-9a-f]{32})"', file.read()))
    source = os.path.join(TREE, "systemd/pyspyd.catalog")
    with open(source) as file:
        catalog = re.findall(r"^-- ([0-9a-f]{32})$", file.read(), re.M)
    checks.that(len(catalog) == len(set(catalog)) and set(catalog) == code, "the catalog has the ids of the code")
    if not shutil.which("journalctl"):
        live.note("the catalog is not compiled: no journalctl here")
        return
    target = os.path.join(folder, "usr/lib/systemd/catalog")
    os.makedirs(target)
    shutil.copy(source, target)
    done = subprocess.run(["journalctl", "--update-catalog", "--root=" + folder], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    checks.that(done.returncode == 0 and not done.stdout, "the catalog compiles: %s" % done.stdout)


def main():
    tests = {name[5:]: test for name, test in sorted(globals().items()) if name.startswith("test_")}
    for name in sys.argv[1:] or tests:
        start = time.monotonic()
        folder = tempfile.mkdtemp(prefix="pyspyd-sinks-")
        try:
            tests[name](folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        live.note("%s: %.1f s" % (name, time.monotonic() - start))
    checks.end()


main()
