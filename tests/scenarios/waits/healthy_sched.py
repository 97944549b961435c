# SPDX-License-Identifier: MIT
# expect: none
"""sched: the next event is in an hour."""
import sched
import time

scheduler = sched.scheduler(time.monotonic, time.sleep)
scheduler.enter(3600, 1, print)
print("ready", flush=True)
scheduler.run()
