# SPDX-License-Identifier: MIT
"""Counts what a collapsed profile of the ground-truth program says: lines of "frame;frame;… COUNT", root first."""
import re

PATH = re.compile(r"\b(phase|down|leaf)_(\d+)\b")
ORDER = {"phase": 0, "down": 1, "leaf": 2}
LEAVES = 64


def shape(frames):
    """(path, number of down frames, leaf is there, impossible) of one stack, root first."""
    path, downs, last, bad = -1, 0, None, False
    for frame in frames:
        found = PATH.search(frame)
        if not found:
            bad = bad or path >= 0
            continue
        kind, number = found.group(1), int(found.group(2))
        bad = bad or (path >= 0 and number != path)
        if last is None:
            bad = bad or kind != "phase"
        else:
            bad = bad or ORDER[kind] < ORDER[last] or (kind == last and kind != "down") or (last == "phase" and kind == "leaf")
        path, last = number, kind
        downs += kind == "down"
    return path, downs, last == "leaf", bad


def count(stacks, whole):
    """stacks: pairs of frames and count. whole: number of down frames below a leaf."""
    result = {"samples": 0, "torn": 0, "leaf": 0, "frames": 0, "paths": [0] * LEAVES}
    for frames, times in stacks:
        # What a sampler adds of its own, and what it knows about the thread, is no frame.
        frames = [f for f in frames if not re.match(r"<(GC|native)>|tid:|[PT]\d", f)]
        path, downs, leaf, bad = shape(frames)
        result["samples"] += times
        result["frames"] += times * len(frames)
        result["torn"] += times if bad or (leaf and downs != whole) else 0
        result["leaf"] += times if leaf else 0
        if 0 <= path < LEAVES:
            result["paths"][path] += times
    return result


def split(line):
    stack, _, times = line.rstrip("\n").rpartition(" ")
    return stack.split(";"), int(times)
