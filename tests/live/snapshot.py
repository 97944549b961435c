# SPDX-License-Identifier: MIT
"""pyspyd snapshot of a program with threads in each other's locks, tasks of asyncio, an exception on its way through a
handler, containers and secrets. What the commands say of the file when the process has ended is what they said of the
process; no secret is in it; damage, and what could not be taken, are said."""

import ctypes
import json
import os
import re
import shutil
import struct
import subprocess
import tempfile

import live

PROGRAM = r"""
import asyncio, sys, threading

S = chr(104) + "unter2-"  # not as it is in the command line

class Account:
    def __init__(self, owner):
        self.owner = owner
        self.api_token = S + "attribute"
        self.settings = {"user": owner, "db_password": S + "in-a-dict", "deep": {"secret_key": S + "deep"}}

ACCOUNTS = [Account("owner%d" % i) for i in range(500)]
first, second = threading.Lock(), threading.Lock()
got_first, got_second = threading.Event(), threading.Event()

def left(password=S + "argument"):
    account = ACCOUNTS[0]
    headers = {"Authorization": "Bearer " + S + "header", "Accept": "visible-value"}
    with first:
        got_first.set()
        got_second.wait()
        with second:
            pass

def right():
    try:
        raise KeyError("visible-message")
    except KeyError:
        with second:
            got_second.set()
            got_first.wait()
            with first:
                pass

async def nap():
    await asyncio.sleep(10000)

async def holder(lock):
    async with lock:
        await nap()

async def waiter(lock):
    async with lock:
        pass

async def main():
    loop = asyncio.get_event_loop()
    lock = asyncio.Lock()
    tasks = [asyncio.ensure_future(c) for c in (nap(), holder(lock), waiter(lock))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    loop.call_soon(print, "ready")
    await asyncio.gather(*tasks)

for function in (left, right):
    threading.Thread(target=function, name=function.__name__, daemon=True).start()
got_first.wait()
got_second.wait()
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
loop.run_until_complete(main())
"""

COMMANDS = {
    "dump": ["dump", "--json"],
    "dump text": ["dump"],
    "dump locals": ["dump", "--locals"],
    "dump all": ["dump", "--json", "--native", "--locals", "--async"],
    "dump tasks": ["dump", "--async"],
    "dump native": ["dump", "--native"],
    "waits": ["waits", "--json"],
    "waits text": ["waits"],
    "waits dot": ["waits", "--dot"],
    "waits native": ["waits", "--native"],
    "heap": ["heap", "--json"],
    "heap text": ["heap"],
    "modules": ["modules", "--json"],
    "modules text": ["modules", "--all"],
    "handles": ["handles", "--json"],
    "handles text": ["handles"],
}

# What time alone changes: durations, ages, what the kernel's accounts say; and lines of native code, which are looked up
# for a second only.
MOVING = [
    (r'\{"lang":"native"[^{}]*"inlined":true[^{}]*\},?', ""),
    (r'(\{"lang":"native","function":"[^"]*","qualname":"[^"]*"),"file":"[^"]*","line":[^,]*', r"\1"),
    (r'"frames":[0-9]+', '"frames":0'),
    (r"\n[^\n]*\] inlined[^\n]*", ""),
    (r" \([^()\n]*\)( \[[^\]\n]*\])", r"\1"),
    (r'"private_bytes":[0-9]+', '"private_bytes":0'),
    (r'"mappings":\[(?:[^"\]]|"[^"]*")*\]', '"mappings":[]'),  # names like [heap] are there
    (r"(?s)\n +MAPPINGS .*", ""),
    (r'"(waited|age|took|throttled)_s":[0-9.]+', r'"\1_s":0'),
    (r'"(cost|paths)_ms":[0-9.]+', r'"\1_ms":0'),
    (r'"stopped(_max)?_us":[0-9.]+', r'"stopped_us":0'),
    (r'"cgroup":\{[^}]*\}', '"cgroup":{}'),
    (r", for [0-9]+ (ms|s|min)( [0-9]+ s)?", ""),
    (r", [0-9.]+ [smh]\b", ", some time"),
    (r"(?s)\nControl group: .*", ""),
    (r"\n {6,}(\.\w|\[|…)[^\n]*", ""),  # what the variables' objects hold, which only a snapshot knows
    (r"'?timeout'?: float = [0-9.]+", "timeout"),
    (r'"switches":[0-9]+', '"switches":0'),
    (r'"kept_share":[0-9.]+', '"kept_share":0'),  # of those that were looked at
    (r", [0-9]+ % in ", ", in "),
]

ZSTD = ctypes.CDLL("libzstd.so.1")  # pyspyd is linked with it
ZSTD.ZSTD_decompress.restype = ctypes.c_size_t
ZSTD.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]

checks = None


def still(text):
    for pattern, replacement in MOVING:
        text = re.sub(pattern, replacement, text)
    return text


def run(*args, **options):
    status, out, err = live.pyspyd(*args, **options)
    return status, out, err


def said_of(name, *source):
    return {key: run(*COMMANDS[key], *source) for key in COMMANDS}


def compare(name, before, after):
    for key in COMMANDS:
        checks.that(after[key][0] == 0, "%s: %s: exit %d: %s" % (name, key, after[key][0], after[key][2]))
        a, b = still(before[key][1]), still(after[key][1])
        if a != b:
            at = next((i for i in range(min(len(a), len(b))) if a[i] != b[i]), min(len(a), len(b)))
            a, b = a[max(0, at - 60):at + 100], b[max(0, at - 60):at + 100]
        checks.that(a == b, "%s: %s is not as it was: %r, %r" % (name, key, a, b))


def sections(path):
    """Name, kind and decompressed bytes of each, read by the documented format alone."""
    with open(path, "rb") as f:
        data = f.read()
    assert data[:8] == b"\x89PYSNAP\n" and data[-8:] == b"PYSNAP\x1a\n"
    table, count, _, size = struct.unpack("<QIIQ", data[-32:-8])
    assert size == len(data)
    for i in range(count):
        name, offset, stored, length, _, kind = struct.unpack_from("<24sQQQII", data, table + 56 * i)
        plain = ctypes.create_string_buffer(length + 1)
        assert ZSTD.ZSTD_decompress(plain, length, data[offset:offset + stored], stored) == length
        yield name.rstrip(b"\0").decode(), kind, plain.raw[:length]


def check_secrets(name, path):
    found = dict()
    for section, _, plain in sections(path):
        found[section] = plain
        json.loads(plain.decode())
        checks.that(b"hunter2" not in plain, "%s: a secret is in %s: %r" %
                    (name, section, plain[max(0, plain.find(b"hunter2") - 80):][:120]))
    checks.that(b"visible-value" in found["dump"], "%s: what is no secret is masked" % name)
    check_objects(name, json.loads(found["objects"].decode()))


def check_objects(name, document):
    """From a variable to the attributes and items behind it."""
    variables = {v["name"]: v for t in document["threads"] for f in t["frames"] if f["function"] == "left"
                 for v in f["variables"]}
    objects = {o["object"]: o for o in document["objects"]}
    if not checks.that("account" in variables, "%s: no variable account: %r" % (name, sorted(variables))):
        return
    account = {e["name"]: e for e in objects[variables["account"]["object"]]["attributes"]}
    checks.that(account.get("owner", {}).get("value") == "'owner0'", "%s: the owner is %r" % (name, account))
    checks.that(account.get("api_token", {}).get("value") == "***", "%s: the token is %r" % (name, account))
    settings = {e["name"]: e for e in objects[account["settings"]["object"]]["items"]}
    checks.that(settings["user"]["value"] == "'owner0'" and settings["db_password"]["value"] == "***",
                "%s: the settings are %r" % (name, settings))
    deep = {e["name"]: e for e in objects[settings["deep"]["object"]]["items"]}
    checks.that(list(deep) == ["secret_key"] and deep["secret_key"]["masked"], "%s: deep is %r" % (name, deep))


def check_objects_text(name, text):
    """The same below the variable, in text."""
    account = re.search(r"\n    account: \S+ = [^\n]*\n((?:      [^\n]*\n)+)", text)
    if checks.that(account, "%s: nothing below the account: %s" % (name, text[:1000])):
        for line in ("      .owner: str = 'owner0'\n", "      .api_token: str = ***\n", "        [user]: str = 'owner0'\n",
                     "        [db_password]: str = ***\n"):
            checks.that(line in account.group(1), "%s: no %r: %s" % (name, line, account.group(1)))


def check_round_trip(name, path):
    """A document that was read and written again is the same bytes."""
    for command in (["dump", "--native", "--locals", "--async", "--unmask"], ["waits", "--native"], ["heap"],
                    ["modules"], ["handles"]):
        kept = run("snapshot", "--info", path, "--section", command[0])[1]
        again = run(*command, "--json", "--snapshot", path)[1]
        checks.that(kept == again and len(kept) > 100, "%s: %s is not the same bytes" % (name, command[0]))


def check_damage(name, path, folder):
    with open(path, "rb") as f:
        data = f.read()
    for tenth in range(10):
        part = os.path.join(folder, "part")
        with open(part, "wb") as f:
            f.write(data[:len(data) * tenth // 10])
        status, out, err = run("dump", "--snapshot", part)
        checks.that(status == 1 and not out and part in err, "%s: cut off at %d0 %%: %d, %r" % (name, tenth, status, err))
    with open(part, "wb") as f:
        f.write(data[:8] + struct.pack("<I", 99) + data[12:])
    status, out, err = run("waits", "--snapshot", part)
    checks.that(status == 1 and "newer" in err and "99" in err, "%s: of version 99: %d, %r" % (name, status, err))
    with open(part, "wb") as f:
        f.write(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    status, out, err = run("dump", "--snapshot", part)
    checks.that(status == 1 and "damaged" in err, "%s: another byte: %d, %r" % (name, status, err))


def check_missing(name, pid, folder):
    """Descriptors of others may not be listed: the file says so, and so does who reads it."""
    path = os.path.join(folder, "partly")
    status, _, err = run("snapshot", "-o", path, "--pid", pid, prefix=["prlimit", "--nofile=24"])
    checks.that(status == 0 or os.path.exists(path), "%s: hardly any descriptors: exit %d: %s" % (name, status, err))
    if status:
        missing = re.findall(r"^pyspyd: (\w+) could not be taken", err, re.M)
        for part in missing:
            if part in COMMANDS:
                read, _, words = run(*COMMANDS[part], "--snapshot", path)
                checks.that(read == status and "could not be taken" in words,
                            "%s: %s is missing: exit %d: %s" % (name, part, read, words))


def check_elsewhere(name, path, folder):
    """Another user, in another root that has nothing but the program and the file."""
    if os.geteuid() != 0:
        live.note("%s: another user needs root: left out" % name)
        return
    copy = os.path.join(folder, "copy")
    shutil.copy(path, copy)
    os.chmod(folder, 0o755)
    os.chmod(copy, 0o644)
    here = run("dump", "--locals", "--snapshot", copy)[1]
    done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "--user", "--mount",
                           "--pid", "--fork", live.PYSPYD, "dump", "--locals", "--snapshot", copy],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=60)
    err = done.stderr.decode()
    if done.returncode and ("unshare" in err or "Permission denied" in err):
        live.note("%s: left out: %s" % (name, err.strip()))
        return
    checks.that(done.stdout.decode() == here, "%s: another user reads something else: %s" % (name, err))


def check_profile(name, path, folder):
    out = os.path.join(folder, "p.collapsed")
    status, _, err = run("flamegraph", "--snapshot", path, "-o", out)
    checks.that(status == 0, "%s: flamegraph: exit %d: %s" % (name, status, err))
    with open(out) as f:
        lines = f.read().splitlines()
    threads = json.loads(run("dump", "--json", "--snapshot", path)[1])["threads"]
    checks.that(sum(int(line.rsplit(" ", 1)[1]) for line in lines) == len(threads),
                "%s: %r is not a sample for each of %d threads" % (name, lines, len(threads)))
    checks.that(any("left" in line for line in lines), "%s: no stack of left" % name)


def check(name, version, command, folder):
    path = os.path.join(folder, "snapshot")
    if os.path.exists(path):
        os.unlink(path)
    with live.Target(command, PROGRAM) as target:
        target.ready_and_resting()
        status, _, err = run("snapshot", "-o", path, "--pid", target.pid)
        if not checks.that(status == 0, "%s: snapshot: exit %d: %s" % (name, status, err)):
            return
        checks.that(os.stat(path).st_mode & 0o777 == 0o600, "%s: others may read it" % name)
        before = said_of(name, "--pid", target.pid)
        check_missing(name, target.pid, folder)
        unmasked = os.path.join(folder, "unmasked")
        checks.that(run("snapshot", "--unmask", "-o", unmasked, "--pid", target.pid)[0] == 0, "%s: --unmask" % name)
    after = said_of(name, "--snapshot", path)
    compare(name, before, after)
    checks.that("DEADLOCK" in after["waits text"][1], "%s: no deadlock: %s" % (name, after["waits text"][1]))
    checks.that("password: str = ***" in after["dump locals"][1], "%s: the argument is not masked" % name)
    if version >= (3, 8):
        checks.that("waiter" in after["dump tasks"][1], "%s: no tasks: %s" % (name, after["dump tasks"][1]))
    check_secrets(name, path)
    check_objects_text(name, after["dump locals"][1])
    checks.that(any(b"hunter2-argument" in plain for _, _, plain in sections(unmasked)), "%s: --unmask masks" % name)
    checks.that("hunter2-argument" not in run("dump", "--locals", "--snapshot", unmasked)[1],
                "%s: a secret of an unmasked file is shown unasked" % name)
    checks.that("hunter2-argument" in run("dump", "--locals", "--unmask", "--snapshot", unmasked)[1],
                "%s: --unmask shows nothing" % name)
    check_round_trip(name, path)
    check_damage(name, path, folder)
    check_elsewhere(name, path, folder)
    check_profile(name, path, folder)


def main():
    global checks
    checks = live.Checks()
    with tempfile.TemporaryDirectory() as folder:
        for name, version, command in live.interpreters():
            check(name, version, command, folder)
    checks.end()


main()
