# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: archive
# needs: program:cat
"""The same with a child that is no Python, and with stdin as well: it wants to write, its parent still writes to it."""
import subprocess


def archive():
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    print("ready", flush=True)
    child.stdin.write(b"x" * (1 << 20))
    child.stdin.close()
    return child.stdout.read()


archive()
