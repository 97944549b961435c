# SPDX-License-Identifier: MIT
"""Is the file the comparison of minutes 40 to 43 of recorded.py with the four before? Usage: compared.py FORMAT FILE"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "live"))
import profiles

FIRST, SECOND = (("main (app.py:10)", "%s (app.py:%d)" % leaf) for leaf in (("first", 11), ("second", 12)))


def shares(stacks):
    total = sum(stacks.values())
    return {stack: round(n / total, 4) for stack, n in stacks.items() if n}


def sides(form, data):
    """Return: the shares before and after."""
    if form == "html":
        after, before = profiles.page(data)
    elif form == "gecko":
        (_, before), (_, after), (name, change) = profiles.gecko_threads(data)
        assert name == "change" and change == {FIRST: -40, SECOND: 40}, change
    else:
        rows = profiles.chrome_rows(data, lambda event: round(event["dur"]))
        assert set(rows) == {(1, 1), (2, 1)}, rows
        before, after = rows[1, 1], rows[2, 1]
    return shares(before), shares(after)


with open(sys.argv[2], "rb") as f:
    found = sides(sys.argv[1], f.read())
assert found == ({FIRST: 1.0}, {FIRST: 0.3333, SECOND: 0.6667}), found
