# SPDX-License-Identifier: MIT
"""Prints what guest.py has found on each kernel: table.py FOLDER SUITE…. Fails where a check has failed or is
missing."""

import json
import os
import sys


def rows_of(folder, suite):
    try:
        with open(os.path.join(folder, suite, "results", "table")) as file:
            return {row["check"]: row for row in map(json.loads, file)}
    except FileNotFoundError:
        return {}


def main(folder, *suites):
    tables = {suite: rows_of(folder, suite) for suite in suites}
    checks = list(dict.fromkeys(check for rows in tables.values() for check in rows))
    failed = 0
    print("\n%-18s%s" % ("", "".join("%-12s" % suite for suite in suites)))
    for check in checks:
        states = [tables[suite].get(check, {"state": "missing"})["state"] for suite in suites]
        failed += sum(state in ("FAILED", "missing") for state in states)
        print("%-18s%s" % (check.replace("_", " "), "".join("%-12s" % state for state in states)))
    for suite in suites:
        print("\n== " + suite)
        for row in tables[suite].values():
            print("%-8s%-18s%s (%.0f s)" % (row["state"], row["check"].replace("_", " "), row["text"], row["seconds"]))
    return 1 if failed or not all(tables.values()) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
