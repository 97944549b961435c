# SPDX-License-Identifier: MIT
"""Reads the profiles that record writes, each into {stack: weight}: the stack is a tuple of frames, root first, a frame
is "function (file:line)"; the weight is in samples. A file that breaks its format raises ValueError."""

import gzip
import html.parser
import json
import re
import xml.etree.ElementTree as ElementTree

FRAME = re.compile(r"^[^;\n]+ \([^;\n]*:\d+\)$|^[^;\n]+ \([^;\n]*\)$")


def collapsed(data, threads=False):
    stacks = {}
    for line in data.decode().splitlines():
        text, _, count = line.rpartition(" ")
        frames = tuple(text.split(";"))
        for frame in frames[1 if threads else 0:]:
            if not FRAME.match(frame) and frames[1 if threads else 0:] != ("<no frames>",):
                raise ValueError("not a frame: %r" % frame)
        if not count.isdigit() or int(count) < 1:
            raise ValueError("not a count: %r" % line)
        if frames in stacks:
            raise ValueError("twice: %r" % line)
        stacks[frames] = int(count)
    return stacks


def speedscope(data):
    document = json.loads(data.decode())
    if document["$schema"] != "https://www.speedscope.app/file-format-schema.json":
        raise ValueError("schema %r" % document["$schema"])
    shared = document["shared"]["frames"]
    stacks = {}
    for profile in document["profiles"]:
        if profile["type"] != "sampled" or len(profile["samples"]) != len(profile["weights"]):
            raise ValueError("profile %r" % profile["name"])
        if abs(sum(profile["weights"]) - (profile["endValue"] - profile["startValue"])) > 1e-6 * profile["endValue"]:
            raise ValueError("weights are not the time of profile %r" % profile["name"])
        for sample, weight in zip(profile["samples"], profile["weights"]):
            frames = tuple("%s (%s:%s)" % (shared[i]["name"], shared[i].get("file"), shared[i].get("line"))
                           for i in sample)
            stacks[frames] = stacks.get(frames, 0) + weight
    return stacks


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("varint")


def fields(data):
    """The fields of one protobuf message: number and value."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 2:
            size, at = varint(data, at)
            value, at = data[at:at + size], at + size
            if len(value) != size:
                raise ValueError("cut")
        else:
            raise ValueError("wire type %d" % (key & 7))
        yield key >> 3, value


def numbers(value):
    """A repeated number, packed or not."""
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = varint(value, at)
        found.append(number)
    return found


def message(data, repeated=()):
    result = {number: [] for number in repeated}
    for number, value in fields(data):
        if number in result and number in repeated:
            result[number] += numbers(value)
        else:
            result[number] = value
    return result


def pprof(data):
    data = gzip.decompress(data)
    strings, samples, locations, functions = [], [], {}, {}
    for number, value in fields(data):
        if number == 6:
            strings.append(value.decode())
        elif number == 2:
            samples.append(message(value, (1, 2)))
        elif number == 4:
            location = message(value)
            locations[location[1]] = message(location[4])
        elif number == 5:
            function = message(value)
            functions[function[1]] = function
    if not strings or strings[0]:
        raise ValueError("the first string is not empty")
    stacks = {}
    for sample in samples:
        frames = []
        for identifier in reversed(sample[1]):
            line = locations[identifier]
            function = functions[line[1]]
            frames.append("%s (%s:%d)" % (strings[function[2]], strings[function[4]], line.get(2, 0)))
        stacks[tuple(frames)] = stacks.get(tuple(frames), 0) + sample[2][0]
    return stacks


def svg(data):
    """Return: the titles of its boxes; it must be XML that fetches nothing."""
    text = data.decode()
    root = ElementTree.fromstring(text)
    if root.tag != "{http://www.w3.org/2000/svg}svg":
        raise ValueError("root %s" % root.tag)
    for element in root.iter():
        for name, value in element.attrib.items():
            if name.endswith(("href", "src")) and not value.startswith("#"):
                raise ValueError("refers to %r" % value)
    return [t.text for t in root.iter("{http://www.w3.org/2000/svg}title")]


def label(function, file, line):
    """A frame as the other formats write it."""
    if not file:
        return function or "<unknown>"
    return "%s (%s:%d)" % (function, file, line) if line and line > 0 else "%s (%s)" % (function, file)


class Page(html.parser.HTMLParser):
    """The data of a page that fetches nothing."""

    def __init__(self, text):
        super().__init__()
        self.text, self.scripts, self.inside = "", 0, False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        for name, _ in attrs:
            if name in ("href", "src", "srcset", "action", "data"):
                raise ValueError("%s refers to something" % tag)
        self.scripts += tag == "script"
        self.inside = tag == "script" and ("id", "data") in attrs

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.text += data


def page(data):
    """Return: the stacks of each side: one, or after and before."""
    parsed = Page(data.decode())
    if parsed.scripts != 2:
        raise ValueError("%d scripts" % parsed.scripts)
    document = json.loads(parsed.text)
    strings, frames, nodes = document["strings"], document["frames"], document["nodes"]
    names = [label(strings[function], strings[file] or strings[module], line) for function, file, module, line in zip(
        frames["function"], frames["file"], frames["module"], frames["line"])]
    sides = []
    for side in ("counts", "before") if document["diff"] else ("counts",):
        stacks = {}
        for node, samples in zip(document[side]["node"], document[side]["samples"]):
            stack = ()
            while node:
                if nodes["parent"][node] >= node:
                    raise ValueError("node %d stands before its caller" % node)
                stack = (names[nodes["frame"][node]],) + stack
                node = nodes["parent"][node]
            stacks[stack] = stacks.get(stack, 0) + samples
        sides.append(stacks)
    return sides


def merged(parts):
    stacks = {}
    for part in parts:
        for stack, weight in part.items():
            stacks[stack] = stacks.get(stack, 0) + weight
    return stacks


def gecko_threads(data):
    """Return: name of the thread and its stacks, for each."""
    document = json.loads(data.decode())
    if document["meta"]["preprocessedProfileVersion"] != 56:
        raise ValueError("version %r" % document["meta"]["preprocessedProfileVersion"])
    strings, threads = document["shared"]["stringArray"], []
    for thread in document["threads"]:
        frames, functions, table = thread["frameTable"], thread["funcTable"], thread["stackTable"]
        stacks = {}
        for stack, weight in zip(thread["samples"]["stack"], thread["samples"]["weight"]):
            found = ()
            while stack is not None:
                frame = table["frame"][stack]
                function = frames["func"][frame]
                file = functions["fileName"][function]
                found = (label(strings[functions["name"][function]], None if file is None else strings[file],
                               frames["line"][frame]),) + found
                stack = table["prefix"][stack]
            stacks[found] = stacks.get(found, 0) + weight
        threads.append((thread["name"], stacks))
    return threads


def chrome_rows(data, weight=lambda event: event["args"]["samples"]):
    """Return: the stacks of each row, by pid and tid. A stack's weight is what its box has more than those in it."""
    rows = {}
    for event in json.loads(data.decode())["traceEvents"]:
        if event["ph"] == "X":
            rows.setdefault((event["pid"], event["tid"]), []).append(event)
    for row, events in rows.items():
        events.sort(key=lambda event: (event["ts"], -event["dur"]))
        stacks, above = {}, []
        for event in events:
            while above and event["ts"] >= above[-1][1] - 1e-6:
                above.pop()
            end = event["ts"] + event["dur"]
            if above and end > above[-1][1] + 1e-6:
                raise ValueError("a box sticks out of its caller: %r" % event)
            frame = label(event["name"], event["args"].get("file"), event["args"].get("line"))
            stack = above[-1][0] + (frame,) if above else (frame,)
            stacks[stack] = stacks.get(stack, 0) + weight(event)
            if above:
                stacks[above[-1][0]] -= weight(event)
            above.append((stack, end))
        rows[row] = {stack: n for stack, n in stacks.items() if n}
    return rows


def gecko(data):
    return merged(stacks for _, stacks in gecko_threads(data))


def chrome(data):
    return merged(chrome_rows(data).values())


def html_page(data):
    stacks, = page(data)
    return stacks
