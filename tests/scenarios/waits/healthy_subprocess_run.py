# SPDX-License-Identifier: MIT
# expect: none
# needs: program:sleep
"""subprocess.run() of a child that sleeps for long."""
import subprocess

print("ready", flush=True)
subprocess.run(["sleep", "3600"])
