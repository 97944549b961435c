# SPDX-License-Identifier: MIT
"""pyspyd modules against a program that imports what it can find and tells what its own sys.modules and
importlib.metadata say, with distributions of its own making in the way; native libraries against readelf."""

import json
import os
import re
import shutil
import subprocess
import tempfile

import live

# 3.6 to 3.15, also in a chroot without /proc.
PROGRAM = r"""
import json, os, shutil, sys, tempfile, threading
FOLDER = tempfile.mkdtemp()
sys.path.insert(0, FOLDER)

def write(path, text):
    path = os.path.join(FOLDER, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)

def installed(name, version, record, tops=None):
    info = "%s-%s.dist-info/" % (name, version)
    write(info + "METADATA", "Metadata-Version: 2.1\nName: %s\nVersion: %s\n\nVersion: 0\n" % (name, version))
    if record is not None:
        write(info + "RECORD", "".join(path + ",sha256=x,1\n" for path in record))
    if tops is not None:
        write(info + "top_level.txt", tops)

write("fakemod.py", "")
installed("Fake.Dist", "1.2.3", ["fakemod.py", "Fake.Dist-1.2.3.dist-info/METADATA"])
write("ns/one.py", "")
write("ns/two/__init__.py", "")
write("ns/two/deep.py", "__version__ = '0'")
installed("ns-one", "1.0", ["ns/one.py"])
installed("ns-two", "2.0rc1", ["ns/two/__init__.py", "ns/two/deep.py"])
write("topped/__init__.py", "__version__ = 'no'")
installed("another-name", "4.4", None, "topped\n")
write("by_name.py", "")
installed("By-Name", "5.5", None)
write("own/__init__.py", "__version__ = '7.8.9'")
write("nothing.py", "__version__ = (1, 2)")
write("twice.py", "")
write("evil.py", "__version__ = '\\x1b[31m'")
write("broken-1.dist-info/METADATA", "Name: own\n" * 3)
write("empty-1.dist-info/METADATA", "")
write("old.py", "")
write("old-3.1.egg-info", "Name: old\nVersion: 3.1\n")

import importlib.util
for name in ("fakemod ns.one ns.two.deep topped by_name own nothing twice evil old pip setuptools pkg_resources numpy "
             "requests yaml six sqlite3 ssl ctypes decimal xml.dom.minidom asyncio lxml.etree").split():
    try:
        __import__(name)
    except Exception:
        pass
spec = importlib.util.spec_from_file_location("other_name", os.path.join(FOLDER, "twice.py"))
sys.modules["other_name"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["other_name"])
sys.modules["alias"] = sys.modules["fakemod"]
sys.modules["forbidden"] = None

def copies():
    import ctypes, _ctypes
    paths = [os.path.join(FOLDER, "copy%d.so" % i) for i in range(2)]
    for path in paths:
        shutil.copy(_ctypes.__file__, path)
        ctypes.PyDLL(path)
    os.unlink(paths[1])
    return paths

keep = []  # it ends when nobody refers to its number

def subinterpreter():
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            module = __import__(name)
            run = getattr(module, "run_string")
            number = module.create()
            told, wait = os.pipe(), os.pipe()
            code = "import colorsys, os; os.write(%d, b'x'); os.read(%d, 1)" % (told[1], wait[0])
            thread = threading.Thread(target=run, args=(number, code))
            thread.start()
            os.read(told[0], 1)
            keep.append((number, thread, wait[1]))
            return int(number)
        except Exception:
            pass

def owners():
    try:
        import importlib.metadata as metadata
    except ImportError:
        return {}
    found = {}
    for distribution in metadata.distributions():
        try:
            name, version = distribution.metadata["Name"], distribution.metadata["Version"]
        except (FileNotFoundError, KeyError):  # 3.15: it has none
            continue
        for path in distribution.files or ():
            found.setdefault(os.path.normpath(str(distribution.locate_file(path))), [name, version])
    return found

def of(module, name):
    try:
        value = object.__getattribute__(module, "__dict__").get(name)
    except AttributeError:
        return None
    return value

account = {"folder": FOLDER, "modules": {}, "sub": subinterpreter()}
try:
    account["copies"] = copies()
except Exception:
    account["copies"] = None
account["owners"] = owners()
for name, module in list(sys.modules.items()):
    if module is None:
        continue
    file, spec, version = of(module, "__file__"), of(module, "__spec__"), of(module, "__version__")
    origin = getattr(spec, "origin", None)
    account["modules"][name] = {"file": file if isinstance(file, str) and file else None, "origin": origin,
                                "version": version if isinstance(version, str) and version else None}
print(json.dumps(account), flush=True)
sys.stdin.readline()
for _, thread, fd in keep:
    os.write(fd, b"x")
    thread.join()
shutil.rmtree(FOLDER)
print("removed", flush=True)
"""

# What only the reader's own rules give: name: (version, version_from, distribution)
OWN = {
    "fakemod": ("1.2.3", "distribution", "Fake.Dist"),
    "ns.one": ("1.0", "distribution", "ns-one"),
    "ns.two": ("2.0rc1", "distribution", "ns-two"),
    "ns.two.deep": ("2.0rc1", "distribution", "ns-two"),
    "topped": ("4.4", "distribution", "another-name"),
    "by_name": ("5.5", "distribution", "By-Name"),
    "old": ("3.1", "distribution", "old"),
    "own": ("7.8.9", "__version__", None),
    "evil": ("\x1b[31m", "__version__", None),
    "nothing": (None, None, None),
    "twice": (None, None, None),
}

EXPECT = """# what should be there
fake_dist[extra]==1.2.3.0  # the same
own == 7.8
ns-two==2.0-rc.1 \\
    --hash=sha256:00
absent==1
nothing==1
"""

STATES = {"fake_dist": "ok", "own": "other", "ns-two": "ok", "absent": "not-imported", "nothing": "unknown"}


def look(pid, *args):
    status, out, err = live.pyspyd("modules", "--json", "--pid", pid, *args)
    return json.loads(out) if status == 0 else None, "exit %d: %s" % (status, err.strip())


def check_modules(checks, where, account, modules):
    found = {m["name"]: m for m in modules if m["interpreter"] == 0}
    checks.that(set(found) == set(account["modules"]),
                "%s: names differ: %s" % (where, sorted(set(found) ^ set(account["modules"]))[:8]))
    compared = 0
    for name, said in account["modules"].items():
        got = found.get(name)
        if not got:
            continue
        origin = said["origin"] if isinstance(said["origin"], str) else None
        file = said["file"] or (origin if origin and origin.startswith("/") else None)
        checks.that(got["file"] == file, "%s: file of %s: %s, not %s" % (where, name, got["file"], file))
        kind = {"built-in": "builtin", "frozen": "frozen"}.get(origin)
        checks.that(not kind or got["kind"] == kind, "%s: %s is %s" % (where, name, got["kind"]))
        owner = account["owners"].get(os.path.normpath(file)) if file and got["kind"] == "file" else None
        if owner:
            compared += 1
            checks.that([got["distribution"], got["version"]] == owner,
                        "%s: %s is of %s %s, not %s" % (where, name, got["distribution"], got["version"], owner))
    for name, rule in OWN.items():
        got = found[name]
        checks.that((got["version"], got["version_from"], got["distribution"]) == rule,
                    "%s: %s: %s" % (where, name, got))
    for name, also in (("twice", "other_name"), ("other_name", "twice"), ("fakemod", None), ("alias", None)):
        checks.that(found[name]["also"] == also, "%s: %s also as %s" % (where, name, found[name]["also"]))
    for name, kind in (("os", ("stdlib", "frozen")), ("sys", ("builtin",)), ("own", ("file",))):
        checks.that(found[name]["kind"] in kind, "%s: %s is %s" % (where, name, found[name]["kind"]))
    if account["sub"] is not None:
        checks.that(any(m["name"] == "colorsys" and m["interpreter"] == account["sub"] for m in modules),
                    where + ": the sub-interpreter's modules are missing")
    return compared


def readelf(path):
    done = subprocess.run(["readelf", "-n", "-d", "-W", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    text = done.stdout.decode(errors="replace")
    build_id = re.search(r"Build ID: ([0-9a-f]+)", text)
    soname = re.search(r"\(SONAME\).*\[(.*)\]", text)
    return build_id and build_id.group(1), soname and soname.group(1)


def check_libraries(checks, where, account, pid, libraries):
    with open("/proc/%d/maps" % pid) as f:
        lines = [line.split(None, 5) for line in f]
    code = {line[5].strip() for line in lines if len(line) == 6 and "x" in line[1] and line[5].startswith("/")}
    root = os.readlink("/proc/%d/root" % pid).rstrip("/")
    shown = {lib["path"] + (" (deleted)" if lib["deleted"] else "") for lib in libraries}
    checks.that(shown == code, "%s: libraries differ: %s" % (where, sorted(shown ^ code)[:4]))
    for lib in libraries if shutil.which("readelf") else ():
        path = lib["path"] if lib["path"].startswith(root) else root + lib["path"]
        if not lib["deleted"]:
            checks.that((lib["build_id"], lib["soname"]) == readelf(path), "%s: %s" % (where, lib))
    if account["copies"]:
        first, second = account["copies"]
        by_name = {os.path.basename(lib["path"]): lib for lib in libraries}
        one, two = by_name[os.path.basename(first)], by_name[os.path.basename(second)]
        checks.that(two["deleted"] and not one["deleted"], where + ": the deleted one is not marked")
        checks.that(one["same_as"] and two["same_as"], where + ": a library that is mapped twice is not marked")


def check_expected(checks, where, pid):
    with tempfile.NamedTemporaryFile("w") as f:
        f.write(EXPECT)
        f.flush()
        got, why = look(pid, "--expect", f.name)
        if not checks.that(got, "%s: --expect: %s" % (where, why)):
            return
        states = {e["name"]: e["state"] for e in got["expected"]}
        checks.that(states == STATES, "%s: expected: %s" % (where, states))
        for e in got["expected"]:
            checks.that((e["pattern"] == "Not My Version") == (e["state"] != "ok"), "%s: %s" % (where, e))
        marked = [m["name"] for m in got["modules"] if m["expected"]]
        checks.that(marked == ["own"], "%s: marked: %s" % (where, marked))
        status, out, _ = live.pyspyd("modules", "--expect", f.name, pid)
        checks.that(status == 0 and "Not My Version: 3 of 5 are not as expected" in out, where + ": " + out[:300])
        checks.that("\x1b" not in out and "\\x1b[31m" in out, where + ": a version reaches the terminal as it is")


def one(checks, name, command):
    with live.Target(command, PROGRAM) as target:
        account = json.loads(target.ready_and_resting())
        got, why = look(target.pid)
        if checks.that(got, "%s: %s" % (name, why)):
            checks.that(not got["incomplete"], name + ": incomplete")
            checks.that(got["expected"] is None, name + ": something is expected")
            compared = check_modules(checks, name, account, got["modules"])
            check_libraries(checks, name, account, target.pid, got["libraries"])
            check_expected(checks, name, target.pid)
            live.note("%s: %d modules, %d of them with a distribution that the target names, %d libraries" % (
                name, len(got["modules"]), compared, len(got["libraries"])))
        target.say()
        checks.that(target.line() == "removed", name + ": the program did not clean up")


def main():
    checks = live.Checks()
    for name, _, command in live.interpreters():
        one(checks, name, command)
    checks.end()


main()
