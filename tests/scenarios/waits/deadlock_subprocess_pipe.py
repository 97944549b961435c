# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: run_report
# option: --children
# certainty: proven
"""wait() for a child that cannot end, since nobody reads the pipe that it writes to."""
import subprocess
import sys

REPORT = """
import os
def write_report():
    while True:
        os.write(1, b"x" * 4096)
write_report()
"""


def run_report():
    child = subprocess.Popen([sys.executable, "-c", REPORT], stdout=subprocess.PIPE)
    print("ready", flush=True)
    child.wait()


run_report()
