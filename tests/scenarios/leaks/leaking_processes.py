# SPDX-License-Identifier: MIT
# expect: process-leak
# certainty: inferred
# says: children
"""Starts helpers that never end, one for every job."""
import subprocess
import sys
import time

helpers = []


def start_helper():
    code = "import time; time.sleep(3600)"
    helpers.append(subprocess.Popen([sys.executable, "-ES", "-c", code], stdin=subprocess.DEVNULL))


print("ready", flush=True)
for _ in range(160):
    start_helper()
    time.sleep(0.25)
time.sleep(3600)
