# SPDX-License-Identifier: MIT
# expect: none
"""A nightly job between two nights."""
import time


def until_night():
    time.sleep(12 * 3600)


print("ready", flush=True)
until_night()
