# SPDX-License-Identifier: MIT
"""The service in a folder of its own, with clients of its socket: what tests share that start it themselves."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../live"))
import live

START_S = 30
SETTLE_S = 60


def read_frame(connection):
    """The next J frame; others are passed over."""
    while True:
        frame = b""
        while len(frame) < 5 or len(frame) < 5 + struct.unpack(">I", frame[:4])[0]:
            more = connection.recv(5 - len(frame) if len(frame) < 5 else 5 + struct.unpack(">I", frame[:4])[0] - len(frame))
            if not more:
                raise EOFError
            frame += more
        if frame[4:5] == b"J":
            return json.loads(frame[5:])


def ask(path, request):
    """The answers to a request, until their end."""
    text = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        read_frame(connection)
        connection.sendall(struct.pack(">IB", len(text), ord("J")) + text)
        answer = read_frame(connection)
        while "end" not in answer:
            yield answer
            answer = read_frame(connection)


class Client(threading.Thread):
    """Reads findings until all are told or, where it follows them, the service is gone. What it was told is
    acknowledged."""

    def __init__(self, folder, follow):
        super().__init__(daemon=True)
        self.path = folder + "/sock"
        self.follow = follow
        self.seen = []
        self.start()

    def run(self):
        try:
            for answer in ask(self.path, {"request": "findings", "follow": self.follow}):
                self.seen.append(key(answer["event"]))
        except (OSError, EOFError, ValueError):
            pass


def key(finding):
    return finding["id"], finding["state"], finding["time"]


class Service:
    def __init__(self, folder):
        self.folder = folder
        self.log = open(os.path.join(folder, "log"), "ab")
        self.start()

    def start(self):
        self.process = subprocess.Popen([live.PYSPYD, "daemon", "--foreground", "--config", self.folder + "/conf"],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise SystemExit("the service ended: %s" % open(self.folder + "/log").read()[-2000:])
            with socket.socket(socket.AF_UNIX) as connection:
                try:
                    connection.connect(self.folder + "/sock")
                    break
                except OSError:
                    time.sleep(0.02)
        self.client = Client(self.folder, follow=True)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.client.join(5)
        return self.client.seen

    def end(self):
        self.process.terminate()
        return self.process.wait(SETTLE_S)


class Follower:
    """The command, as somebody leaves it running."""

    def __init__(self, folder):
        self.err = open(folder + "/follower", "w+b")
        self.process = subprocess.Popen([live.PYSPYD, "findings", "--follow", "--json"], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.err,
                                        env={**os.environ, "PYSPYD_SOCKET": folder + "/sock"})
        self.seen = []
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            self.seen.append(key(json.loads(line)))

    def await_service(self):
        """Until it has a connection. It asks again ever more seldom while there is none."""
        folder = "/proc/%d/fd" % self.process.pid

        def is_connected():
            try:
                return any(os.readlink(os.path.join(folder, fd)).startswith("socket:") for fd in os.listdir(folder))
            except OSError:
                return False
        live.wait_until(is_connected)

    def interrupt(self):
        """Return: its exit status; what it said."""
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(SETTLE_S)
        self.thread.join()
        self.err.seek(0)
        return status, self.err.read().decode()


def lines(folder):
    path = folder + "/findings.jsonl"
    if not os.path.exists(path):
        return []
    with open(path, "rb") as f:
        return [line for line in f.read().split(b"\n") if line]


def stored(folder):
    client = Client(folder, follow=False)
    client.join(SETTLE_S)
    return client.seen


def await_state(folder, pids, wanted, since=""):
    """Waits until the last word about each of these, since then, is one of the states."""
    end, last = time.monotonic() + SETTLE_S, {}
    while time.monotonic() < end:
        for line in lines(folder):
            finding = json.loads(line)
            if finding["time"] < since:
                continue
            last[finding["process"]["pid"]] = finding["state"]
        if all(last.get(pid) in wanted for pid in pids):
            return
        time.sleep(0.2)
    raise SystemExit("the findings of %s are %s, not %s" % (pids, last, wanted))
