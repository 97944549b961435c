# SPDX-License-Identifier: MIT
"""Threads of a program stand in exception handlers and say what they handle: type, str(), notes, traceback and the whole
chain. `pyspyd dump` must say the same."""

import json
import os
import subprocess
import tempfile

import live

PROGRAM = r'''
import json, sys, threading, traceback

accounts, ready, NEW = {}, [], sys.version_info >= (3, 11)
go = threading.Lock()
go.acquire()


def name(kind):
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else module + "." + kind.__qualname__


def frames(tb):
    found = []
    while tb:
        code = tb.tb_frame.f_code
        found.append([code.co_name, code.co_filename, tb.tb_lineno])
        tb = tb.tb_next
    return found[::-1]


def describe(exc, seen):
    """As pyspyd walks: cause, context, members; what was met before is not followed."""
    if exc is None:
        return None
    told = {"type": name(type(exc)), "message": str(exc)}
    if id(exc) in seen:
        told["repeated"] = True
        return told
    seen.add(id(exc))
    told["notes"] = [str(note) for note in getattr(exc, "__notes__", ())]
    told["traceback"] = frames(exc.__traceback__)
    told["cause"] = describe(exc.__cause__, seen)
    told["context"] = None if exc.__suppress_context__ else describe(exc.__context__, seen)
    if NEW and isinstance(exc, BaseExceptionGroup):
        told["members"] = [describe(member, seen) for member in exc.exceptions]
    return told


def stay(case, outer=()):
    """In a handler: tells what is handled, and stays there. `outer`: what callers of generators handle."""
    seen = set()
    handled = sys.exc_info()[1]
    accounts[case] = [describe(each, seen) for each in ([handled] if handled else []) + list(outer)]
    ready.append(case)
    with go:
        pass


class Plain(Exception):
    pass


class Outer:
    class Inner(ValueError):
        pass


class Odd(Exception):
    def __str__(self):
        return "odd indeed"


class OddChild(Odd):
    pass


class OsChild(OSError):
    pass


def fail(exc):
    raise exc


def through(exc):
    fail(exc)


def handle(case, *args):
    try:
        through(*args)
    except BaseException:
        stay(case)


def cause(case):
    try:
        try:
            fail(KeyError("port"))
        except KeyError as error:
            raise Plain("no port") from error
    except Plain:
        stay(case)


def context(case):
    try:
        try:
            fail(OSError(2, "No such file or directory", "a.txt"))
        except OSError:
            through(Plain("while cleaning up"))
    except Plain:
        stay(case)


def suppressed(case):
    try:
        try:
            fail(KeyError("x"))
        except KeyError:
            raise Plain("alone") from None
    except Plain:
        stay(case)


def both(case):
    try:
        try:
            fail(KeyError("context"))
        except KeyError:
            error = Plain("both", 2)
            error.__cause__ = ValueError("cause")
            error.__suppress_context__ = False
            raise error
    except Plain:
        stay(case)


def cycle(case):
    first, second = Plain("first"), Plain("second")
    first.__cause__, second.__cause__ = second, first
    handle(case, first)


def long_chain(case):
    top = error = Plain("0")
    for i in range(1, 30):
        error.__cause__ = Plain(str(i))
        error = error.__cause__
    handle(case, top)


def nested(case):
    """The inner handler's exception was raised before the outer one's: no link leads from one to the other."""
    early = ValueError("early")
    try:
        fail(early)
    except ValueError:
        pass
    try:
        fail(KeyError("outer"))
    except KeyError:
        try:
            raise early
        except ValueError:
            stay(case)


def in_finally(case):
    try:
        try:
            through(Plain("on its way"))
        finally:
            stay(case)
    except Plain:
        pass


def generator(case):
    def numbers():
        try:
            fail(IndexError("inside"))
        except IndexError:
            stay(case, [outer])
            yield 1

    try:
        fail(KeyError("outside"))
    except KeyError as error:
        outer = error
        next(numbers())


def generator_clean(case):
    def numbers():
        stay(case)
        yield 1

    try:
        fail(KeyError("outside"))
    except KeyError:
        next(numbers())


def suspended(case):
    """A generator that handles one, but does not run."""
    def numbers():
        try:
            fail(IndexError("not seen"))
        except IndexError:
            yield 1

    kept = numbers()
    next(kept)
    handle(case, ValueError("seen"))
    kept.close()


def coroutine(case):
    async def inner():
        try:
            fail(Plain("inner"))
        except Plain:
            stay(case, [outer])

    async def middle():
        await inner()

    try:
        fail(KeyError("outer"))
    except KeyError as error:
        outer = error
        try:
            middle().send(None)
        except StopIteration:
            pass


def deep(case):
    def down(n):
        if n:
            down(n - 1)
        fail(RecursionError("deep"))

    try:
        down(300)
    except RecursionError:
        stay(case)


def nothing(case):
    try:
        fail(KeyError("done with"))
    except KeyError:
        pass
    stay(case)


def syntax(case):
    try:
        compile("a = = 1", "/some/where/module.py", "exec")
    except SyntaxError:
        stay(case)


def decode(case, data=b"abc\xff"):
    try:
        data.decode("ascii")
    except UnicodeDecodeError:
        stay(case)


def missing(case):
    try:
        import no_such_module_at_all
    except ImportError:
        stay(case)


def attribute(case):
    try:
        case.no_such_attribute
    except AttributeError:
        stay(case)


def notes(case):
    error = Plain("with notes")
    error.add_note("first note")
    error.add_note("second\nnote")
    handle(case, error)


def group(case):
    try:
        fail(KeyError("why"))
    except KeyError as why:
        inner = ExceptionGroup("inner", [ValueError("a"), OSError(13, "Permission denied")])
        try:
            raise ExceptionGroup("outer", [inner, TypeError("b")]) from why
        except ExceptionGroup:
            stay(case)


def star(case):
    exec("""
try:
    raise ExceptionGroup("many", [ValueError("v"), KeyError("k")])
except* ValueError:
    stay(case)
except* KeyError:
    pass
""", globals(), {"case": case})


simple = {
    "no arguments": ValueError(),
    "one": ValueError("one"),
    "empty": ValueError(""),
    "two": ValueError("one", 2),
    "number": SystemExit(3),
    "none": Plain(None),
    "list": Plain([1, "a", (2.5, None)]),
    "exception inside": Plain(KeyError("inside")),
    "unicode": Plain(u"\u00fcber \u20ac \U0001f600"),
    "qualified": Outer.Inner("q"),
    "key": KeyError("key"),
    "key number": KeyError(5),
    "two keys": KeyError("a", "b"),
    "os": OSError(2, "No such file or directory"),
    "os file": OSError(2, "No such file or directory", "/tmp/a"),
    "os files": OSError(2, "No such file or directory", "/tmp/a", None, "/tmp/b"),
    "os text": OSError("only text"),
    "os child": OsChild(17, "File exists", "x"),
    "import": ImportError("no module", name="x"),
    "stop": StopIteration(7),
    "translate": UnicodeTranslateError(u"abc", 0, 2, "because"),
    "encode": UnicodeEncodeError("ascii", u"abc\u20ac\u20ac", 3, 5, "ordinal not in range(128)"),
    "line only": SyntaxError("odd", (None, 7, None, None)),
    "odd": Odd("argument"),
    "odd child": OddChild("one", 2),
}
cases = [cause, context, suppressed, both, cycle, long_chain, nested, in_finally, generator, generator_clean, suspended,
         coroutine, deep, nothing, syntax, decode, missing, attribute]
if NEW:
    cases += [notes, group, star]
threads = [threading.Thread(target=handle, args=(case, exc), name=case) for case, exc in simple.items()]
threads += [threading.Thread(target=case, args=(case.__name__,), name=case.__name__) for case in cases]
for thread in threads:
    thread.daemon = True
    thread.start()
while len(ready) < len(threads):
    threading.Event().wait(0.01)
print(json.dumps(accounts))
sys.stdin.read(1)
'''

# C code that raises, and waits before it returns.
RAISER = r'''
#include <unistd.h>
extern void PyErr_SetString(void *type, const char *text);
int raise_and_wait(void *type, int out, int in) {
	char byte;

	PyErr_SetString(type, "from C");
	return write(out, "r", 1) == 1 && read(in, &byte, 1) == 1;
}
'''

RAISING = r'''
import ctypes, sys
raiser = ctypes.PyDLL(sys.argv[1]).raise_and_wait
raiser.argtypes = [ctypes.py_object, ctypes.c_int, ctypes.c_int]
try:
    raise KeyError("handled meanwhile")
except KeyError:
    raiser(ValueError, 1, 0)
'''

OWN_STR = {"odd": "argument", "odd child": "('one', 2)"}
# Numbers of 3.6's frames do not tell who handles what beyond the innermost.
NOT_KNOWN_TO_36 = {"generator": 1, "coroutine": 1}


def told(exception):
    """What a dump says, as the program would say it."""
    if exception is None:
        return None
    brief = {"type": exception["type"], "message": exception["message"]}
    if exception.get("repeated"):
        brief["repeated"] = True
        return brief
    brief["notes"] = exception["notes"]
    brief["traceback"] = [[f["function"], f["file"], f["line"]] for f in exception["traceback"]]
    brief["cause"] = told(exception["cause"])
    brief["context"] = told(exception["context"])
    if "members" in exception:
        brief["members"] = [told(member) for member in exception["members"]]
    return brief


def cut(account, exception):
    """The frames that a dump leaves out, left out of the account."""
    omitted, gap = exception.get("traceback_omitted", 0), exception.get("traceback_gap", 0)
    if omitted:
        account["traceback"] = account["traceback"][:gap] + account["traceback"][gap + omitted:]


def check_case(checks, name, version, case, account, thread):
    exceptions = thread["exceptions"]
    if version == (3, 6):
        account = account[:NOT_KNOWN_TO_36.get(case, len(account))]
    if case in OWN_STR:
        checks.that(exceptions and exceptions[0].get("own_str"), "%s: %s: own_str" % (name, case))
        account[0]["message"] = OWN_STR[case]
    if case == "deep":
        checks.that(exceptions and exceptions[0].get("traceback_omitted", 0) > 100, "%s: deep is cut" % name)
        cut(account[0], exceptions[0])
    checks.that(all(e["state"] == "handled" for e in exceptions), "%s: %s: states" % (name, case))
    got = [told(e) for e in exceptions]
    checks.that(got == account, "%s: %s:\n got %s\nwant %s" % (name, case, json.dumps(got), json.dumps(account)))


def check_text(checks, name, pid):
    status, text, error = live.pyspyd("dump", "--pid", pid)
    checks.that(status == 0, "%s: %s" % (name, error))
    for line in ("  Handles __main__.Plain: no port", "    Raised from KeyError: 'port'",
                 "    Raised while this was handled: FileNotFoundError: [Errno 2] No such file or directory: 'a.txt'",
                 "  Handles __main__.Odd: argument (its arguments: it has a __str__ of its own)"):
        checks.that(line in text.splitlines(), "%s: no line %r" % (name, line))


def check_handled(checks, name, version, command):
    with live.Target(command, PROGRAM) as target:
        accounts = json.loads(target.ready_and_resting())
        dumped, error = live.dump(target.pid)
        if not checks.that(dumped is not None, "%s: %s" % (name, error)):
            return
        threads = {thread["name"]: thread for thread in dumped["threads"]}
        for case, account in accounts.items():
            if checks.that(case in threads, "%s: thread %s is there" % (name, case)):
                check_case(checks, name, version, case, account, threads[case])
        checks.that(threads["MainThread"]["exceptions"] == [], "%s: the main thread handles none" % name)
        check_text(checks, name, target.pid)


def check_raised(checks, name, command, library):
    with subprocess.Popen(command + ["-c", RAISING, library], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        ok = process.stdout.read(1) == b"r"
        dumped, error = live.dump(process.pid)
        process.kill()
        said = process.stderr.read().decode()
    if not checks.that(ok and dumped, "%s: raising: %s %s" % (name, error, said)):
        return
    got = [(e["state"], e["type"], e["message"]) for e in dumped["threads"][0]["exceptions"]]
    checks.that(got == [("raised", "ValueError", "from C"), ("handled", "KeyError", "'handled meanwhile'")],
                "%s: raised: %r" % (name, got))


def compile_raiser(folder):
    source, library = os.path.join(folder, "raiser.c"), os.path.join(folder, "raiser.so")
    with open(source, "w") as file:
        file.write(RAISER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def main():
    checks = live.Checks()
    with tempfile.TemporaryDirectory() as folder:
        library = compile_raiser(folder)
        for name, version, command in live.interpreters("3.11.2-system 3.13.0-pyenv"):
            check_handled(checks, name, version, command)
            if command[0] != "chroot":  # sees no library of ours
                check_raised(checks, name, command, library)
    checks.end()


main()
