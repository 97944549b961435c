# SPDX-License-Identifier: MIT
# expect: none
"""communicate() with a child that says something every few seconds."""
import subprocess
import sys

TALK = """
import time
while True:
    time.sleep(3)
    print("still here", flush=True)
"""

child = subprocess.Popen([sys.executable, "-c", TALK], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print("ready", flush=True)
child.communicate()
