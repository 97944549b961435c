# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: loggerDict
"""Every connection makes a logger of its own; logging keeps them for ever."""
import logging
import time


class Connection:
    def __init__(self, number):
        self.log = logging.getLogger("server.connection-%d" % number)
        self.log.addHandler(logging.NullHandler())


print("ready", flush=True)
for step in range(12000):
    for number in range(24):
        Connection(step * 24 + number)
    time.sleep(0.01)
time.sleep(3600)
