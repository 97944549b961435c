# SPDX-License-Identifier: MIT
# expect: handle-leak
# certainty: inferred
# says: /dev/null
"""Every request opens a file that nobody closes."""
import os
import resource
import time

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
kept = []


def handle_request():
    kept.append(open(os.devnull))


print("ready", flush=True)
while True:
    handle_request()
    time.sleep(0.02)
