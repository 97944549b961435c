# SPDX-License-Identifier: MIT
# expect: none
"""subprocess.run() of a child that sleeps for long."""
import subprocess

print("ready", flush=True)
subprocess.run(["sleep", "3600"])
