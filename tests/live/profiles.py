# SPDX-License-Identifier: MIT
"""Reads the profiles that record writes, each into {stack: weight}: the stack is a tuple of frames, root first, a frame
is "function (file:line)"; the weight is in samples. A file that breaks its format raises ValueError."""

import gzip
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
