# SPDX-License-Identifier: MIT
"""Interpreters where one does not expect them: behind symlinks, deleted, stripped, inside another program, in other PID,
mount and user namespaces; sub-interpreters. Each must be dumped with the right stack and the kernel's thread ids.

By default one interpreter of each minor version; LIVE_ALL=1 takes all."""

import os
import shutil
import subprocess
import sys
import tempfile

import live

PROGRAM = """
import sys, threading, os
ready = threading.Semaphore(0)
never, _ = os.pipe()
def in_a_thread():
    ready.release()
    os.read(never, 1)
threading.Thread(target=in_a_thread, name="other", daemon=True).start()
ready.acquire()
def here():
    print("ready", os.getpid(), flush=True)
    sys.stdin.readline()
here()
"""
EMBEDDING = """
#include <Python.h>
int main(void) {
	Py_Initialize();
	PyRun_SimpleString(PROGRAM);
	return 0;
}
"""
SUB = """
import os, sys, threading
never, _ = os.pipe()
r, w = os.pipe()
code = '''
import os
def in_sub():
    os.write(%d, b"x")
    os.read(%d, 1)
in_sub()
''' % (w, never)
try:
    import _interpreters as i
except ImportError:
    import _xxsubinterpreters as i
def make():
    if sys.version_info >= (3, 13):
        return i.create("legacy") if LEGACY else i.create()
    if sys.version_info >= (3, 10):
        return i.create(isolated=not LEGACY)
    return i.create()
def run():
    interp = make()
    (getattr(i, "exec", None) or i.run_string)(interp, code)
for n in range(3):
    threading.Thread(target=run, daemon=True).start()
    os.read(r, 1)
def here():
    print("ready", os.getpid(), flush=True)
    sys.stdin.readline()
here()
"""


def check(checks, where, pid, other=True):
    """Right functions, and every thread id is one of the kernel's."""
    dumped, said = live.dump(pid)
    if not checks.that(dumped, "%s: %s" % (where, said)):
        return None
    kernel = {int(tid) for tid in os.listdir("/proc/%d/task" % pid)}
    # A thread that calls into a sub-interpreter has a stack in each.
    seen = [(thread["tid"], thread["interpreter"]) for thread in dumped["threads"]]
    checks.that({tid for tid, _ in seen} <= kernel and len(set(seen)) == len(seen), "%s: tids %s, not %s" % (where, seen, kernel))
    main = live.thread_with(dumped, "here")
    if checks.that(main, where + ": the main thread's stack is not there"):
        checks.that(main["tid"] == pid, "%s: main thread %d is not %d" % (where, main["tid"], pid))
        checks.that(live.functions(main) == ["here", "<module>"], "%s: %s" % (where, live.functions(main)))
    if other:
        thread = live.thread_with(dumped, "in_a_thread")
        checks.that(thread and thread["name"] == "other" and len(thread["stack"]) == 4, where + ": the other thread")
    return dumped


def in_target(checks, where, command, program=PROGRAM, pid_of=None, **options):
    with live.Target(command, program, **options) as target:
        try:
            target.ready()
        except RuntimeError as e:
            checks.that(False, "%s: %s" % (where, e))
            return
        check(checks, where, pid_of(target.pid) if pid_of else target.pid)


def home_of(command):
    """Where a copied interpreter finds its library."""
    code = "import sys; print(sys.base_prefix)"
    return subprocess.run(command + ["-c", code], stdout=subprocess.PIPE).stdout.decode().strip()


def library_folder(command):
    return os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(command[0]))), "lib")


def copied(checks, name, command, folder):
    """A symlink to it, a copy that is deleted while it runs, a stripped copy."""
    environment = dict(os.environ, PYTHONHOME=home_of(command))
    real = os.path.realpath(command[0])
    link = os.path.join(folder, "link-" + name)
    os.symlink(real, link)
    in_target(checks, name + " symlink", [link], env=environment)
    copy = os.path.join(folder, "program")
    shutil.copy(real, copy)
    in_target(checks, name + " copy", [copy], env=environment)
    with live.Target([copy], PROGRAM, env=environment) as target:
        target.ready()
        os.unlink(copy)
        check(checks, name + " deleted", target.pid)
    shutil.copy(real, copy)
    if shutil.which("strip") and subprocess.run(["strip", "-s", copy]).returncode == 0:
        in_target(checks, name + " stripped", [copy], env=environment)
    with live.Target([copy], PROGRAM, env=environment) as target:
        target.ready()
        shutil.copy("/bin/true", copy + ".new")
        os.rename(copy + ".new", copy)
        check(checks, name + " replaced", target.pid)
    os.unlink(copy)


def embedded(checks, name, version, command, folder):
    """In a C program whose name says nothing; with libpython as it is, and stripped."""
    code = "import sysconfig as s; print(s.get_config_var('LDLIBRARY'), s.get_paths()['include'])"
    library, include = subprocess.run(command + ["-c", code], stdout=subprocess.PIPE).stdout.decode().split()
    libraries = [library_folder(command), "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
    found = [path for path in libraries if os.path.exists(os.path.join(path, library))]
    if not library.endswith(".so") or not found or not os.path.exists(os.path.join(include, "Python.h")):
        live.note("%s embedded: no shared library with headers" % name)
        return
    program = os.path.join(folder, "host")
    literal = '"%s"' % PROGRAM.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    built = subprocess.run(["cc", "-w", "-o", program, "-I" + include, "-DPROGRAM=" + literal, "-xc", "-", "-xnone",
                            os.path.join(found[0], library)], input=EMBEDDING.encode(), stderr=subprocess.DEVNULL)
    if not checks.that(built.returncode == 0, name + ": the embedding program does not compile"):
        return
    environment = dict(os.environ, PYTHONHOME=home_of(command), LD_LIBRARY_PATH=found[0])
    in_target(checks, name + " embedded", [program], None, env=environment)
    other = os.path.join(folder, "lib")
    os.makedirs(other, exist_ok=True)
    for file in os.listdir(found[0]):
        if file.startswith("libpython%d.%d" % version) and ".so" in file:
            subprocess.run(["strip", "-s", "-o", os.path.join(other, file), os.path.join(found[0], file)])
    environment["LD_LIBRARY_PATH"] = other
    in_target(checks, name + " embedded, stripped", [program], None, env=environment)
    os.unlink(program)


def child_of(pid):
    """The only child: unshare --fork stays as its parent."""
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return int(f.read().split()[0])


def can(*command):
    return subprocess.run(list(command) + ["true"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0


def namespaces(checks, name, command, folder):
    pid_namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if can(*pid_namespace):
        in_target(checks, name + " PID namespace", pid_namespace + command, pid_of=child_of)
        # /proc is the host's: the program sees ids that are not its own
        in_target(checks, name + " PID namespace, old /proc", ["unshare", "--pid", "--fork", "--kill-child"] + command,
                  pid_of=child_of)
    if can("unshare", "-m"):
        copy = os.path.join(folder, "hidden")
        os.makedirs(copy, exist_ok=True)
        shutil.copy(os.path.realpath(command[0]), copy + "/program")
        # The program is started from a descriptor, then its folder is hidden under a tmpfs.
        hide = 'exec 9<"$0/program"; mount -t tmpfs none "$0" && exec /proc/self/fd/9 "$@"'
        in_target(checks, name + " mount namespace", ["unshare", "-m", "sh", "-c", hide, copy],
                  env=dict(os.environ, PYTHONHOME=home_of(command)))
        shutil.rmtree(copy)
    if can("unshare", "-U", "-r"):
        in_target(checks, name + " user namespace", ["unshare", "-U", "-r"] + command)
    if can("unshare", "-U", "-r", "--pid", "--fork", "--kill-child"):
        in_target(checks, name + " user and PID namespace",
                  ["unshare", "-U", "-r", "--pid", "--fork", "--kill-child"] + command, pid_of=child_of)


def sub_interpreters(checks, name, command):
    for legacy in (True, False):
        where = "%s %s sub-interpreters" % (name, "legacy" if legacy else "isolated")
        with live.Target(command, SUB.replace("LEGACY", str(legacy))) as target:
            try:
                target.ready()
            except RuntimeError as e:
                checks.that(False, "%s: %s" % (where, e))
                continue
            dumped = check(checks, where, target.pid, other=False)
            if not dumped:
                continue
            inside = [t for t in dumped["threads"] if t["stack"] and t["stack"][0]["function"] == "in_sub"]
            checks.that(len(inside) == 3, "%s: %d of 3 seen" % (where, len(inside)))
            checks.that(sorted(t["interpreter"] for t in inside) == [1, 2, 3],
                        "%s: numbers %s" % (where, [t["interpreter"] for t in inside]))


def one(checks, name, version, command, folder):
    in_chroot = command[0] == "chroot"
    if in_chroot:
        in_target(checks, name + " chroot", command)
    else:
        copied(checks, name, command, folder)
        embedded(checks, name, version, command, folder)
        namespaces(checks, name, command, folder)
    if version >= (3, 8):
        sub_interpreters(checks, name, command)


def main():
    checks = live.Checks()
    found = live.interpreters()
    if not sys.argv[1:] and not os.environ.get("LIVE_ALL"):
        seen = set()
        kept = []
        for entry in found:
            kind = (entry[1], entry[2][0] == "chroot")
            if kind not in seen or entry[0].endswith("-built"):
                kept.append(entry)
            seen.add(kind)
        found = kept
    with tempfile.TemporaryDirectory() as folder:
        for name, version, command in found:
            one(checks, name, version, command, folder)
            live.note(name)
    checks.end()


main()
