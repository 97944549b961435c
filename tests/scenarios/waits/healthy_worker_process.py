# SPDX-License-Identifier: MIT
# expect: none
"""A child that reads orders from its stdin, of which there are none now; its parent waits for it and for a signal."""
import signal
import subprocess
import sys

SERVE = """
import sys
for line in sys.stdin:
    print(line, flush=True)
"""

child = subprocess.Popen([sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdin.write(b"hello\n")
child.stdin.flush()
child.stdout.readline()
print("ready", flush=True)
signal.pause()
