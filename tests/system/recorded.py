#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A service with a past that is known: speaks as pyspyd/remote.h says, and packs profiles as engine/profile/pack_format.h
says, by itself. Prints the time (s) that its minutes are counted from; ends when stdin does.

    recorded.py SOCKET

Minute n is [time + 60 n, time + 60 (n + 1)) s. Process 4242 started in minute 0 and did, until minute 20, `main;old`;
another 4242, from minute 30: `main;first` until minute 39, `main;first` and twice `main;second` from 40 to 49, where it
ended. Each is seen five times a minute. 4243 was never seen doing anything. The profile of minute 45 is damaged.
"""
import json
import os
import selectors
import socket
import struct
import sys
import zlib

TIME_S = 1_700_000_040  # 2023-11-14T22:14:00Z
MINUTE_NS = 60 * 10**9
PERIOD_NS = 50 * 10**6


def number(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def signed(n):
    return number(n << 1 if n >= 0 else (-n << 1) - 1)


def zstd_frame(data):
    """One block that is not compressed (RFC 8878)."""
    assert len(data) < 128 << 10
    return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data)) + struct.pack("<I", len(data) << 3 | 1)[:3] + data


def tables(functions, samples):
    """main, and each of the functions called by it."""
    names = ["main", *functions, "MainThread", "prog", "app.py"]
    out = number(len(names)) + b"".join(number(len(n)) for n in names) + "".join(names).encode()
    n = len(functions) + 1
    out += number(n) + b"".join(number(i + 1) for i in range(n)) + number(len(names)) * n + number(0) * n
    out += b"".join(signed(10 + i) for i in range(n)) + number(0) * n
    out += number(n) + b"".join(number(i or 1) for i in range(n)) + b"".join(number(i) for i in range(n))
    out += number(1) + number(4242) + signed(4242) + number(n + 1) + number(n + 2)
    out += number(n - 1) + signed(0) * (n - 1) + signed(2) + signed(1) * (n - 2)
    return out + b"".join(number(s) for s in samples) + signed(0) * (n - 1)


def pack(minute, functions, samples):
    counters = [1201, 1200, 1200, 700, 0, 0, 3, 0, 0, 0]
    head = number(0) + number(3) + number(1) + number(TIME_S * 10**9 + minute * MINUTE_NS) + number(MINUTE_NS)
    head += number(PERIOD_NS) + b"".join(map(number, counters))
    rest = head + zstd_frame(tables(functions, samples))
    if minute == 45:
        rest = rest[:-1] + b"?"
        return b"pspF\x02" + struct.pack("<I", zlib.crc32(rest[:-1])) + rest
    return b"pspF\x02" + struct.pack("<I", zlib.crc32(rest)) + rest


def past(pid):
    if pid != 4242:
        return
    for minute in range(50):
        if minute < 20:
            yield minute, pack(minute, ["old"], [5])
        elif 30 <= minute < 40:
            yield minute, pack(minute, ["first"], [5])
        elif minute >= 40:
            yield minute, pack(minute, ["first", "second"], [5, 10])


def process(pid, minute):
    start = TIME_S * 10**9 + minute * MINUTE_NS
    return {"process": {"pid": pid, "start_ns": start - 10**9 // 2, "uid": os.getuid(), "name": "prog", "cmdline": "prog",
                        "unit": "", "container": "", "seen_ns": start, "watched": False, "findings_open": 0}}


class Client:
    def __init__(self, connection):
        self.connection = connection
        self.say({"schema": "pyspyd.socket/1", "version": "0.1.0", "sees": "own"})

    def send(self, letter, data):
        self.connection.sendall(struct.pack(">I", len(data)) + letter + data)

    def say(self, message):
        self.send(b"J", json.dumps(message).encode())

    def read(self, n):
        data = b""
        while len(data) < n:
            more = self.connection.recv(n - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def answer(self):
        length, letter = struct.unpack(">Ic", self.read(5))
        request = json.loads(self.read(length))
        assert letter == b"J"
        if request["request"] == "processes":
            for pid, minute in (4242, 30), (1, 0), (4242, 0), (4243, 10):
                self.say(process(pid, minute))
        elif request["request"] == "profiles":
            self.profiles(request)
        else:
            self.say({"end": True, "error": "what?", "code": 4})
            return
        self.say({"end": True})

    def profiles(self, request):
        for minute, data in past(request["pid"]):
            start = TIME_S * 10**9 + minute * MINUTE_NS
            process_start = process(request["pid"], 0 if minute < 20 else 30)["process"]["start_ns"]
            if start < request["until_ns"] and start + MINUTE_NS > request["since_ns"]:
                self.say({"profile": {"pid": request["pid"], "process_start_ns": process_start, "start_ns": start,
                                      "end_ns": start + MINUTE_NS}})
                self.send(b"B", data)


def main():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    print(TIME_S, flush=True)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while all(key.fileobj is not sys.stdin for key, _ in selector.select()):
            client = Client(listener.accept()[0])
            try:
                while True:
                    client.answer()
            except (EOFError, ConnectionError):
                client.connection.close()


main()
