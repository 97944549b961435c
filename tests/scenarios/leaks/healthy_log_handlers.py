# SPDX-License-Identifier: MIT
# expect: none
"""A handler with a buffer is added for each job, and removed with it."""
import logging
import logging.handlers
import time

log = logging.getLogger("jobs")
log.setLevel(logging.INFO)
log.propagate = False


def run_job(number):
    handler = logging.handlers.MemoryHandler(10000, flushLevel=logging.CRITICAL)
    log.addHandler(handler)
    for line in range(50):
        log.info("job %d, line %d: %s", number, line, "x" * 500)
        time.sleep(0.002)
    log.removeHandler(handler)
    handler.close()


print("ready", flush=True)
number = 0
while True:
    number += 1
    run_job(number)
