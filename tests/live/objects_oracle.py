# SPDX-License-Identifier: MIT
"""Makes objects of every shape that this interpreter knows and says where they are and what they must read as.

Runs on Python 3.6 and later, from its standard input. Writes one line for each check, then "ready", and waits until its
standard input's other end (descriptor 3) is closed. objects_driver.c reads the lines and checks them in this process's
memory. The first line is `start<TAB>PID<TAB>VERSION<TAB>FLAVOUR`; the others KIND<TAB>ADDRESS<TAB>…, texts as hex of their
UTF-8:

    text ADDRESS HEX                     py_text_read
    cut ADDRESS MAX HEX                  py_text_read, cut at MAX characters
    bytes ADDRESS HEX                    py_bytes_read
    long ADDRESS NUMBER|big              py_long_read
    type ADDRESS NAME                    py_type_name
    seq ADDRESS LENGTH ITEM…             py_sequence_read (addresses)
    dict ADDRESS COUNT KEY:VALUE…        py_dict_walk (addresses)
    get ADDRESS HEX VALUE|none           py_dict_get
    attr ADDRESS HEX VALUE|none          py_attribute
    value ADDRESS HEX                    py_value_describe
"""

import collections
import ctypes
import enum
import os
import sys
import sysconfig
import warnings

keep = []  # everything whose address was told
lines = []


def utf8(text):
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text).encode().hex()


def tell(kind, thing, *fields):
    keep.append(thing)
    lines.append("\t".join([kind, "%x" % id(thing)] + [str(f) for f in fields]))


def text(s):
    tell("text", s, utf8(s))
    if len(s) > 1:
        tell("cut", s, len(s) - 1, utf8(s[:-1]))


def number(n):
    tell("long", n, int(n) if -(1 << 63) <= n < 1 << 63 else "big")


def sequence(s):
    tell("seq", s, len(s), *["%x" % id(item) for item in s])


def mapping(d, *absent):
    keep.append(list(d.items()))
    items = list(dict.items(d))
    tell("dict", d, len(items), *["%x:%x" % (id(k), id(v)) for k, v in items])
    for k, v in items[:40] + items[-40:]:
        if type(k) is str and not any("\ud800" <= c <= "\udfff" or c == "\0" for c in k):
            tell("get", d, utf8(k), "%x" % id(v))
    for name in absent + ("no such key", "", "schlüssel"):
        if name not in d:
            tell("get", d, utf8(name), "none")


def attributes(thing, names, *absent):
    for name in names:
        value = object.__getattribute__(thing, name)
        keep.append(value)
        tell("attr", thing, utf8(name), "%x" % id(value))
    for name in absent + ("no_such_attribute",):
        tell("attr", thing, utf8(name), "none")


def value(thing, expected=None):
    tell("value", thing, utf8(repr(thing) if expected is None else expected))


# Strings

SAMPLES = ["", "a", "ascii", "é", "caf\xe9", "ж", "жизнь", "\U0001f40d", "snake \U0001f40d!", "\ud800 alone", "nul \0 in"]


def old_text(chars, ready):
    """A str that is not compact, of the old C interface (to 3.11)."""
    new = ctypes.pythonapi.PyUnicode_FromUnicode
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_ssize_t]
    data = ctypes.pythonapi.PyUnicode_AsUnicode
    data.restype, data.argtypes = ctypes.c_void_p, [ctypes.py_object]
    s = new(None, len(chars))
    buffer = (ctypes.c_wchar * len(chars)).from_address(data(s))
    buffer[:] = chars
    if ready:
        hash(s)
    return s


class Text(str):
    pass


def texts():
    for s in SAMPLES:
        text(s)
        for times in (5, 300, 5000):
            text(s * times)
        text(Text(s))
        text(Text(s * 100))
    if sys.version_info < (3, 12):
        for chars in ("ascii", "caf\xe9", "жизнь", "snake \U0001f40d!", "long " * 500):
            for ready in (False, True):
                s = old_text(chars, ready)
                keep.append(s)
                lines.append("\t".join(["text", "%x" % id(s), utf8(chars)]))
    for length in (0, 1, 7, 200, 5000, 1 << 20):
        data = bytes(bytearray(i * 7 % 256 for i in range(length)))
        tell("bytes", data, data.hex())


# Numbers

class Number(int):
    pass


def numbers():
    edges = {0, 1, -1, 5, 256, 257}
    for power in (15, 29, 30, 31, 32, 59, 60, 61, 62, 63, 64, 70, 89, 90, 119, 120, 1000):
        for step in (-1, 0, 1):
            edges.update(((1 << power) + step, -(1 << power) + step))
    for n in sorted(edges):
        number(n)
        number(Number(n))
        if abs(n) < 1 << 119:
            value(n)
    number(True)
    number(False)
    value(Number(-7), "Number -7")


# Containers

class Pair(tuple):
    pass


class Items(list):
    pass


class Map(dict):
    pass


def sequences():
    for n in (0, 1, 2, 3, 20, 1000):
        sequence(tuple(str(i) for i in range(n)))
        sequence([float(i) for i in range(n)])
        sequence(Pair(str(i) for i in range(n)))
        sequence(Items(str(i) for i in range(n)))
    grown = []
    for i in range(100):
        grown.append(i)
    del grown[10:]
    sequence(grown)


def mappings():
    mapping({})
    for n in (1, 5, 6, 100, 170, 200, 300, 43690, 50000, 90000):
        mapping({"key%d" % i: i for i in range(n)}, "key%d" % n, "kez1")
    mapping({i: str(i) for i in range(300)}, "0")
    mapping({i if i % 2 else str(i): i for i in range(100)}, "1")
    mapping({b"bytes": 1, ("a", "b"): 2, "b": 3, None: 4, 2.5: 5, "ключ": 6, "cl\xe9": 7, Text("own"): 8}, "bytes", "a")
    mapping({"x" * 900: 1, "x" * 901: 2}, "x" * 899)
    for gone in (range(0, 200, 3), range(150), range(50, 200), range(200)):
        holes = {"key%d" % i: i for i in range(200)}
        for i in gone:
            del holes["key%d" % i]
        mapping(holes, "key%d" % gone[0], "key%d" % gone[-1])
    emptied = {"key%d" % i: i for i in range(200)}
    emptied.clear()
    mapping(emptied, "key199")
    popped = {"key%d" % i: i for i in range(10)}
    popped.popitem()
    popped["key3"] = "other"
    mapping(popped, "key9")
    mapping(Map(one=1, two=2))
    mapping(collections.OrderedDict((str(i), i) for i in range(10)))
    mapping(collections.defaultdict(list, a=[], b=[]))
    mapping(dict.fromkeys("abcdef"))
    mapping(sys.modules)
    mapping(globals())
    mapping(sys.__dict__)
    mapping({"copy": 1}.copy())


# Attributes

class Plain:
    def __init__(self, n=3):
        for i in range(n):
            setattr(self, "name%d" % i, "value %d" % i)


class Derived(Plain):
    pass


class WithSlots:
    __slots__ = ("one", "two", "__dict__")


class Weak:
    __slots__ = ("__dict__", "__weakref__")


class Error(Exception):
    pass


class Meta(type):
    pass


class Colour(enum.Enum):
    RED = 1


def names(n):
    return ["name%d" % i for i in range(n)]


def plain_objects():
    for n in (0, 1, 3, 29, 30, 31, 40, 200):
        kind = type("Class%d" % n, (Plain,), {})
        for _ in range(3):
            attributes(kind(n), names(n), "name%d" % n)
    seen = Plain()
    mapping(seen.__dict__)
    attributes(seen, names(3), "name3")
    later = Plain()
    keep.append(later.__dict__)
    later.later = "later"
    attributes(later, names(3) + ["later"])
    mapping(later.__dict__)
    gone = Plain()
    del gone.name1
    attributes(gone, ["name0", "name2"], "name1")
    again = Plain()
    del again.name0, again.name1
    again.name0 = "again"
    attributes(again, ["name0", "name2"], "name1")
    listed = Plain()
    keep.append(listed.__dict__)
    del listed.name0, listed.name1
    listed.name0 = "again"
    attributes(listed, ["name0", "name2"], "name1")
    mapping(listed.__dict__)
    replaced = Plain()
    replaced.__dict__ = {"other": 1}
    attributes(replaced, ["other"], "name0")
    shared = Plain()
    alias = shared.__dict__
    keep.append(alias)
    shared.__dict__ = {"x": 1}
    attributes(shared, ["x"], "name0")
    mapping(alias)
    orphan = Plain()
    alias = orphan.__dict__
    del orphan
    mapping(alias)


def other_orders():
    class Order:
        pass

    for order in ("abc", "cba", "bca", "dab", ""):
        thing = Order()
        for name in order:
            setattr(thing, name, name.upper())
        attributes(thing, list(order), "z")
        mapping(thing.__dict__)


def derived_objects():
    for base in (dict, list, tuple, int, str, bytes, float, set, frozenset, bytearray, Exception, object,
                 collections.OrderedDict, collections.deque, Weak, WithSlots):
        kind = type("Of_" + base.__name__, (base,), {})
        attributes(kind(), [], "colour")
        thing = kind()
        thing.colour, thing.size = "red", 12
        attributes(thing, ["colour", "size"], "one")
    for content in (0, 1, -1, 1 << 29, 1 << 30, -(1 << 70), 1 << 200):
        thing = Number(content)
        thing.colour = "red"
        attributes(thing, ["colour"])
    for n in (0, 1, 2, 5, 33):
        for kind, content in ((Pair, range(n)), (type("Raw", (bytes,), {}), b"x" * n), (Text, "x" * n)):
            thing = kind(content)
            thing.colour = "red"
            attributes(thing, ["colour"])
    slots = WithSlots()
    slots.one, slots.two, slots.three = 1, 2, 3
    attributes(slots, ["three"], "one", "two")
    error = Error("text")
    error.code = 12
    attributes(error, ["code"], "args")
    attributes(Colour.RED, ["_value_", "_name_"])


def no_attributes():
    for thing in (object(), 12, "text", None, [], {}, 1.5, len, Plain.__init__):
        attributes(thing, [])
    attributes(os, ["path", "sep", "environ"], "paths")
    plain = lambda: None
    plain.note = "n"
    attributes(plain, ["note"])


# Values

def values():
    for thing in (None, True, False, NotImplemented, Ellipsis, 0, "text", "", [], (), {}, [1], (1,), (1, 2), {"a": [1, 2]},
                  b"", b"bytes \x00\xff", [None, {"k": 2.5}]):
        expected = repr(thing)
        value(thing, expected)
    for f in (0.0, -0.0, 1.0, 1.5, -2.25, 0.1, 1e15, 1e16, 123456789012345.6, 1.7976931348623157e308, 5e-324, 1e-4, 1e-5,
              1 / 3, 2 / 3 * 1e10, 9007199254740993.0, 1e22, 1e23, float("inf"), float("-inf"), float("nan")):
        value(f)
    value([None, {"k": ("v", 2.5)}], "[None, {'k': tuple of 2}]")
    value([[[1]]], "[[list of 1]]")
    value({"a": {"b": {"c": 1}}}, "{'a': {'b': dict of 1}}")
    value(list(range(40)), "[%s, … 40 items]" % ", ".join(map(str, range(16))))
    value("x" * 200, "'%s…'" % ("x" * 119))
    value({1, 2, 3}, "set of 3")
    value(frozenset(), "frozenset of 0")
    value(Pair((1, 2)), "Pair (1, 2)")
    value(Text("own"), "Text 'own'")
    value(collections.OrderedDict(a=1), "collections.OrderedDict {'a': 1}")
    value(1 << 300, "int of about 330 bits")
    for thing in (object(), collections.deque(), Plain(), len):
        name = type(thing).__name__
        if type(thing).__module__ != "builtins":
            name = type(thing).__module__ + "." + name
        value(thing, "<%s at 0x%x>" % (name, id(thing)))
    loop = []
    loop.append(loop)
    value(loop, "[[list of 1]]")


def types():
    for thing, name in ((1, "int"), ({}, "dict"), (collections.OrderedDict(), "collections.OrderedDict"), (Plain(), "Plain"),
                        (int, "type"), (len, "builtin_function_or_method"), (Plain, "type"), (None, "NoneType"),
                        (Meta("Made", (), {}), "Meta")):
        tell("type", thing, name)


def main():
    warnings.simplefilter("ignore")
    flavour = (1 if hasattr(sys, "gettotalrefcount") else 0) | (2 if sysconfig.get_config_var("Py_GIL_DISABLED") else 0)
    for part in (texts, numbers, sequences, mappings, plain_objects, other_orders, derived_objects, no_attributes, values,
                 types):
        part()
    out = sys.stdout.buffer
    told = "start\t%d\t%x\t%x\n" % (os.getpid(), sys.hexversion, flavour) + "\n".join(lines) + "\nready\n"
    out.write(told.encode())
    out.flush()
    os.read(3, 1)


main()
